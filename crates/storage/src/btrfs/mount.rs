use std::ffi::CStr;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use garth_kernel::btrfs as kernel;
use garth_kernel::loopdev::LoopDevice;
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::error::{At, Error, ErrorKind};

/// No discard by the filesystem itself: blocks go back to the host in one pass by [`super::file`], which
/// then makes sure again that the trees have theirs.
const OPTIONS: &CStr = c"nodiscard";

/// How long a pool may be busy before it is said to be in use.
const PATIENCE: Duration = Duration::from_secs(1);

/// Mounts the pool file, or finds it mounted by a daemon before us.
pub(super) fn ensure(file: &File, path: &Path, root: &Path) -> Result<(), Error> {
    let found = LoopDevice::find(file.as_fd()).at("find loop device", path)?;
    if super::is_on_btrfs(root)? {
        return match found {
            Some(device) if is_device_of(root, &device)? => Ok(()),
            _ => Err(Error::new(ErrorKind::Corrupt, "open pool: another filesystem is mounted there", root)),
        };
    }
    let device = match found {
        Some(device) => device,
        None => LoopDevice::attach(file.as_fd()).map_err(|error| no_loop_device(error, path))?,
    };
    // On failure the device lets go of the file by itself when `device` is dropped.
    let flags = MountFlags::NODEV | MountFlags::NOATIME;
    mount(device.path(), root, "btrfs", flags, OPTIONS).map_err(|error| refused(error, path))
}

/// Unmounts the pool. The loop device lets go when the last mount of it is gone.
pub(super) fn remove(file: &File, root: &Path) -> Result<(), Error> {
    if !super::is_on_btrfs(root)? {
        return Ok(());
    }
    unmount_unused(root)?;
    // Only one that lost its autoclear, or that a mount elsewhere still uses, is left.
    match LoopDevice::find(file.as_fd()).at("detach loop device", root)? {
        Some(device) => device.detach().at("detach loop device", root),
        None => Ok(()),
    }
}

/// A process that another thread starts has a copy of our descriptors until it executes its program, and so a
/// pool that nobody uses can be busy for a moment; the kernel tells nobody when it no longer is.
fn unmount_unused(root: &Path) -> Result<(), Error> {
    let begun = Instant::now();
    loop {
        match unmount(root, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) if begun.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(5)),
            Err(Errno::BUSY) => {
                return Err(Error::new(ErrorKind::Busy, "unmount pool", root).because(Errno::BUSY.into()));
            }
            other => return other.at("unmount pool", root),
        }
    }
}

fn is_device_of(root: &Path, device: &LoopDevice) -> Result<bool, Error> {
    let dir = super::open(root)?;
    let fs = kernel::fs_id(dir.as_fd()).at("open pool", root)?;
    let name = device.path().file_name().unwrap_or_default();
    Ok(Path::new("/sys/fs/btrfs").join(fs.to_string()).join("devices").join(name).exists())
}

fn no_loop_device(error: std::io::Error, path: &Path) -> Error {
    Error::new(ErrorKind::NoLoopDevice, "attach loop device", path).because(error)
}

fn refused(error: Errno, path: &Path) -> Error {
    let kind = match error {
        Errno::NODEV => ErrorKind::NoBtrfs,
        Errno::PERM | Errno::ACCESS => ErrorKind::MountRefused,
        Errno::INVAL | Errno::UCLEAN | Errno::IO => ErrorKind::Corrupt,
        _ => ErrorKind::Io,
    };
    Error::new(kind, "mount pool", path).because(error.into())
}
