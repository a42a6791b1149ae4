//! Disks and network interfaces of a machine. No driver has them before the host has said what the machine is: those that
//! go on from a template have others in their places, and Firecracker's cannot be taken from a driver again (it resets no
//! device).

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

const BUS: &str = "/sys/bus/virtio";

/// VIRTIO 1.2, 5.
const INTERFACE: &str = "0x0001";
const DISK: &str = "0x0002";

/// From now on no device gets a driver by itself.
pub(super) fn hold() -> io::Result<()> {
    match std::fs::write(Path::new(BUS).join("drivers_autoprobe"), "0") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Gives all others to a driver, whatever becomes of one of them: the agent needs the rest.
pub(super) fn find_others() -> io::Result<()> {
    let bus = Path::new(BUS);
    let others = devices(bus)?.into_iter().filter(|device| !device.is_own());
    let failed: Vec<_> = others.filter_map(|device| device.bind(bus).err()).collect();
    failed.into_iter().next().map_or(Ok(()), Err)
}

/// Gives disks and interfaces to a driver.
pub(super) fn find() -> io::Result<()> {
    let bus = Path::new(BUS);
    devices(bus)?.iter().filter(|device| device.is_own()).try_for_each(|device| device.bind(bus))
}

/// Takes disks and interfaces from their drivers, but one.
pub(super) fn release(kept: Option<&OsString>) -> io::Result<()> {
    let bus = Path::new(BUS);
    for device in devices(bus)?.iter().filter(|device| device.is_own() && Some(&device.name) != kept) {
        let driver = device.at(bus).join("driver");
        if driver.exists() {
            std::fs::write(driver.join("unbind"), device.name.as_encoded_bytes())?;
        }
    }
    Ok(())
}

/// The disk of this number in the order of the bus, given to a driver: what it is called in /dev.
pub(super) fn disk(number: usize) -> io::Result<Option<String>> {
    let (bus, devices) = (Path::new(BUS), devices(Path::new(BUS))?);
    let Some(device) = devices.iter().filter(|device| device.kind == DISK).nth(number) else { return Ok(None) };
    device.bind(bus)?;
    let block = std::fs::read_dir(device.at(bus).join("block"))?.flatten().next();
    Ok(block.and_then(|block| block.file_name().into_string().ok()))
}

struct Device {
    name: OsString,
    kind: String,
}

impl Device {
    fn is_own(&self) -> bool {
        [INTERFACE, DISK].contains(&self.kind.as_str())
    }

    fn at(&self, bus: &Path) -> PathBuf {
        bus.join("devices").join(&self.name)
    }

    /// One that no driver wants stays as it is.
    fn bind(&self, bus: &Path) -> io::Result<()> {
        match self.at(bus).join("driver").exists() {
            true => Ok(()),
            false => std::fs::write(bus.join("drivers_probe"), self.name.as_encoded_bytes()),
        }
    }
}

/// In the order of the bus: `virtio2` before `virtio10`.
fn devices(bus: &Path) -> io::Result<Vec<Device>> {
    let names = match std::fs::read_dir(bus.join("devices")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        devices => devices?.flatten().map(|device| device.file_name()),
    };
    let device = |name: OsString| {
        let kind = std::fs::read_to_string(bus.join("devices").join(&name).join("device"));
        Device { kind: kind.unwrap_or_default().trim_end().to_owned(), name }
    };
    let mut devices: Vec<Device> = names.map(device).collect();
    devices.sort_by_key(|device| (device.name.len(), device.name.clone()));
    Ok(devices)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_and_interfaces_are_told_from_what_the_agent_itself_needs() {
        let bus = tempfile::tempdir().expect("directory");
        assert!(devices(bus.path()).expect("a machine without the bus").is_empty());
        for (name, kind) in [("virtio0", "0x0003"), ("virtio10", "0x0001"), ("virtio2", DISK), ("virtio3", "0x0005")] {
            std::fs::create_dir_all(bus.path().join("devices").join(name)).expect("device");
            std::fs::write(bus.path().join("devices").join(name).join("device"), format!("{kind}\n")).expect("kind");
        }
        let own: Vec<_> = devices(bus.path()).expect("devices").into_iter().filter(Device::is_own).collect();
        assert_eq!(own.iter().map(|device| &device.name).collect::<Vec<_>>(), ["virtio2", "virtio10"]);
    }
}
