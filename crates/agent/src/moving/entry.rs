//! One thing in a stream.

use rustix::fs::{FileType, Statx, Timespec};

use crate::facts::Facts;
use crate::xattrs::Xattr;

/// A name in the tree and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From the root, without a slash before it; empty for the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Owner, mode and time; nothing for links to files, mounts and what was deleted.
    pub facts: Facts,
    /// By name.
    pub xattrs: Vec<Xattr>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file of so many bytes.
    File(u64),
    Directory,
    /// And what it says.
    Symlink(Vec<u8>),
    /// One more name of the file at this path, which came before.
    Link(Vec<u8>),
    Fifo,
    Character(Device),
    Block(Device),
    /// Another mount is here: what is below stays behind.
    Mount(Point),
    /// The base has it, and the tree does not.
    Deleted,
}

/// What is mounted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Directory,
    /// Anything else.
    File,
}

/// A device's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    pub major: u32,
    pub minor: u32,
}

impl Entry {
    /// One without facts of its own.
    pub fn bare(path: &[u8], kind: Kind) -> Self {
        Self { path: path.to_vec(), kind, facts: Facts::UNKNOWN, xattrs: Vec::new() }
    }
}

/// What statx(2) says of a file, as facts.
pub fn facts(stat: &Statx) -> Facts {
    Facts {
        mode: u32::from(stat.stx_mode) & 0o7777,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        modified: Timespec { tv_sec: stat.stx_mtime.tv_sec, tv_nsec: stat.stx_mtime.tv_nsec.into() },
    }
}

/// When anything about it changed; nobody can set it.
pub fn change_time(stat: &Statx) -> Timespec {
    Timespec { tv_sec: stat.stx_ctime.tv_sec, tv_nsec: stat.stx_ctime.tv_nsec.into() }
}

/// Its type.
pub fn file_type(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// The device that it stands for.
pub fn device(stat: &Statx) -> Device {
    Device { major: stat.stx_rdev_major, minor: stat.stx_rdev_minor }
}
