//! Where a program finds what a machine is made of, in its jail. The same for every machine, so that what was saved in
//! one jail is at home in the next.

use std::path::Path;

use crate::machine::{Drive, DriveAccess, Machine};
use crate::snapshot::Snapshot;
use crate::vmm::{Access, Shown};

pub(crate) const KERNEL: &str = "/guest/vmlinux";
pub(crate) const INITRD: &str = "/guest/initrd.img";

/// The program's own directory, which it may write.
pub(crate) const OWN: &str = "/own";
/// Where it sees the snapshot that it is to load.
pub(crate) const SNAPSHOT: &str = "/snapshot";

/// The tap, for programs that take no descriptor of one.
pub(crate) const TAP: &str = "tap0";
const TUN: &str = "/dev/net/tun";
pub(crate) const KVM: &str = "/dev/kvm";
/// Where programs that make no random numbers of their own have the guest's from.
pub(crate) const RANDOM: &str = "/dev/urandom";

/// Where a drive's file is.
pub(crate) fn drive(drive: &Drive) -> String {
    format!("/disks/{}", drive.serial)
}

/// Where the socket is of who serves a share, for programs that are not given it open.
pub(crate) fn share(tag: &str) -> String {
    format!("/shares/{tag}")
}

/// The files of a machine.
pub(crate) fn files(machine: &Machine) -> impl Iterator<Item = Shown> + '_ {
    let drives = machine.drives.iter().map(|drive| {
        let access = match drive.access {
            DriveAccess::ReadOnly => Access::Read,
            DriveAccess::ReadWrite => Access::Write,
        };
        shown(&drive.file, self::drive(drive), access)
    });
    let kernel = shown(&machine.kernel, KERNEL.to_owned(), Access::Read);
    [kernel, shown(&machine.initrd, INITRD.to_owned(), Access::Read)].into_iter().chain(drives)
}

/// The files of a snapshot, one by one: nobody but root enters its directory.
pub(crate) fn snapshot<'a>(snapshot: &'a Snapshot, names: &'a [&str]) -> impl Iterator<Item = Shown> + 'a {
    let at = |name: &str| format!("{SNAPSHOT}/{name}");
    names.iter().map(move |name| shown(&snapshot.directory().join(name), at(name), Access::Read))
}

/// Devices of a program that runs guests by KVM alone and opens taps by name.
pub(crate) fn devices(machine: &Machine) -> impl Iterator<Item = Shown> + '_ {
    let tun = machine.nic.map(|_| TUN);
    [KVM].into_iter().chain(tun).map(device)
}

/// A device where the host has it.
pub(crate) fn device(path: &str) -> Shown {
    shown(Path::new(path), path.to_owned(), Access::Device)
}

fn shown(from: &Path, at: String, access: Access) -> Shown {
    Shown { from: from.to_owned(), at: at.into(), access }
}
