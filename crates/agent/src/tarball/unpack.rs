//! A tar stream into a directory. Whatever the stream or the tree says, nothing outside the directory is touched: names
//! are opened from the directory's descriptor with openat2(2) and RESOLVE_BENEATH (Linux 5.6), which the kernel checks at
//! every step, links included.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, XattrFlags};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use crate::facts::Facts;
use crate::refusal::{Kind, Refusal};
use crate::transfer::PIECE;
use crate::xattrs;

/// Unpacks into the existing directory `target`. Owners, modes, times, hard links, extended attributes and holes come
/// out as they went in, as far as the kernel lets this process.
pub fn unpack(stream: impl Read, target: &Path) -> Result<(), Refusal> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let root = rustix::fs::open(target, flags, Mode::empty()).map_err(|error| match error {
        Errno::NOTDIR => Refusal::invalid(format!("path '{}' is not a directory", target.display())),
        _ => Refusal::of(&error.into(), target.display()),
    })?;
    let mut unpacker = Unpacker { root, parent: None, directories: Vec::new() };
    let mut archive = Archive::new(stream);
    let entries = archive.entries().map_err(|error| broken(&error))?;
    for entry in entries {
        unpacker.add(&mut entry.map_err(|error| broken(&error))?)?;
    }
    unpacker.finish()
}

fn broken(error: &io::Error) -> Refusal {
    Refusal::invalid(format!("the tar stream is damaged or was cut off: {error}"))
}

struct Unpacker {
    root: OwnedFd,
    /// The directory of the last entry; the next is mostly in the same.
    parent: Option<(PathBuf, OwnedFd)>,
    /// Modes and times of directories, which change while files are put in: set at the end.
    directories: Vec<(PathBuf, Facts)>,
}

/// Where an entry goes.
struct Place<'a> {
    directory: OwnedFd,
    name: &'a OsStr,
    path: &'a Path,
}

impl Place<'_> {
    fn refused(&self, error: Errno) -> Refusal {
        Refusal::of(&error.into(), self.path.display())
    }
}

impl Unpacker {
    fn add(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<(), Refusal> {
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        let path = relative(&entry.path().map_err(|error| broken(&error))?)?;
        let facts = facts(entry)?;
        let Some(name) = path.file_name() else {
            // The target itself: it is the receiver's, and stays as it is.
            return Ok(());
        };
        let directory = self.parent_of(&path)?;
        let place = Place { directory, name, path: &path };
        match kind {
            EntryType::Directory => {
                directory_at(&place)?;
                set_xattrs(entry, &open_at(&place)?);
                self.directories.push((path, facts));
                Ok(())
            }
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => file_at(&place, entry, facts),
            EntryType::Symlink => symlink_at(&place, entry, facts),
            EntryType::Link => self.link_at(&place, entry),
            EntryType::Fifo => fifo_at(&place, facts),
            EntryType::Char | EntryType::Block => {
                Err(Refusal::new(Kind::Denied, format!("{} is a device, and devices are not taken", path.display())))
            }
            other => Err(Refusal::invalid(format!("{} is of an unknown kind ({other:?})", path.display()))),
        }
    }

    /// The directory that holds `path`, made where missing.
    fn parent_of(&mut self, path: &Path) -> Result<OwnedFd, Refusal> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let duplicate = |fd: &OwnedFd| fd.try_clone().map_err(|error| Refusal::of(&error, parent.display()));
        if let Some((known, fd)) = &self.parent
            && known == parent
        {
            return duplicate(fd);
        }
        let fd = self.open_directory(parent).map_err(|error| escape(error, path))?;
        let result = duplicate(&fd);
        self.parent = Some((parent.to_owned(), fd));
        result
    }

