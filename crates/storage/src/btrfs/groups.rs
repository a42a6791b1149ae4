//! Quota groups: one per disk, above the groups of its subvolumes, with the limit.
//!
//! The limit is on a group above, not on the disk's own: a process in a sandbox may make subvolumes
//! (the kernel asks for no capability), and with simple quotas each of those joins the groups of the
//! subvolume it is made in, so that it counts as well.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use garth_kernel::btrfs::{self as kernel, Counter, FsId, QgroupId, QuotaMode, SubvolumeId};
use garth_spec::{ByteSize, ProjectId};
use rustix::io::Errno;

use crate::disk::DiskUsage;
use crate::error::{At, Error};

/// The level of our groups: none that people use, so that on a shared filesystem ours are told apart.
const LEVEL: u16 = 103;

#[derive(Debug)]
pub(super) struct Groups {
    fs: FsId,
    mode: QuotaMode,
}

impl Groups {
    /// Turns quotas on, simple ones where the kernel has them (6.7+).
    pub(super) fn open(root: &Path) -> Result<Self, Error> {
        let dir = File::open(root).at("open pool", root)?;
        let fs = kernel::fs_id(dir.as_fd()).at("open pool", root)?;
        let mode = enable(dir.as_fd()).at("turn quotas on", root)?;
        Ok(Self { fs, mode })
    }

    pub(super) fn mode(&self) -> QuotaMode {
        self.mode
    }

    /// Makes the group of a disk, with its limit.
    pub(super) fn make(&self, any: BorrowedFd<'_>, project: ProjectId, limit: ByteSize) -> Result<QgroupId, Errno> {
        let group = group_of(project);
        match kernel::create_qgroup(any, group) {
            // Left by a crash between the group and its disk; a live disk cannot have it (48 of 64 random bits).
            Err(Errno::EXIST) => {}
            other => other?,
        }
        kernel::limit_qgroup(any, group, Counter::Referenced, limit.bytes())?;
        Ok(group)
    }

    /// Undoes [`make`](Self::make), and takes the disk's subvolume out of the group first if there is one.
    pub(super) fn remove(
        &self,
        any: BorrowedFd<'_>,
        project: ProjectId,
        subvolumes: &[SubvolumeId],
    ) -> Result<(), Errno> {
        if self.mode == QuotaMode::Full {
            return Ok(());
        }
        let group = group_of(project);
        for subvolume in subvolumes {
            match kernel::unassign_qgroup(any, QgroupId::of(*subvolume), group) {
                Err(Errno::NOENT) => {}
                other => other?,
            }
        }
        match kernel::remove_qgroup(any, group) {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// With full quotas there are no groups above: the disk's own has the limit, on what only it refers to,
    /// so that the image's files count for nobody.
    pub(super) fn limit(
        &self,
        any: BorrowedFd<'_>,
        project: ProjectId,
        subvolume: SubvolumeId,
        limit: ByteSize,
    ) -> Result<(), Errno> {
        let (group, counter) = self.counter(project, subvolume);
        kernel::limit_qgroup(any, group, counter, limit.bytes())
    }

    pub(super) fn usage(&self, project: ProjectId, subvolume: SubvolumeId) -> io::Result<DiskUsage> {
        let (group, counter) = self.counter(project, subvolume);
        let counters = kernel::qgroup_counters(self.fs, group, counter)?;
        let Some(counters) = counters else { return Err(io::Error::from(io::ErrorKind::NotFound)) };
        Ok(DiskUsage { used: counters.used, limit: counters.limit.and_then(|bytes| ByteSize::from_bytes(bytes).ok()) })
    }

    fn counter(&self, project: ProjectId, subvolume: SubvolumeId) -> (QgroupId, Counter) {
        match self.mode {
            QuotaMode::Simple => (group_of(project), Counter::Referenced),
            QuotaMode::Full => (QgroupId::of(subvolume), Counter::Exclusive),
        }
    }

    /// Removes the groups of our level that have no disk.
    pub(super) fn reap_ours(&self, root: &Path, disks: &[ProjectId]) -> io::Result<()> {
        let kept: BTreeSet<QgroupId> = disks.iter().copied().map(group_of).collect();
        let dir = File::open(root)?;
        for group in kernel::qgroups(self.fs)? {
            if group.level() == LEVEL && !kept.contains(&group) {
                // One that is still used (EBUSY) is another pool's on the same filesystem.
                let _ = kernel::remove_qgroup(dir.as_fd(), group);
            }
        }
        Ok(())
    }

    /// Removes the groups of subvolumes that are gone; for filesystems that are all ours. The kernel does so itself since 6.11, but not
    /// where a snapshot still shares their blocks.
    pub(super) fn reap_gone(&self, root: &Path) -> io::Result<()> {
        let dir = File::open(root)?;
        for group in kernel::qgroups(self.fs)? {
            let Some(subvolume) = group.subvolume() else { continue };
            if !kernel::subvolume_exists(dir.as_fd(), subvolume)? {
                // EBUSY while blocks count in it: next time.
                let _ = kernel::remove_qgroup(dir.as_fd(), group);
            }
        }
        Ok(())
    }
}

fn enable(any: BorrowedFd<'_>) -> io::Result<QuotaMode> {
    if let Some(mode) = kernel::quota_mode(any)? {
        return Ok(mode);
    }
    match kernel::enable_quota(any, QuotaMode::Simple) {
        // What kernels before 6.7 say of a command they do not know.
        Err(Errno::INVAL | Errno::NOTTY | Errno::OPNOTSUPP) => kernel::enable_quota(any, QuotaMode::Full)?,
        other => other?,
    }
    Ok(kernel::quota_mode(any)?.unwrap_or(QuotaMode::Full))
}

fn group_of(project: ProjectId) -> QgroupId {
    // An id is written as its 64 bits in hexadecimal.
    let bits = u64::from_str_radix(&project.to_string(), 16).unwrap_or_default();
    QgroupId::new(LEVEL, bits)
}
