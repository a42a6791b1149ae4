use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use garth_kernel::btrfs::{self as kernel, QuotaMode, SubvolumeId};
use garth_spec::{ByteSize, ProjectId};
use rustix::io::Errno;

use super::Btrfs;
use crate::disk::{Disk, DiskRoot, DiskUsage, Root};
use crate::error::{At, Error, ErrorKind};
use crate::image::{Image, ImageMeta};
use crate::layout::ROOTFS;

impl Btrfs {
    /// Makes a disk: it appears whole and limited, or not at all.
    pub(crate) fn make_disk(&self, project: ProjectId, image: &Image, limit: ByteSize) -> Result<(), Error> {
        self.make_room()?;
        let path = self.layout.disk(project);
        let made = match self.groups.mode() {
            QuotaMode::Simple => self.snapshot_in_group(project, image, limit),
            QuotaMode::Full => self.snapshot_then_limit(project, image, limit),
        };
        made.at("create disk", &path)
    }

    /// One commit: the snapshot's own, which holds the group and its limit too.
    fn snapshot_in_group(&self, project: ProjectId, image: &Image, limit: ByteSize) -> io::Result<()> {
        let disks = File::open(self.layout.disks())?;
        let source = File::open(&image.path)?;
        let group = self.groups.make(disks.as_fd(), project, limit)?;
        let name = project.to_string();
        kernel::snapshot(source.as_fd(), disks.as_fd(), OsStr::new(&name), Some(group)).map_err(|error| {
            // A group that stays is removed by the next sweep.
            let _ = self.groups.remove(disks.as_fd(), project, &[]);
            error.into()
        })
    }

    fn snapshot_then_limit(&self, project: ProjectId, image: &Image, limit: ByteSize) -> io::Result<()> {
        let draft = self.layout.disk_draft(project);
        remove_tree(&draft)?;
        let drafts = File::open(self.layout.drafts())?;
        let source = File::open(&image.path)?;
        let name = draft.file_name().unwrap_or_default();
        kernel::snapshot(source.as_fd(), drafts.as_fd(), name, None)?;
        let limited =
            self.limit_at(&draft, project, limit).and_then(|()| fs::rename(&draft, self.layout.disk(project)));
        limited.inspect_err(|_| {
            let _ = remove_tree(&draft);
        })?;
        Ok(kernel::sync(drafts.as_fd())?)
    }

    /// Deletes a disk and its group. Its name moves out of sight first, so that a crash in between is
    /// finished by the next sweep; the group goes before the subvolume, while its members are known.
    pub(crate) fn remove_disk(&self, project: ProjectId) -> Result<(), Error> {
        let path = self.layout.disk(project);
        let doomed = self.layout.doomed(&format!("disk-{project}"));
        remove_tree(&doomed).at("remove disk", &doomed)?;
        match fs::rename(&path, &doomed) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.at("remove disk", &path)?,
        }
        self.remove_doomed(project, &doomed).at("remove disk", &path)
    }

    fn remove_doomed(&self, project: ProjectId, doomed: &Path) -> io::Result<()> {
        let drafts = File::open(self.layout.drafts())?;
        let subvolumes = match File::open(doomed) {
            Ok(dir) => family(dir.as_fd(), kernel::subvolume_id(dir.as_fd())?)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        match self.groups.remove(drafts.as_fd(), project, &subvolumes) {
            // A subvolume that the sandbox deleted and the kernel still cleans up is in it: sweep and maintain come by.
            Err(Errno::BUSY) => {}
            other => other?,
        }
        remove_tree(doomed)
    }

    pub(crate) fn set_limit(&self, disk: &Disk, limit: ByteSize) -> Result<(), Error> {
        let used = self.disk_usage(disk)?.used;
        let dir = super::open(disk.path())?;
        if used > limit.bytes() {
            // Files deleted a moment ago count until the next commit.
            kernel::sync(dir.as_fd()).at("set disk limit", disk.path())?;
            let used = self.disk_usage(disk)?.used;
            if used > limit.bytes() {
                return Err(Error::new(ErrorKind::LimitBelowUse { used, limit }, "set disk limit", disk.path()));
            }
        }
        self.limit_at(disk.path(), disk.project(), limit).at("set disk limit", disk.path())?;
        kernel::sync(dir.as_fd()).at("set disk limit", disk.path())
    }

    pub(crate) fn disk_usage(&self, disk: &Disk) -> Result<DiskUsage, Error> {
        let dir = super::open(disk.path())?;
        let subvolume = kernel::subvolume_id(dir.as_fd()).at("measure disk", disk.path())?;
        self.groups.usage(disk.project(), subvolume).at("measure disk", disk.path())
    }

    pub(crate) fn disk_root(&self, path: &Path, meta: &ImageMeta) -> DiskRoot {
        DiskRoot { root: Root::Directory(path.join(ROOTFS)), usr: crate::overlay::usr_overlay(path, meta) }
    }

    fn limit_at(&self, path: &Path, project: ProjectId, limit: ByteSize) -> io::Result<()> {
        let dir = File::open(path)?;
        let subvolume = kernel::subvolume_id(dir.as_fd())?;
        Ok(self.groups.limit(dir.as_fd(), project, subvolume, limit)?)
    }
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