    fn open_directory(&self, path: &Path) -> Result<OwnedFd, Errno> {
        if path.as_os_str().is_empty() {
            return rustix::io::fcntl_dupfd_cloexec(&self.root, 3);
        }
        match beneath(&self.root, path, OFlags::DIRECTORY | OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let mut so_far = PathBuf::new();
        let mut current = rustix::io::fcntl_dupfd_cloexec(&self.root, 3)?;
        for component in path.components() {
            match rustix::fs::mkdirat(&current, component.as_os_str(), Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) | Ok(()) => {}
                Err(error) => return Err(error),
            }
            so_far.push(component);
            current = beneath(&self.root, &so_far, OFlags::DIRECTORY | OFlags::PATH)?;
        }
        Ok(current)
    }

    fn link_at(&mut self, place: &Place<'_>, entry: &Entry<'_, impl Read>) -> Result<(), Refusal> {
        let target = link_name(entry)?;
        let target = relative(&target)?;
        let name = target.file_name().ok_or_else(|| Refusal::invalid("a hard link to nothing"))?;
        let directory = self.open_directory(target.parent().unwrap_or(Path::new("")));
        let directory = directory.map_err(|error| escape(error, &target))?;
        let link = || rustix::fs::linkat(&directory, name, &place.directory, place.name, AtFlags::empty());
        match link() {
            Err(Errno::EXIST) => {
                remove(place)?;
                link().map_err(|error| place.refused(error))
            }
            other => other.map_err(|error| place.refused(error)),
        }
    }

    fn finish(self) -> Result<(), Refusal> {
        for (path, facts) in self.directories.iter().rev() {
            let opened = beneath(&self.root, path, OFlags::DIRECTORY | OFlags::RDONLY);
            opened.and_then(|fd| dress(&fd, *facts)).map_err(|error| escape(error, path))?;
        }
        Ok(())
    }
}

/// The name as a path below the target; `..` is refused, not resolved: no honest tar needs it.
fn relative(path: &Path) -> Result<PathBuf, Refusal> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::CurDir | Component::RootDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                return Err(Refusal::invalid(format!("{} leads out of the destination", path.display())));
            }
        }
    }
    Ok(clean)
}

fn link_name(entry: &Entry<'_, impl Read>) -> Result<PathBuf, Refusal> {
    let name = entry.link_name().map_err(|error| broken(&error))?;
    name.map(|name| name.into_owned()).ok_or_else(|| Refusal::invalid("a link to nothing"))
}

fn facts(entry: &Entry<'_, impl Read>) -> Result<Facts, Refusal> {
    let header = entry.header();
    let number = |result: io::Result<u64>| {
        let number = result.map_err(|error| broken(&error))?;
        // 2^32 - 1 means "unchanged" to chown(2).
        u32::try_from(number)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| Refusal::invalid("an owner is out of range"))
    };
    Ok(Facts {
        mode: header.mode().map_err(|error| broken(&error))? & 0o7777,
        uid: number(header.uid())?,
        gid: number(header.gid())?,
        modified: Timespec {
            tv_sec: header.mtime().map_err(|error| broken(&error))?.try_into().unwrap_or(0),
            tv_nsec: 0,
        },
    })
}

