//! Directories of the host in a guest.

use std::io;
use std::os::fd::OwnedFd;

use garth_spec::GuestVolume;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use super::{At, GuestFailure};

/// Mounts them below a root, as they are at the other levels: without set-user-id programs and devices.
pub(super) fn show(volumes: &[GuestVolume], root: &str) -> Result<(), GuestFailure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(CWD, root, flags, Mode::empty()).at(|| "open the root".to_owned())?;
    volumes.iter().try_for_each(|volume| {
        let shown = mount(volume).and_then(|mount| garth_runtime::steps::volume(&mount, &volume.at, &root));
        shown.at(|| format!("mount the volume at {}", volume.at))
    })
}

fn mount(volume: &GuestVolume) -> io::Result<OwnedFd> {
    let fs = fsopen("virtiofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&fs, "source", &volume.tag)?;
    fsconfig_create(&fs)?;
    let mut flags = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    flags.set(MountAttrFlags::MOUNT_ATTR_RDONLY, volume.read_only);
    Ok(fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, flags)?)
}
