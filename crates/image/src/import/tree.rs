//! Writing members into the image's directory, from which no member can get out.
//!
//! Every path is walked by the kernel from the image's root with `openat2` and `RESOLVE_BENEATH`
//! (5.6+): `..`, an absolute link or a link that leaves is an error, at whatever part of the path and
//! whoever made it, and no check of ours can race with it. Links that stay inside are followed, since
//! real layers write `lib/x` where an earlier one made `lib` a link to `usr/lib`.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::ffi::OsStr;
use std::hash::BuildHasher;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, chmodat, chownat, futimens, linkat, mkdirat, mknodat,
    openat, openat2, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::Limits;
use super::archive::{Archive, Kind, Member, Stored};
use super::attributes::{describe, owner, timestamps, write_all_at};
use crate::error::{Error, ErrorKind};

/// The image's directory, being filled.
pub(super) struct Tree<'a> {
    root: OwnedFd,
    limits: &'a Limits,
    entries: u64,
    bytes: u64,
    /// Set at the end of a layer: writing into a directory changes its time.
    times: Vec<(PathBuf, (i64, u32))>,
    /// The names that this layer wrote or went through, as digests, for a layer may have millions. Its
    /// whiteouts are for what was there before.
    written: HashSet<u64>,
    hasher: RandomState,
    /// The directory of the last member: the next is mostly in it too.
    last: Option<(PathBuf, Rc<Parent>)>,
    buffer: Vec<u8>,
}

/// A directory that members are written into.
pub(super) struct Parent {
    fd: OwnedFd,
    inode: u64,
}

impl Parent {
    pub(super) fn of(opened: Result<OwnedFd, Errno>, path: &Path) -> Result<Self, Error> {
        let fd = opened.map_err(|error| walk_error(path, error))?;
        let inode = rustix::fs::fstat(&fd).map_err(|error| Error::write(path, error))?.st_ino;
        Ok(Self { fd, inode })
    }
}

impl AsFd for Parent {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The nodes that root filesystem tools put into `dev/`, by name and number. They are left out: a
/// sandbox gets its own `/dev`. Any other device is refused.
const EXPECTED_DEVICES: [(&str, u32, u32); 8] = [
    ("dev/console", 5, 1),
    ("dev/full", 1, 7),
    ("dev/null", 1, 3),
    ("dev/ptmx", 5, 2),
    ("dev/random", 1, 8),
    ("dev/tty", 5, 0),
    ("dev/urandom", 1, 9),
    ("dev/zero", 1, 5),
];

/// What a sandbox's own filesystems are mounted on, with the mode if the image lacks it.
const MOUNT_POINTS: [(&str, u32); 6] =
    [("dev", 0o755), ("etc", 0o755), ("proc", 0o555), ("run", 0o755), ("sys", 0o555), ("tmp", 0o1777)];

impl<'a> Tree<'a> {
    pub(super) fn open(root: &Path, limits: &'a Limits) -> Result<Self, Error> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = openat(CWD, root, flags, Mode::empty()).map_err(|error| Error::write(root, error))?;
        Ok(Self {
            root,
            limits,
            entries: 0,
            bytes: 0,
            times: Vec::new(),
            written: HashSet::new(),
            hasher: RandomState::new(),
            last: None,
            buffer: vec![0; 256 << 10],
        })
    }