fn beneath(root: &OwnedFd, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    loop {
        // EAGAIN: something was renamed meanwhile, and the kernel could not be sure (openat2(2)).
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

fn escape(error: Errno, path: &Path) -> Refusal {
    match error {
        Errno::XDEV | Errno::LOOP => {
            Refusal::invalid(format!("{} leads out of the destination through a link", path.display()))
        }
        _ => Refusal::of(&error.into(), path.display()),
    }
}

fn open_at(place: &Place<'_>) -> Result<OwnedFd, Refusal> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    rustix::fs::openat(&place.directory, place.name, flags, Mode::empty()).map_err(|error| place.refused(error))
}

/// An existing directory is taken; anything else gives way.
fn directory_at(place: &Place<'_>) -> Result<(), Refusal> {
    let make = || rustix::fs::mkdirat(&place.directory, place.name, Mode::from_raw_mode(0o700));
    match make() {
        Err(Errno::EXIST) => {
            let stat = rustix::fs::statat(&place.directory, place.name, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.map_err(|error| place.refused(error))?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                return Ok(());
            }
            remove(place)?;
            make().map_err(|error| place.refused(error))
        }
        other => other.map_err(|error| place.refused(error)),
    }
}

/// A file appears whole or not at all.
fn file_at(place: &Place<'_>, entry: &mut Entry<'_, impl Read>, facts: Facts) -> Result<(), Refusal> {
    let part = crate::files::part_name();
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&place.directory, &part, flags, Mode::from_raw_mode(0o600));
    let mut file = File::from(file.map_err(|error| place.refused(error))?);
    let written = fill(&mut file, entry)
        .and_then(|()| {
            dress(&file, facts)?;
            // After the owner, whose change takes file capabilities away.
            set_xattrs(entry, file.as_fd());
            Ok(())
        })
        .and_then(|()| Ok(rustix::fs::renameat(&place.directory, &part, &place.directory, place.name)?));
    written.map_err(|error| {
        let _ = rustix::fs::unlinkat(&place.directory, &part, AtFlags::empty());
        match Errno::from_io_error(&error) {
            Some(_) => Refusal::of(&error, place.path.display()),
            None => broken(&error),
        }
    })
}

/// Copies the content; runs of zeros become holes.
fn fill(file: &mut File, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
    let mut piece = vec![0u8; PIECE];
    let mut length = 0u64;
    loop {
        let mut count = 0;
        while count < PIECE {
            match entry.read(&mut piece[count..])? {
                0 => break,
                more => count += more,
            }
        }
        if count == 0 {
            // The library takes the stream's end for the file's.
            return if length == entry.size() {
                file.set_len(length)
            } else {
                Err(io::ErrorKind::UnexpectedEof.into())
            };
        }
        length += count as u64;
        if piece[..count].iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Start(length))?;
        } else {
            file.write_all(&piece[..count])?;
        }
    }
}

fn dress(fd: impl AsFd, facts: Facts) -> Result<(), Errno> {
    facts.own_as_may_be(&fd)?;
    facts.dress(&fd)
}

/// What this filesystem or this process's privileges do not allow is left out.
fn set_xattrs(entry: &mut Entry<'_, impl Read>, fd: impl AsFd) {
    let Ok(Some(extensions)) = entry.pax_extensions() else { return };
    for extension in extensions.flatten() {
        if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(xattrs::RECORD)) {
            let _ = rustix::fs::fsetxattr(&fd, name, extension.value_bytes(), XattrFlags::empty());
        }
    }
}

fn symlink_at(place: &Place<'_>, entry: &Entry<'_, impl Read>, facts: Facts) -> Result<(), Refusal> {
    let target = link_name(entry)?;
    remove(place)?;
    let refused = |error| place.refused(error);
    rustix::fs::symlinkat(OsStr::from_bytes(target.as_os_str().as_bytes()), &place.directory, place.name)
        .map_err(refused)?;
    dress_name(place, facts)
}

fn fifo_at(place: &Place<'_>, facts: Facts) -> Result<(), Refusal> {
    remove(place)?;
    let made = rustix::fs::mknodat(&place.directory, place.name, FileType::Fifo, Mode::from_raw_mode(facts.mode), 0);
    made.map_err(|error| place.refused(error))?;
    dress_name(place, facts)
}

/// For what cannot be opened without consequences.
fn dress_name(place: &Place<'_>, facts: Facts) -> Result<(), Refusal> {
    let (directory, name) = (&place.directory, place.name);
    let dressed = facts.own_name_as_may_be(directory, name).and_then(|()| facts.date_name(directory, name));
    dressed.map_err(|error| place.refused(error))
}

/// Makes way for a link or FIFO; a directory does not give way.
fn remove(place: &Place<'_>) -> Result<(), Refusal> {
    match rustix::fs::unlinkat(&place.directory, place.name, AtFlags::empty()) {
        Err(Errno::NOENT) | Ok(()) => Ok(()),
        Err(error) => Err(place.refused(error)),
    }
}

#[cfg(test)]
mod tests;
