//! A place in a tree, one step at a time: no path is longer than a name, and no depth costs a descriptor.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::RDONLY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Whether a step may lead into another mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounts {
    Enter,
    Refuse,
}

/// An open directory, and those above it by identity.
#[derive(Debug)]
pub struct Cursor {
    directory: OwnedFd,
    above: Vec<Identity>,
}

type Identity = (u64, u32, u32, u64);

impl Cursor {
    /// At the directory `path`.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(Self { directory: rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())?, above: Vec::new() })
    }

    /// The directory.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Into the directory `name`, never through a link.
    pub fn down(&mut self, name: &OsStr, mounts: Mounts) -> Result<(), Errno> {
        let here = identity(&stat(&self.directory, OsStr::new("."))?);
        self.directory = enter(&self.directory, name, mounts)?;
        self.above.push(here);
        Ok(())
    }

    /// Back to where the last step down began. Fails when the directory was moved meanwhile.
    pub fn up(&mut self) -> Result<(), Errno> {
        let directory = rustix::fs::openat(&self.directory, "..", DIRECTORY, Mode::empty())?;
        if self.above.pop() != Some(identity(&stat(&directory, OsStr::new("."))?)) {
            return Err(Errno::STALE);
        }
        self.directory = directory;
        Ok(())
    }

    /// How many steps down.
    pub fn depth(&self) -> usize {
        self.above.len()
    }
}

/// Opens the directory `name` of another.
pub fn enter(directory: impl AsFd, name: &OsStr, mounts: Mounts) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    if mounts == Mounts::Enter {
        return rustix::fs::openat(directory, name, DIRECTORY, Mode::empty());
    }
    loop {
        // EAGAIN: something was renamed meanwhile, and the kernel could not be sure (openat2(2)).
        match rustix::fs::openat2(&directory, name, DIRECTORY, Mode::empty(), resolve | ResolveFlags::NO_XDEV) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// All about `name`, and on which mount it is.
pub fn stat(directory: impl AsFd, name: &OsStr) -> Result<Statx, Errno> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    rustix::fs::statx(directory, name, AtFlags::SYMLINK_NOFOLLOW, wanted)
}

fn identity(stat: &Statx) -> Identity {
    (stat.stx_mnt_id, stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino)
}

/// For calls that take no directory: short however deep it is, and only its last part can be a link.
pub fn handle(directory: impl AsFd, name: &OsStr) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd())).join(name)
}

/// The names in a directory, in the order of their bytes.
pub fn names(directory: impl AsFd) -> Result<Vec<Vec<u8>>, Errno> {
    let mut found = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if !matches!(name, b"." | b"..") {
            found.push(name.to_vec());
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes what is at `name`, a whole tree too. A mount point in it stays, and is an error.
pub fn remove(directory: impl AsFd, name: &OsStr) -> Result<(), Errno> {
    match remove_one(&directory, name)? {
        Removed::Gone => return Ok(()),
        Removed::NotEmpty => {}
    }
    let mut cursor = Cursor { directory: enter(&directory, name, Mounts::Refuse)?, above: Vec::new() };
    let mut waiting = vec![(name.to_owned(), names(&cursor.directory)?)];
    while let Some((name, inside)) = waiting.last_mut() {
        if let Some(next) = inside.pop() {
            let next = OsStr::from_bytes(&next).to_owned();
            if let Removed::NotEmpty = remove_one(&cursor.directory, &next)? {
                cursor.down(&next, Mounts::Refuse)?;
                waiting.push((next, names(&cursor.directory)?));
            }
            continue;
        }
        let name = std::mem::take(name);
        waiting.pop();
        if cursor.depth() > 0 {
            cursor.up()?;
            rustix::fs::unlinkat(&cursor.directory, &name, AtFlags::REMOVEDIR)?;
        }
    }
    rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR)
}

enum Removed {
    Gone,
    NotEmpty,
}

fn remove_one(directory: impl AsFd, name: &OsStr) -> Result<Removed, Errno> {
    match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(Removed::Gone),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error),
    }
    match rustix::fs::unlinkat(&directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(Removed::Gone),
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(Removed::NotEmpty),
        Err(error) => Err(error),
    }
}
