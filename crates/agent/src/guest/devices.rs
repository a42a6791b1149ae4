//! Disks and network interfaces of a machine that is to be saved as a template: no driver has them then, since those that
//! go on from it have others in their places.

use std::ffi::OsString;
use std::io;
use std::path::Path;

const BUS: &str = "/sys/bus/virtio";

/// Network interfaces and disks (VIRTIO 1.2, 5).
const OWN: [&str; 2] = ["0x0001", "0x0002"];

/// Takes them from their drivers, but one.
pub(super) fn release(kept: Option<&OsString>) -> io::Result<()> {
    let bus = Path::new(BUS);
    for name in own(bus)?.iter().filter(|name| Some(*name) != kept) {
        let driver = bus.join("devices").join(name).join("driver");
        if driver.exists() {
            std::fs::write(driver.join("unbind"), name.as_encoded_bytes())?;
        }
    }
    Ok(())
}

/// Gives those that have none to a driver.
pub(super) fn find() -> io::Result<()> {
    let bus = Path::new(BUS);
    for name in own(bus)? {
        if !bus.join("devices").join(&name).join("driver").exists() {
            std::fs::write(bus.join("drivers_probe"), name.as_encoded_bytes())?;
        }
    }
    Ok(())
}

/// Their names on the bus.
fn own(bus: &Path) -> io::Result<Vec<OsString>> {
    let devices = match std::fs::read_dir(bus.join("devices")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        devices => devices?,
    };
    let is_own = |name: &OsString| {
        let kind = std::fs::read_to_string(bus.join("devices").join(name).join("device"));
        kind.is_ok_and(|kind| OWN.contains(&kind.trim_end()))
    };
    let mut names: Vec<_> = devices.flatten().map(|device| device.file_name()).filter(is_own).collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_and_interfaces_are_told_from_what_the_agent_itself_needs() {
        let bus = tempfile::tempdir().expect("directory");
        assert_eq!(own(bus.path()).expect("a machine without the bus"), Vec::<OsString>::new());
        for (name, kind) in [("virtio0", "0x0003"), ("virtio2", "0x0001"), ("virtio1", "0x0002"), ("virtio3", "0x0005")]
        {
            std::fs::create_dir_all(bus.path().join("devices").join(name)).expect("device");
            std::fs::write(bus.path().join("devices").join(name).join("device"), format!("{kind}\n")).expect("kind");
        }
        assert_eq!(own(bus.path()).expect("devices"), ["virtio1", "virtio2"]);
    }
}
