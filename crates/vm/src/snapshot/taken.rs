use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use crate::error::Error;
use crate::socket::Directory;

/// What errors call it.
const ORDER: &str = "the order to save";

/// Takes a file that a program wrote in its own directory into another, which is the host's. It may be anything: a link
/// to a file of the host's, a pipe that never ends.
pub(crate) fn take(own: &Directory, name: &str, into: &Path) -> Result<(), Error> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let held = rustix::fs::openat(own.fd(), name, flags, Mode::empty()).map_err(|_| Error::nonsense(ORDER))?;
    let held = File::from(held);
    let metadata = held.metadata().map_err(Error::io("look at the saved memory"))?;
    // A second name would leave it with a way to write.
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(Error::nonsense(ORDER));
    }
    let to = into.join(name);
    match rustix::fs::renameat(own.fd(), name, CWD, &to) {
        Ok(()) if is_at(&metadata, &to) => keep(&held).map_err(Error::io("keep the saved memory")),
        Ok(()) => Err(Error::nonsense(ORDER)),
        Err(rustix::io::Errno::XDEV) => {
            copy(held, &to).map_err(Error::io("copy the saved memory"))?;
            let removed = rustix::fs::unlinkat(own.fd(), name, AtFlags::empty());
            removed.map_err(|error| Error::io("remove the saved memory")(error.into()))
        }
        Err(error) => Err(Error::io("move the saved memory")(error.into())),
    }
}

/// What was moved is what was looked at, and not what was put in its place in between.
fn is_at(looked: &std::fs::Metadata, to: &Path) -> bool {
    let moved = rustix::fs::statat(CWD, to, AtFlags::SYMLINK_NOFOLLOW);
    moved.is_ok_and(|moved| (moved.st_dev, moved.st_ino) == (looked.dev(), looked.ino()))
}

/// From now on it is the host's. Programs that load it run as users of their own, and their jails show it to them; others
/// do not get into its directory.
fn keep(file: &File) -> io::Result<()> {
    rustix::fs::fchown(file, Some(rustix::process::geteuid()), Some(rustix::process::getegid()))?;
    Ok(rustix::fs::fchmod(file, Mode::RUSR | Mode::RGRP | Mode::ROTH)?)
}

fn copy(mut from: File, to: &Path) -> io::Result<()> {
    let mut to = File::create_new(to)?;
    io::copy(&mut from, &mut to)?;
    keep(&to)
}