    pub(super) fn entries(&self) -> u64 {
        self.entries
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes one member.
    pub(super) fn add<R: Read>(&mut self, member: &Member, archive: &mut Archive<R>) -> Result<(), Error> {
        let path = self.clean(&member.path)?;
        self.count()?;
        let Some(name) = path.file_name() else {
            return self.describe_root(member);
        };
        if let Kind::CharDevice(major, minor) = member.kind
            && EXPECTED_DEVICES
                .iter()
                .any(|device| Path::new(device.0) == path && (major, minor) == (device.1, device.2))
        {
            return Ok(());
        }
        let parent = self.parent(&path)?;
        let made = match member.kind {
            Kind::CharDevice(..) | Kind::BlockDevice => {
                return Err(Error::new(ErrorKind::DeviceNode(path.display().to_string())));
            }
            Kind::Directory => self.directory(&parent, name, &path, member),
            Kind::File => self.file(&parent, name, &path, member, archive.content()),
            Kind::Symlink => self.symlink(&parent, name, &path, member),
            Kind::Hardlink => self.hardlink(&parent, name, &path, member),
            Kind::Fifo => self.fifo(&parent, name, &path, member),
        };
        made?;
        self.mark(&parent, name);
        Ok(())
    }

    fn mark(&mut self, parent: &Parent, name: &OsStr) {
        self.written.insert(self.hasher.hash_one((parent.inode, name)));
    }

    /// Did this layer write this name, or something below it?
    pub(super) fn wrote(&self, parent: &Parent, name: &OsStr) -> bool {
        self.written.contains(&self.hasher.hash_one((parent.inode, name)))
    }

    /// Gives directories their times, and forgets what the layer wrote.
    pub(super) fn end_layer(&mut self) -> Result<(), Error> {
        for (path, time) in std::mem::take(&mut self.times) {
            // One that a later member replaced has no time to set.
            let (Ok(parent), Some(name)) = (self.parent(&path), path.file_name()) else { continue };
            let _ = utimensat(parent.as_fd(), name, &timestamps(time), AtFlags::SYMLINK_NOFOLLOW);
        }
        self.written.clear();
        self.last = None;
        Ok(())
    }

    /// What the runtime mounts on must be there, and be no link: the image's, if it has them, else ours.
    pub(super) fn add_mount_points(&mut self) -> Result<(), Error> {
        for (name, mode) in MOUNT_POINTS {
            let path = Path::new(name);
            match mkdirat(&self.root, path, Mode::from_raw_mode(mode)) {
                Ok(()) => chmodat(&self.root, path, Mode::from_raw_mode(mode), AtFlags::empty())
                    .map_err(|error| Error::write(path, error))?,
                Err(Errno::EXIST) if is_dir(&status(&self.root, path.as_os_str(), path)?) => {}
                Err(Errno::EXIST) => {
                    return Err(Error::new(ErrorKind::BadDocument(format!("/{name}, which is no directory,"))));
                }
                Err(error) => return Err(Error::write(path, error)),
            }
        }
        Ok(())
    }

    /// A member's path below the root, without `.`; refused when it could mean anything else.
    pub(super) fn clean(&self, path: &[u8]) -> Result<PathBuf, Error> {
        let path = Path::new(OsStr::from_bytes(path));
        let mut clean = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => clean.push(name),
                Component::CurDir => {}
                Component::RootDir | Component::ParentDir | Component::Prefix(_) => {
                    return Err(Error::new(ErrorKind::Escape(path.display().to_string())));
                }
            }
        }
        if path.as_os_str().as_bytes().contains(&0) {
            return Err(Error::new(ErrorKind::BadDocument("file name".to_owned())));
        }
        if clean.components().count() as u64 > self.limits.depth {
            return Err(Error::new(ErrorKind::TooMuch {
                what: "directories one in the other",
                limit: self.limits.depth,
            }));
        }
        Ok(clean)
    }

    /// The directory that a path is in, made if it is missing.
    fn parent(&mut self, path: &Path) -> Result<Rc<Parent>, Error> {
        let dir = path.parent().unwrap_or(Path::new(""));
        if let Some((last, parent)) = &self.last
            && last == dir
        {
            return Ok(Rc::clone(parent));
        }
        let mut at = PathBuf::new();
        let mut parent = Parent::of(self.open_dir(&at), &at)?;
        for name in dir.components() {
            at.push(name);
            self.mark(&parent, name.as_os_str());
            parent = match self.open_dir(&at) {
                Err(Errno::NOENT) => {
                    self.make_dir(&parent, name.as_os_str(), &at)?;
                    Parent::of(self.open_dir(&at), &at)?
                }
                other => Parent::of(other, &at)?,
            };
        }
        let parent = Rc::new(parent);
        self.last = Some((dir.to_owned(), Rc::clone(&parent)));
        Ok(parent)
    }

