use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use garth_kernel::btrfs::{self as kernel, SubvolumeId};
use garth_spec::{ByteSize, ProjectId};
use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::Btrfs;
use super::groups::Groups;
use crate::disk::{Disk, DiskRoot, DiskUsage, Root};
use crate::error::{At, Error, ErrorKind};
use crate::image::{Image, ImageMeta, UsrSource, finish_skeleton, make_skeleton, read_record};
use crate::layout::ROOTFS;
use crate::pool::Lasting;

impl Btrfs {
    /// Makes a disk: it appears whole and limited, or not at all.
    pub(crate) fn make_disk(
        &self,
        project: ProjectId,
        image: &Image,
        limit: ByteSize,
        lasting: Lasting,
    ) -> Result<(), Error> {
        self.make_room()?;
        let path = self.layout.disk(project);
        let spare = match self.spares.take(image.id) {
            Some(spare) => spare,
            None => {
                let draft = self.layout.disk_draft(project);
                snapshot(&self.groups, &image.path, &draft).at("create disk", &path)?;
                draft
            }
        };
        let made = self.finish_disk(&spare, &path, limit, lasting);
        made.inspect_err(|_| drop(remove_disk_at(&self.groups, &spare))).at("create disk", &path)?;
        self.refill(image);
        Ok(())
    }

    fn refill(&self, image: &Image) {
        let (groups, from, dir) = (self.groups, image.path.clone(), self.layout.spares());
        let make = move |number: u64| {
            let path = dir.join(number.to_string());
            snapshot(&groups, &from, &path).map(|()| path)
        };
        self.spares.refill(image.id, make, move |spare| drop(remove_disk_at(&groups, spare)));
    }

    fn finish_disk(&self, spare: &Path, path: &Path, limit: ByteSize, lasting: Lasting) -> io::Result<()> {
        let root = File::open(self.layout.root())?;
        self.groups.limit(root.as_fd(), id_of(spare)?, limit)?;
        fs::rename(spare, path)?;
        match lasting {
            Lasting::Now => Ok(kernel::commit(root.as_fd())?),
            Lasting::Soon => Ok(()),
        }
    }

    /// Deletes a disk and its group. Its name moves out of sight first, so that a crash in between is
    /// finished by the next sweep; the group goes before the subvolume, while its members are known.
    pub(crate) fn remove_disk(&self, project: ProjectId) -> Result<(), Error> {
        let path = self.layout.disk(project);
        let doomed = self.layout.doomed(&format!("disk-{project}"));
        remove_disk_at(&self.groups, &doomed).at("remove disk", &doomed)?;
        match fs::rename(&path, &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.at("remove disk", &path)?,
        }
        remove_disk_at(&self.groups, &doomed).at("remove disk", &path)
    }

    /// The old tree's place is taken by an empty one of the same image and limit; then it is deleted.
    pub(crate) fn empty_disk(&self, disk: &Disk, limit: ByteSize) -> Result<(), Error> {
        self.make_room()?;
        let (path, draft) = (disk.path(), self.layout.disk_draft(disk.project()));
        let make = || -> io::Result<()> {
            remove_disk_at(&self.groups, &draft)?;
            let (parent, name) = super::open_parent(&draft).map_err(io::Error::other)?;
            kernel::create_subvolume(parent.as_fd(), name)?;
            self.groups.make(parent.as_fd(), id_of(&draft)?)?;
            make_skeleton(&draft)?;
            let record = read_record(path)?;
            finish_skeleton(&draft, &record)?;
            if record.meta.usr == UsrSource::Host {
                // What goes on it is mounted before anything is in the tree.
                fs::create_dir(draft.join(ROOTFS).join("usr"))?;
            }
            self.groups.limit(parent.as_fd(), id_of(&draft)?, limit)?;
            rustix::fs::renameat_with(CWD, &draft, CWD, path, RenameFlags::EXCHANGE)?;
            Ok(kernel::commit(parent.as_fd())?)
        };
        make().at("empty disk", path)?;
        remove_disk_at(&self.groups, &draft).at("remove the old disk", path)
    }

