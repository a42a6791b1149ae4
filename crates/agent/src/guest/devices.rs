//! Disks and network interfaces are looked at when a machine begins and not before: until then nobody knows whose they
//! are. A machine that was saved before that, and begins as a copy with other disks, finds those.

use std::io;
use std::path::Path;

const BUS: &str = "/sys/bus/virtio";

/// Network interfaces and disks (VIRTIO 1.2, 5).
const HELD: [&str; 2] = ["0x0001", "0x0002"];

/// Has the kernel give no device to a driver. Nothing where there is no such bus yet: a module may bring it.
pub(super) fn hold() -> io::Result<()> {
    match std::fs::write(Path::new(BUS).join("drivers_autoprobe"), "0") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Gives drivers all others.
pub(super) fn probe_others() -> io::Result<()> {
    probe(Path::new(BUS), |kind| !HELD.contains(&kind))
}

/// Gives drivers what was held, and all that comes from now on. A driver that is built into the kernel has seen them
/// before, and looks again.
pub(super) fn probe_held() -> io::Result<()> {
    match std::fs::write(Path::new(BUS).join("drivers_autoprobe"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        result => result?,
    }
    probe(Path::new(BUS), |kind| HELD.contains(&kind))
}

fn probe(bus: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    let devices = match std::fs::read_dir(bus.join("devices")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        devices => devices?,
    };
    let mut names: Vec<_> = devices.flatten().map(|device| device.file_name()).collect();
    names.sort();
    for name in names {
        let device = bus.join("devices").join(&name);
        if !wanted(std::fs::read_to_string(device.join("device"))?.trim_end()) {
            continue;
        }
        let name = name.as_encoded_bytes();
        if device.join("driver").exists() {
            std::fs::write(device.join("driver/unbind"), name)?;
        }
        std::fs::write(bus.join("drivers_probe"), name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(bus: &Path, name: &str, kind: &str) {
        std::fs::create_dir_all(bus.join("devices").join(name)).expect("device");
        std::fs::write(bus.join("devices").join(name).join("device"), format!("{kind}\n")).expect("kind");
    }

    fn probed(bus: &Path) -> String {
        std::fs::read_to_string(bus.join("drivers_probe")).unwrap_or_default()
    }

    #[test]
    fn disks_and_interfaces_wait_and_what_had_a_driver_gets_it_again() {
        let bus = tempfile::tempdir().expect("directory");
        probe(bus.path(), |_| true).expect("a machine without the bus");
        device(bus.path(), "virtio0", "0x0003");
        device(bus.path(), "virtio1", "0x0002");
        probe(bus.path(), |kind| !HELD.contains(&kind)).expect("probed");
        assert_eq!(probed(bus.path()), "virtio0");
        std::fs::create_dir(bus.path().join("devices/virtio1/driver")).expect("driver");
        probe(bus.path(), |kind| HELD.contains(&kind)).expect("probed");
        assert_eq!(probed(bus.path()), "virtio1");
        let unbound = std::fs::read_to_string(bus.path().join("devices/virtio1/driver/unbind"));
        assert_eq!(unbound.expect("unbound first"), "virtio1");
    }
}