    fn make_dir(&mut self, parent: &Parent, name: &OsStr, path: &Path) -> Result<(), Error> {
        self.count()?;
        match mkdirat(&parent.fd, name, Mode::from_raw_mode(0o755)) {
            // A dangling link in the way: what opening it says is the answer.
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(Error::write(path, error)),
        }
    }

    pub(super) fn open_dir(&self, path: &Path) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
        loop {
            match openat2(&self.root, path, flags, Mode::empty(), resolve) {
                // The kernel could not rule out a race with a rename somewhere on the machine.
                Err(Errno::AGAIN) => {}
                other => return other,
            }
        }
    }

    fn count(&mut self) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(Error::new(ErrorKind::TooMuch { what: "files", limit: self.limits.entries }));
        }
        Ok(())
    }

    fn count_bytes(&mut self, count: u64) -> Result<(), Error> {
        self.bytes = self.bytes.saturating_add(count);
        if self.bytes > self.limits.bytes {
            return Err(Error::new(ErrorKind::TooMuch { what: "bytes", limit: self.limits.bytes }));
        }
        Ok(())
    }

    fn describe_root(&mut self, member: &Member) -> Result<(), Error> {
        if member.kind != Kind::Directory {
            return Err(Error::new(ErrorKind::Escape(String::from_utf8_lossy(&member.path).into_owned())));
        }
        describe(self.root.as_fd(), member, Path::new("/"))
    }

    fn directory(&mut self, parent: &Parent, name: &OsStr, path: &Path, member: &Member) -> Result<(), Error> {
        let there = self.clear(parent, name, path, Kind::Directory)?;
        if there == There::Nothing {
            mkdirat(parent, name, Mode::from_raw_mode(0o700)).map_err(|error| Error::write(path, error))?;
        }
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = openat(parent, name, flags, Mode::empty()).map_err(|error| Error::write(path, error))?;
        describe(dir.as_fd(), member, path)?;
        self.times.push((path.to_owned(), member.modified));
        Ok(())
    }

    fn file<R: Read>(
        &mut self,
        parent: &Parent,
        name: &OsStr,
        path: &Path,
        member: &Member,
        content: &mut Stored<R>,
    ) -> Result<(), Error> {
        self.clear(parent, name, path, Kind::File)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(parent, name, flags, Mode::RUSR | Mode::WUSR).map_err(|error| Error::write(path, error))?;
        match &member.sparse {
            None => self.copy(content, &file, (0, u64::MAX), path)?,
            Some(sparse) => {
                if sparse.size > self.limits.bytes {
                    return Err(Error::new(ErrorKind::TooMuch { what: "bytes", limit: self.limits.bytes }));
                }
                for piece in &sparse.pieces {
                    self.copy(content, &file, *piece, path)?;
                }
                rustix::fs::ftruncate(&file, sparse.size).map_err(|error| Error::write(path, error))?;
            }
        }
        describe(file.as_fd(), member, path)?;
        futimens(&file, &timestamps(member.modified)).map_err(|error| Error::write(path, error))
    }

    /// Copies up to so many bytes to a place in a file.
    fn copy<R: Read>(
        &mut self,
        content: &mut Stored<R>,
        file: &OwnedFd,
        (mut offset, mut length): (u64, u64),
        path: &Path,
    ) -> Result<(), Error> {
        while length > 0 {
            let most = usize::try_from(length).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = content.read(&mut self.buffer[..most])?;
            if count == 0 {
                return Ok(());
            }
            self.count_bytes(count as u64)?;
            write_all_at(file, &self.buffer[..count], offset).map_err(|error| Error::write(path, error))?;
            offset += count as u64;
            length -= count as u64;
        }
        Ok(())
    }

    fn symlink(&mut self, parent: &Parent, name: &OsStr, path: &Path, member: &Member) -> Result<(), Error> {
        if leaves(path, &member.link) {
            let shown = format!("{} -> {}", path.display(), String::from_utf8_lossy(&member.link));
            return Err(Error::new(ErrorKind::Escape(shown)));
        }
        self.clear(parent, name, path, Kind::Symlink)?;
        let target = OsStr::from_bytes(&member.link);
        symlinkat(target, parent, name).map_err(|error| Error::write(path, error))?;
        self.describe_by_name(parent, name, path, member)
    }

    fn hardlink(&mut self, parent: &Parent, name: &OsStr, path: &Path, member: &Member) -> Result<(), Error> {
        // Links are written from the image's root, by some with a leading slash.
        let link = member.link.iter().position(|byte| *byte != b'/').map_or(&[][..], |at| &member.link[at..]);
        let target = self.clean(link)?;
        let Some(target_name) = target.file_name() else {
            return Err(Error::new(ErrorKind::Escape(String::from_utf8_lossy(&member.link).into_owned())));
        };
        if target == path {
            return Ok(());
        }
        let missing = |error: Errno| Error::write(path, error);
        let dir = self.open_dir(target.parent().unwrap_or(Path::new("")));
        let dir =
            dir.map_err(|error| if error == Errno::NOENT { missing(error) } else { walk_error(&target, error) })?;
        // Looked at before `path` is cleared: what is there may be the only other name of it.
        status(&dir, target_name, &target)?;
        self.clear(parent, name, path, Kind::Hardlink)?;
        linkat(&dir, target_name, parent, name, AtFlags::empty()).map_err(missing)
    }

    fn fifo(&mut self, parent: &Parent, name: &OsStr, path: &Path, member: &Member) -> Result<(), Error> {
        self.clear(parent, name, path, Kind::Fifo)?;
        mknodat(parent, name, FileType::Fifo, Mode::from_raw_mode(0o600), 0)
            .map_err(|error| Error::write(path, error))?;
        self.describe_by_name(parent, name, path, member)?;
        // It is no link: made here a moment ago, and nobody else writes below the root.
        chmodat(parent, name, Mode::from_raw_mode(member.mode), AtFlags::empty())
            .map_err(|error| Error::write(path, error))
    }

    /// For what cannot be opened: owner and time.
    fn describe_by_name(&self, parent: &Parent, name: &OsStr, path: &Path, member: &Member) -> Result<(), Error> {
        let (uid, gid) = owner(member);
        chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| Error::write(path, error))?;
        utimensat(parent, name, &timestamps(member.modified), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|error| Error::write(path, error))
    }

    /// Makes way for a member: a directory stays for a directory, all else goes.
    fn clear(&mut self, parent: &Parent, name: &OsStr, path: &Path, kind: Kind) -> Result<There, Error> {
        let stat = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(There::Nothing),
            other => other.map_err(|error| Error::write(path, error))?,
        };
        if is_dir(&stat) && kind == Kind::Directory {
            return Ok(There::Directory);
        }
        self.remove(parent.as_fd(), name, path)?;
        Ok(There::Nothing)
    }

    /// Removes whatever has this name; fine when nothing has.
    pub(super) fn remove(&mut self, parent: BorrowedFd<'_>, name: &OsStr, path: &Path) -> Result<(), Error> {
        // Paths that led through it lead elsewhere from now on.
        self.last = None;
        let removed = match unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR) => garth_storage::remove_tree_at(parent, Path::new(name)),
            Err(error) => Err(error.into()),
        };
        removed.map_err(|error| Error::write(path, error))
    }
}

#[derive(PartialEq)]
enum There {
    Nothing,
    Directory,
}

/// Does a relative link, read as text, climb above the root? (Absolute ones mean the image's own root.)
fn leaves(path: &Path, link: &[u8]) -> bool {
    let link = Path::new(OsStr::from_bytes(link));
    let mut depth = path.components().count().saturating_sub(1);
    for component in link.components() {
        match component {
            Component::RootDir => return false,
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

pub(super) fn is_dir(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

pub(super) fn status(parent: impl AsFd, name: &OsStr, path: &Path) -> Result<Stat, Error> {
    statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(|error| Error::write(path, error))
}

pub(super) fn walk_error(path: &Path, error: Errno) -> Error {
    match error {
        // What openat2 says of a way out, and of a circle of links.
        Errno::XDEV | Errno::LOOP => Error::new(ErrorKind::Escape(path.display().to_string())),
        other => Error::write(path, other),
    }
}
