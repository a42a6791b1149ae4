//! One entry into the directory that the cursor is at.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, StatxAttributes};
use rustix::io::Errno;

use super::{Dress, NAMED, Skipped, Unpacker, is_above, parted};
use crate::facts::Facts;
use crate::moving::cursor::{Mounts, enter, handle, remove, stat};
use crate::moving::entry::{Device, Entry, Kind, Point, file_type};
use crate::moving::reader::{Body, Reader, damaged};
use crate::moving::{refused, shown};
use crate::refusal::{Kind as Refused, Refusal};

impl Unpacker<'_> {
    /// The root's own entry.
    pub(super) fn root(&mut self, mut entry: Entry) -> Result<(), Refusal> {
        self.frames = vec![(0, Dress::Came(entry.facts))];
        self.sent.add(&entry, None);
        self.own_here(&mut entry)?;
        self.kept.add(&entry, None);
        Ok(())
    }

    pub(super) fn place(
        &mut self,
        mut entry: Entry,
        name: &OsStr,
        body: Body,
        reader: &mut Reader<impl Read>,
    ) -> Result<(), Refusal> {
        let failed = |error: Errno| refused(error, &entry.path);
        let before = match stat(self.cursor.directory(), name) {
            Err(Errno::NOENT) => None,
            other => Some(other.map_err(failed)?),
        };
        if before.is_some_and(|stat| stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
            && !self.scope.is_base(&entry.path)
        {
            return self.pass_by(&entry, body, reader);
        }
        if let Kind::Mount(point) = entry.kind {
            self.received.mounts.push(entry.path.clone());
            return match (before, point) {
                (None, Point::Directory) => self.make_directory(name, 0o755).map_err(failed),
                _ => Ok(()),
            };
        }
        if entry.kind == Kind::Deleted && !self.scope.base.as_ref().is_some_and(|base| is_above(&base.at, &entry.path))
        {
            // Only in the base are there things that nobody sent.
            return Err(damaged("it deletes what is in no base"));
        }
        let is_directory = before.is_some_and(|stat| file_type(&stat) == FileType::Directory);
        if before.is_some() && !(is_directory && entry.kind == Kind::Directory) {
            remove(self.cursor.directory(), name).map_err(failed)?;
        }
        match entry.kind.clone() {
            Kind::Mount(_) | Kind::Deleted => {}
            Kind::Directory => {
                if !is_directory {
                    self.make_directory(name, 0o700).map_err(failed)?;
                }
                self.sent.add(&entry, None);
                self.go_into(name.as_bytes(), &entry.path, Some(Dress::Came(entry.facts)))?;
                self.own_here(&mut entry)?;
                self.kept.add(&entry, None);
                return Ok(());
            }
            Kind::File(size) => return self.file(entry, size, name, body, reader),
            Kind::Symlink(target) => {
                let target = OsStr::from_bytes(&target);
                rustix::fs::symlinkat(target, self.cursor.directory(), name).map_err(failed)?;
            }
            Kind::Link(target) if self.received.missing.contains(&target) => return self.leave_out(&entry, "link"),
            Kind::Link(target) => self.link(&target, name).map_err(failed)?,
            Kind::Fifo | Kind::Character(_) | Kind::Block(_) => match self.make_node(name, &entry.kind) {
                Err(Errno::PERM | Errno::ACCESS) => return self.leave_out(&entry, "device"),
                other => other.map_err(failed)?,
            },
        }
        self.sent.add(&entry, None);
        if !matches!(entry.kind, Kind::Link(_) | Kind::Deleted) {
            self.dress_name(&mut entry, name)?;
        }
        self.kept.add(&entry, None);
        Ok(())
    }

    /// Something that a mount hides here, and that therefore counts as sent only.
    fn pass_by(&mut self, entry: &Entry, body: Body, reader: &mut Reader<impl Read>) -> Result<(), Refusal> {
        let content = &mut self.content;
        reader.body(body, &mut self.piece, |at, data| {
            content.add(at, data);
            Ok(())
        })?;
        let hash = content.finish();
        self.sent.add(entry, matches!(entry.kind, Kind::File(_)).then_some(&hash));
        self.received.mounts.push(entry.path.clone());
        self.received.missing.insert(entry.path.clone());
        Ok(())
    }

    fn make_directory(&self, name: &OsStr, mode: u32) -> Result<(), Errno> {
        rustix::fs::mkdirat(self.cursor.directory(), name, Mode::from_raw_mode(mode))
    }

    fn make_node(&self, name: &OsStr, kind: &Kind) -> Result<(), Errno> {
        let (kind, device) = match kind {
            Kind::Character(device) => (FileType::CharacterDevice, *device),
            Kind::Block(device) => (FileType::BlockDevice, *device),
            _ => (FileType::Fifo, Device { major: 0, minor: 0 }),
        };
        let device = rustix::fs::makedev(device.major, device.minor);
        rustix::fs::mknodat(self.cursor.directory(), name, kind, Mode::empty(), device)
    }

    /// Something that this end may not make; neither then can it have more names.
    fn leave_out(&mut self, entry: &Entry, what: &str) -> Result<(), Refusal> {
        self.sent.add(entry, None);
        self.skip(&entry.path, what.to_owned());
        self.received.missing.insert(entry.path.clone());
        Ok(())
    }

    /// One more name of the file at `target`.
    fn link(&self, target: &[u8], name: &OsStr) -> Result<(), Errno> {
        let (parent, last) = parted(target);
        let mut directory: OwnedFd = rustix::io::fcntl_dupfd_cloexec(&self.root, 3)?;
        if parent == self.path {
            directory = rustix::io::fcntl_dupfd_cloexec(self.cursor.directory(), 3)?;
        } else if !parent.is_empty() {
            let mut length = 0;
            for name in parent.split(|byte| *byte == b'/') {
                length += name.len() + usize::from(length > 0);
                let mounts = if self.scope.is_base(&parent[..length]) { Mounts::Enter } else { Mounts::Refuse };
                directory = enter(&directory, OsStr::from_bytes(name), mounts)?;
            }
        }
        rustix::fs::linkat(directory, OsStr::from_bytes(last), self.cursor.directory(), name, AtFlags::empty())
    }

    fn file(
        &mut self,
        mut entry: Entry,
        size: u64,
        name: &OsStr,
        body: Body,
        reader: &mut Reader<impl Read>,
    ) -> Result<(), Refusal> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(self.cursor.directory(), name, flags, Mode::from_raw_mode(0o600));
        let file = File::from(file.map_err(|error| refused(error, &entry.path))?);
        let failed = |error: std::io::Error| Refusal::of(&error, shown(&entry.path));
        let content = &mut self.content;
        reader.body(body, &mut self.piece, |at, data| {
            content.add(at, data);
            file.write_all_at(data, at).map_err(failed)
        })?;
        let content = content.finish();
        // A hole at its end was not written.
        file.set_len(size).map_err(failed)?;
        self.sent.add(&entry, Some(&content));
        entry.facts.own(&file).map_err(|error| not_owned(error, &entry))?;
        self.put_xattrs(&mut entry, name)?;
        entry.facts.dress(&file).map_err(|error| refused(error, &entry.path))?;
        self.kept.add(&entry, Some(&content));
        Ok(())
    }

    /// Owner and attributes of the directory that the cursor is at; mode and times come when it leaves.
    fn own_here(&mut self, entry: &mut Entry) -> Result<(), Refusal> {
        entry.facts.own(self.cursor.directory()).map_err(|error| not_owned(error, entry))?;
        self.put_xattrs(entry, OsStr::new("."))
    }

    /// Everything about what cannot be opened without consequences.
    fn dress_name(&mut self, entry: &mut Entry, name: &OsStr) -> Result<(), Refusal> {
        let directory = self.cursor.directory();
        entry.facts.own_name(directory, name).map_err(|error| not_owned(error, entry))?;
        self.put_xattrs(entry, name)?;
        let directory = self.cursor.directory();
        let failed = |error: Errno| refused(error, &entry.path);
        if !matches!(entry.kind, Kind::Symlink(_)) {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let node = rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(failed)?;
            let path = format!("/proc/self/fd/{}", node.as_raw_fd());
            rustix::fs::chmod(path, Mode::from_raw_mode(entry.facts.mode)).map_err(failed)?;
        }
        entry.facts.date_name(directory, name).map_err(failed)
    }

    /// Leaves the entry with the attributes that it has got.
    fn put_xattrs(&mut self, entry: &mut Entry, name: &OsStr) -> Result<(), Refusal> {
        let path = handle(self.cursor.directory(), name);
        let refused_names = self.xattrs.make(&path, &entry.xattrs).map_err(|error| refused(error, &entry.path))?;
        for name in refused_names {
            entry.xattrs.retain(|(other, _)| *other != name);
            self.skip(&entry.path, String::from_utf8_lossy(&name).into_owned());
        }
        Ok(())
    }

    fn skip(&mut self, path: &[u8], what: String) {
        self.received.count += 1;
        if self.received.skipped.len() < NAMED {
            self.received.skipped.push(Skipped { path: path.to_vec(), what });
        }
    }
}

/// A sandbox with users of its own has a range of them.
fn not_owned(error: Errno, entry: &Entry) -> Refusal {
    match error {
        Errno::INVAL => {
            let Facts { uid, gid, .. } = entry.facts;
            let path = shown(&entry.path);
            Refusal::new(
                Refused::Denied,
                format!("path '{path}' is owned by {uid}:{gid}, which this sandbox does not have"),
            )
        }
        _ => refused(error, &entry.path),
    }
}
