//! Owner, mode and time of a file, as a stream carries them and as they are put on.

use std::ffi::OsStr;
use std::os::fd::AsFd;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid};
use rustix::io::Errno;

/// What a stream says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// The low twelve bits.
    pub mode: u32,
    /// Never 2^32 - 1, which means "unchanged" to chown(2).
    pub uid: u32,
    /// The same.
    pub gid: u32,
    /// When its content changed.
    pub modified: Timespec,
}

impl Facts {
    /// As they are before anything is known.
    pub const UNKNOWN: Self = Self { mode: 0, uid: 0, gid: 0, modified: Timespec { tv_sec: 0, tv_nsec: 0 } };

    /// Owner first: changing it clears set-user-id bits and file capabilities (chown(2)).
    pub fn own(&self, fd: impl AsFd) -> Result<(), Errno> {
        rustix::fs::fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }

    /// The same of what someone hands in: an agent that is not root gives nothing away, as tar(1) does for who is not root,
    /// and the file stays its own.
    pub fn own_as_may_be(&self, fd: impl AsFd) -> Result<(), Errno> {
        as_may_be(self.own(fd))
    }

    /// Mode, which a list of access rights changes, and then the times.
    pub fn dress(&self, fd: impl AsFd) -> Result<(), Errno> {
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(self.mode))?;
        self.date(fd)
    }

    /// The times alone.
    pub fn date(&self, fd: impl AsFd) -> Result<(), Errno> {
        rustix::fs::futimens(fd, &self.times())
    }

    /// The owner of what cannot be opened without consequences.
    pub fn own_name(&self, directory: impl AsFd, name: &OsStr) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        rustix::fs::chownat(directory, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
    }

    /// [`Self::own_as_may_be`] of that.
    pub fn own_name_as_may_be(&self, directory: impl AsFd, name: &OsStr) -> Result<(), Errno> {
        as_may_be(self.own_name(directory, name))
    }

    /// Its times.
    pub fn date_name(&self, directory: impl AsFd, name: &OsStr) -> Result<(), Errno> {
        rustix::fs::utimensat(directory, name, &self.times(), AtFlags::SYMLINK_NOFOLLOW)
    }

    fn times(&self) -> Timestamps {
        Timestamps { last_access: self.modified, last_modification: self.modified }
    }
}

fn as_may_be(owned: Result<(), Errno>) -> Result<(), Errno> {
    match owned {
        Err(Errno::PERM) if !rustix::process::geteuid().is_root() => Ok(()),
        owned => owned,
    }
}
