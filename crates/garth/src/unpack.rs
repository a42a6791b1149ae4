//! A tar from a sandbox, unpacked on this machine. The tar is hostile until shown otherwise.
//!
//! Nothing is written outside the target: every path is opened below it with openat2(2)
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`, so no link in the tar, or put there by someone else
//! meanwhile, leads anywhere. Device nodes, FIFOs and sockets are refused, set-user-id and
//! set-group-id bits and all attributes but `user.*` are dropped: a file of a sandbox must not give
//! anyone on this machine rights.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags, chownat, fchmod, fsetxattr,
    futimens, linkat, mkdirat, openat2, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use tar::{Archive, Entry, EntryType};

use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::tarball::not_copied;

/// The name of a file while it is written.
const PART: &str = ".garth-cp-part";
/// Read at once; a run of zeros of this size becomes a hole.
const PIECE: usize = 64 << 10;

/// What becomes of the first word of every name in the tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Top {
    /// It is another.
    Rename(PathBuf),
    /// It is left out: the content of a directory is wanted.
    Strip,
}

/// Unpacks into `target`, an open directory.
pub fn unpack(tar: impl Read, target: OwnedFd, top: &Top) -> Result<()> {
    let mut unpacker =
        Unpacker { target, top, directories: Vec::new(), owners: rustix::process::geteuid().is_root(), skipped: None };
    let mut archive = Archive::new(tar);
    let damaged = |error: io::Error| Failure::io("the sandbox's tar cannot be read", &error);
    for entry in archive.entries().map_err(damaged)? {
        unpacker.add(entry.map_err(damaged)?)?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    target: OwnedFd,
    top: &'a Top,
    /// Modes and times of directories, set when all is in them.
    directories: Vec<(PathBuf, Meta)>,
    /// Whether owners can be kept: only root may give files away.
    owners: bool,
    skipped: Option<Failure>,
}

#[derive(Debug, Clone, Copy)]
struct Meta {
    mode: Mode,
    uid: Uid,
    gid: Gid,
    mtime: i64,
}

impl Unpacker<'_> {
    fn add(&mut self, mut entry: Entry<'_, impl Read>) -> Result<()> {
        let path =
            self.renamed(&entry.path().map_err(|error| Failure::io("a name in the tar cannot be read", &error))?)?;
        let cannot = |error: io::Error| Failure::io(format!("cannot write {}", path.display()), &error);
        let kind = entry.header().entry_type();
        let meta = meta(&entry).map_err(cannot)?;
        match kind {
            EntryType::Directory => self.directory(&path, meta).map_err(cannot),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.file(&path, meta, &mut entry).map_err(cannot)
            }
            EntryType::Symlink => self.symlink(&path, meta, &entry).map_err(cannot),
            EntryType::Link => self.hard_link(&path, &entry),
            EntryType::XGlobalHeader => Ok(()),
            EntryType::Fifo => self.skip(&path, "a FIFO"),
            EntryType::Block | EntryType::Char => self.skip(&path, "a device node"),
            _ => self.skip(&path, "of an unknown kind"),
        }
    }

    /// The rest is copied before the first of these is a failure.
    fn skip(&mut self, path: &Path, what: &str) -> Result<()> {
        self.skipped.get_or_insert_with(|| not_copied(path, what));
        Ok(())
    }

    /// Where an entry goes: relative, plain words only.
    fn renamed(&self, path: &Path) -> Result<PathBuf> {
        let mut words = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(word) => words.push(word),
                Component::CurDir => {}
                _ => {
                    let message = format!("the sandbox's tar names {}, which is outside", path.display());
                    return Err(Failure::new(Exit::Refused, "escaping_path", message));
                }
            }
        }
        let below = words.into_iter().skip(1);
        Ok(match self.top {
            Top::Rename(name) => std::iter::once(name.as_os_str()).chain(below).collect(),
            Top::Strip => below.collect(),
        })
    }

    fn directory(&mut self, path: &Path, meta: Meta) -> io::Result<()> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let (parent, word) = self.parent(path)?;
        match mkdirat(&parent, word, Mode::RWXU) {
            Ok(()) => self.directories.push((path.to_owned(), meta)),
            // One that was there keeps its mode.
            Err(Errno::EXIST) => drop(self.open_directory(path)?),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Written beside and renamed: whoever looks sees the old file or the whole new one.
    fn file(&self, path: &Path, meta: Meta, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        let (parent, word) = self.parent(path)?;
        let part = format!("{PART}.{}", std::process::id());
        let _ = unlinkat(&parent, &part, AtFlags::empty());
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&parent, &part, flags, Mode::RUSR | Mode::WUSR)?);
        let size = entry.size();
        let written = write_sparse(entry, &file, size).and_then(|()| self.dress(&file, meta, entry));
        let renamed = written.and_then(|()| Ok(renameat(&parent, &part, &parent, word)?));
        if renamed.is_err() {
            let _ = unlinkat(&parent, &part, AtFlags::empty());
        }
        renamed
    }

    fn dress(&self, file: &File, meta: Meta, entry: &mut Entry<'_, impl Read>) -> io::Result<()> {
        for (name, value) in user_attributes(entry)? {
            // A filesystem may take none; the file is what was asked for.
            let _ = fsetxattr(file, name, &value, XattrFlags::empty());
        }
        if self.owners {
            rustix::fs::fchown(file, Some(meta.uid), Some(meta.gid))?;
        }
        fchmod(file, meta.mode)?;
        Ok(futimens(file, &times(meta.mtime))?)
    }

    fn symlink(&self, path: &Path, meta: Meta, entry: &Entry<'_, impl Read>) -> io::Result<()> {
        let target = entry.link_name()?.ok_or_else(|| io::Error::other("a symbolic link without a target"))?;
        let (parent, word) = self.parent(path)?;
        make_room(&parent, word)?;
        symlinkat(&*target, &parent, word)?;
        if self.owners {
            chownat(&parent, word, Some(meta.uid), Some(meta.gid), AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(utimensat(&parent, word, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    fn hard_link(&self, path: &Path, entry: &Entry<'_, impl Read>) -> Result<()> {
        let cannot = |error: io::Error| Failure::io(format!("cannot write {}", path.display()), &error);
        let first = entry.link_name().map_err(cannot)?;
        let first = first.ok_or_else(|| cannot(io::Error::other("a hard link without a target")))?;
        let first = self.renamed(&first)?;
        let link = || {
            let (from, from_word) = self.parent(&first)?;
            let (to, to_word) = self.parent(path)?;
            make_room(&to, to_word)?;
            // Without AT_SYMLINK_FOLLOW: a link to a symbolic link is one, too.
            Ok(linkat(&from, from_word, &to, to_word, AtFlags::empty())?)
        };
        link().map_err(cannot)
    }

    /// The open directory that holds a path, and the path's last word.
    fn parent<'p>(&self, path: &'p Path) -> io::Result<(OwnedFd, &'p Path)> {
        let word = path.file_name().ok_or_else(|| io::Error::other("an entry without a name"))?;
        let directory = self.open_directory(path.parent().unwrap_or(Path::new("")))?;
        Ok((directory, Path::new(word)))
    }

    fn open_directory(&self, path: &Path) -> io::Result<OwnedFd> {
        if path.as_os_str().is_empty() {
            return self.target.try_clone();
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Ok(openat2(self.target.as_fd(), path, flags, Mode::empty(), resolve)?)
    }

    fn finish(self) -> Result<()> {
        for (path, meta) in self.directories.iter().rev() {
            let dress = || {
                let directory = self.open_directory(path)?;
                if self.owners {
                    rustix::fs::fchown(&directory, Some(meta.uid), Some(meta.gid))?;
                }
                fchmod(&directory, meta.mode)?;
                Ok(futimens(&directory, &times(meta.mtime))?)
            };
            dress().map_err(|error: io::Error| Failure::io(format!("cannot write {}", path.display()), &error))?;
        }
        self.skipped.map_or(Ok(()), Err)
    }
}

/// Takes away what is in the way of a link; a directory stays, and the link fails.
fn make_room(parent: &OwnedFd, word: &Path) -> io::Result<()> {
    match statat(parent, word, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(unlinkat(parent, word, AtFlags::empty())?),
        Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn meta(entry: &Entry<'_, impl Read>) -> io::Result<Meta> {
    let header = entry.header();
    let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or(io::ErrorKind::InvalidData);
    Ok(Meta {
        mode: Mode::from_raw_mode(header.mode()? & 0o1777),
        uid: Uid::from_raw(id(header.uid()?)?),
        gid: Gid::from_raw(id(header.gid()?)?),
        mtime: i64::try_from(header.mtime()?).unwrap_or(0),
    })
}

fn times(mtime: i64) -> Timestamps {
    let time = Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: time, last_modification: time }
}

fn user_attributes(entry: &mut Entry<'_, impl Read>) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for record in entry.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        let name = record.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr."));
        if let Some(name) = name.filter(|name| name.starts_with("user.")) {
            found.push((name.to_owned(), record.value_bytes().to_vec()));
        }
    }
    Ok(found)
}

/// Writes with holes where zeros are: a sparse file of a sandbox fills no disk here.
fn write_sparse(from: &mut impl Read, mut file: &File, wanted: u64) -> io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut size = 0;
    loop {
        let read = read_full(from, &mut buffer)?;
        let piece = buffer.get(..read).unwrap_or_default();
        if piece.is_empty() {
            // A tar that is cut off within an entry reads as a shorter entry.
            return if size == wanted { file.set_len(size) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
        size += read as u64;
        if read == PIECE && piece.iter().all(|byte| *byte == 0) {
            file.seek(SeekFrom::Start(size))?;
        } else {
            file.write_all(piece)?;
        }
    }
}

fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests;
