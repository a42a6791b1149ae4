//! Quota groups: one per disk, above the groups of its subvolumes, with the limit.
//!
//! The limit is on a group above, not on the disk's own: a process in a sandbox may make subvolumes
//! (the kernel asks for no capability), and with simple quotas each of those joins the groups of the
//! subvolume it is made in, so that it counts as well.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use garth_kernel::btrfs::{self as kernel, Counter, FsId, QgroupId, QuotaMode, SubvolumeId};
use garth_spec::ByteSize;
use rustix::io::Errno;

use crate::disk::DiskUsage;
use crate::error::{At, Error};

/// The level of our groups: none that people use, so that on a shared filesystem ours are told apart.
const LEVEL: u16 = 103;

/// A directory of the pool outside of every disk. The kernel charges a change of groups to the subvolume
/// that it is asked through: one that is full could neither get a larger limit nor be removed.
pub(super) type Outside<'a> = BorrowedFd<'a>;

#[derive(Debug, Clone, Copy)]
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

    /// Makes the group of a disk that is not in use yet; without a limit.
    pub(super) fn make(&self, outside: Outside<'_>, disk: SubvolumeId) -> Result<(), Errno> {
        if self.mode == QuotaMode::Full {
            return Ok(());
        }
        kernel::create_qgroup(outside, above(disk))?;
        kernel::assign_qgroup(outside, QgroupId::of(disk), above(disk))
    }

    /// Undoes [`make`](Self::make): takes the disk and the subvolumes in it out of the group, and the group away.
    pub(super) fn remove(&self, outside: Outside<'_>, disk: SubvolumeId, family: &[SubvolumeId]) -> Result<(), Errno> {
        if self.mode == QuotaMode::Full {
            return Ok(());
        }
        for subvolume in family {
            match kernel::unassign_qgroup(outside, QgroupId::of(*subvolume), above(disk)) {
                Err(Errno::NOENT) => {}
                other => other?,
            }
        }
        match kernel::remove_qgroup(outside, above(disk)) {
            // A subvolume that the sandbox deleted and the kernel still cleans up is in it: `reap` comes by.
            Err(Errno::NOENT | Errno::BUSY) => Ok(()),
            other => other,
        }
    }

    /// Sets the limit of a disk.
    pub(super) fn limit(&self, outside: Outside<'_>, disk: SubvolumeId, limit: ByteSize) -> Result<(), Errno> {
        let (group, counter) = self.counter(disk);
        kernel::limit_qgroup(outside, group, counter, limit.bytes())
    }

    pub(super) fn usage(&self, disk: SubvolumeId) -> io::Result<DiskUsage> {
        let (group, counter) = self.counter(disk);
        let counters = kernel::qgroup_counters(self.fs, group, counter)?;
        let Some(counters) = counters else { return Err(io::Error::from(io::ErrorKind::NotFound)) };
        Ok(DiskUsage { used: counters.used, limit: counters.limit.and_then(|bytes| ByteSize::from_bytes(bytes).ok()) })
    }

    /// With full quotas there are no groups above: the disk's own has the limit, on what only it refers to,
    /// so that the image's files count for nobody.
    fn counter(&self, disk: SubvolumeId) -> (QgroupId, Counter) {
        match self.mode {
            QuotaMode::Simple => (above(disk), Counter::Referenced),
            QuotaMode::Full => (QgroupId::of(disk), Counter::Exclusive),
        }
    }

    /// Removes our groups whose disk is gone.
    pub(super) fn reap(&self, root: &Path) -> io::Result<()> {
        self.reap_if(root, |group| (group.level() == LEVEL).then(|| SubvolumeId(group.id())))
    }

    /// Removes the groups of subvolumes that are gone; for filesystems that are all ours. The kernel does so itself since 6.11, but not
    /// where a snapshot still shares their blocks.
    pub(super) fn reap_all(&self, root: &Path) -> io::Result<()> {
        self.reap(root)?;
        self.reap_if(root, QgroupId::subvolume)
    }

    fn reap_if(&self, root: &Path, subvolume_of: impl Fn(QgroupId) -> Option<SubvolumeId>) -> io::Result<()> {
        let dir = File::open(root)?;
        for group in kernel::qgroups(self.fs)? {
            let Some(subvolume) = subvolume_of(group) else { continue };
            if !kernel::subvolume_exists(dir.as_fd(), subvolume)? {
                // EBUSY while blocks or members count in it: next time.
                let _ = kernel::remove_qgroup(dir.as_fd(), group);
            }
        }
        Ok(())
    }
}

/// A disk's group: its subvolume's number, which no other gets, at our level.
fn above(disk: SubvolumeId) -> QgroupId {
    QgroupId::new(LEVEL, disk.0)
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