    pub(crate) fn set_limit(&self, disk: &Disk, limit: ByteSize) -> Result<(), Error> {
        let used = self.disk_usage(disk)?.used;
        let root = super::open(self.layout.root())?;
        if used > limit.bytes() {
            // Files deleted a moment ago count until the next commit.
            kernel::commit(root.as_fd()).at("set disk limit", disk.path())?;
            let used = self.disk_usage(disk)?.used;
            if used > limit.bytes() {
                return Err(Error::new(ErrorKind::LimitBelowUse { used, limit }, "set disk limit", disk.path()));
            }
        }
        let id = id_of(disk.path()).at("set disk limit", disk.path())?;
        self.groups.limit(root.as_fd(), id, limit).at("set disk limit", disk.path())?;
        kernel::commit(root.as_fd()).at("set disk limit", disk.path())
    }

    pub(crate) fn disk_usage(&self, disk: &Disk) -> Result<DiskUsage, Error> {
        id_of(disk.path()).and_then(|id| self.groups.usage(id)).at("measure disk", disk.path())
    }

    pub(crate) fn disk_root(&self, path: &Path, meta: &ImageMeta) -> DiskRoot {
        DiskRoot { root: Root::Directory(path.join(ROOTFS)), usr: crate::overlay::usr_overlay(path, meta) }
    }
}

fn id_of(path: &Path) -> io::Result<SubvolumeId> {
    Ok(kernel::subvolume_id(File::open(path)?.as_fd())?)
}

/// A snapshot of an image with a quota group, out of sight. It waits for the kernel's commit.
fn snapshot(groups: &Groups, image: &Path, path: &Path) -> io::Result<()> {
    remove_disk_at(groups, path)?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let (source, parent) = (File::open(image)?, File::open(parent)?);
    kernel::snapshot(source.as_fd(), parent.as_fd(), name, None)?;
    let grouped = id_of(path).and_then(|id| Ok(groups.make(parent.as_fd(), id)?));
    grouped.inspect_err(|_| drop(remove_tree(path)))
}

/// Deletes a disk that is out of sight, and its group, while the group's members are known; fine when
/// there is none.
pub(super) fn remove_disk_at(groups: &Groups, path: &Path) -> io::Result<()> {
    let disk = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let id = kernel::subvolume_id(disk.as_fd())?;
    let family = family(disk.as_fd(), id)?;
    let Some(parent) = path.parent() else { return Err(io::Error::from(io::ErrorKind::InvalidInput)) };
    groups.remove(File::open(parent)?.as_fd(), id, &family)?;
    drop(disk);
    remove_tree(path)
}

/// Deletes whatever is in a directory.
pub(super) fn remove_all_in(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        remove_tree(&entry?.path())?;
    }
    Ok(())
}

/// Deletes a subvolume with all nested in it, or a plain directory; fine when there is none.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    };
    let parent = File::open(parent)?;
    match kernel::delete_subvolume(parent.as_fd(), name) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::NOTEMPTY) => {
            delete_nested(File::open(path)?.as_fd())?;
            Ok(kernel::delete_subvolume(parent.as_fd(), name)?)
        }
        // What the kernel says of a directory that is no subvolume, and of a file.
        Err(Errno::INVAL | Errno::NOTDIR) => crate::removal::remove_tree(path),
        Err(error) => Err(error.into()),
    }
}

/// Deletes the subvolumes that a process in a sandbox made inside the disk, deepest first, each by the
/// number of the directory it is in: a path could be longer than the kernel takes.
fn delete_nested(top: BorrowedFd<'_>) -> io::Result<()> {
    let mut outer = vec![kernel::subvolume_id(top)?];
    let mut found = Vec::new();
    while let Some(id) = outer.pop() {
        for nested in kernel::nested_subvolumes(top, id)? {
            outer.push(nested.id);
            found.push((id, nested));
        }
    }
    for (outer, nested) in found.into_iter().rev() {
        let dir = kernel::open_directory(top, outer, nested.directory)?;
        kernel::delete_subvolume(dir.as_fd(), &nested.name)?;
    }
    Ok(())
}

/// A subvolume and all nested in it.
fn family(any: BorrowedFd<'_>, top: SubvolumeId) -> io::Result<Vec<SubvolumeId>> {
    let mut found = vec![top];
    let mut at = 0;
    while let Some(id) = found.get(at).copied() {
        found.extend(kernel::nested_subvolumes(any, id)?.into_iter().map(|nested| nested.id));
        at += 1;
    }
    Ok(found)
}
