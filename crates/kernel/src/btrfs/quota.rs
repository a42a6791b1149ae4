use std::fmt;
use std::fs;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::str::FromStr;

use rustix::io::Errno;

use super::space::{FsId, fs_id};
use super::subvolume::SubvolumeId;
use super::{btrfs_request, ioctl};

/// The number of a quota group: a level and an id, `1/257`. Level 0 is a subvolume's own group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QgroupId(u64);

impl QgroupId {
    /// A group above subvolumes: a level of 1 and more, and the low 48 bits of an id.
    pub const fn new(level: u16, id: u64) -> Self {
        Self(((level as u64) << 48) | (id & ((1 << 48) - 1)))
    }

    /// The id without the level.
    pub const fn id(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }

    /// The group every subvolume has.
    pub const fn of(subvolume: SubvolumeId) -> Self {
        Self(subvolume.0 & ((1 << 48) - 1))
    }

    /// The subvolume of a level-0 group.
    pub const fn subvolume(self) -> Option<SubvolumeId> {
        if self.level() == 0 { Some(SubvolumeId(self.0)) } else { None }
    }

    /// 0 for a subvolume's own group.
    pub const fn level(self) -> u16 {
        (self.0 >> 48) as u16
    }

    /// The kernel's directory for it below `/sys/fs/btrfs/<filesystem>/qgroups`.
    fn directory(self, fs: FsId) -> PathBuf {
        PathBuf::from(format!("/sys/fs/btrfs/{fs}/qgroups/{}_{}", self.level(), self.id()))
    }
}

impl fmt::Display for QgroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.level(), self.id())
    }
}

/// How a filesystem counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QuotaMode {
    /// By who wrote a block first (6.7): cheap, and nested subvolumes count in the same groups.
    Simple,
    /// By who refers to a block: every shared block counts for each.
    Full,
}

/// What a limit is set on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// All that the group refers to; with simple quotas, what it wrote.
    Referenced,
    /// What the group refers to and no other does.
    Exclusive,
}

/// `struct btrfs_qgroup_limit`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Limit {
    flags: u64,
    max_rfer: u64,
    max_excl: u64,
    rsv_rfer: u64,
    rsv_excl: u64,
}

/// `struct btrfs_qgroup_inherit` with one group.
#[repr(C)]
pub(super) struct Inherit {
    flags: u64,
    num_qgroups: u64,
    num_ref_copies: u64,
    num_excl_copies: u64,
    limit: Limit,
    qgroup: u64,
}

impl Inherit {
    pub(super) fn one(group: QgroupId) -> Self {
        Self {
            flags: 0,
            num_qgroups: 1,
            num_ref_copies: 0,
            num_excl_copies: 0,
            limit: Limit::default(),
            qgroup: group.0,
        }
    }
}

/// Turns quotas on; changes nothing and is no error when they are on in either mode. `EINVAL` or
/// `ENOTTY` for simple quotas before 6.7.
pub fn enable_quota(any: BorrowedFd<'_>, mode: QuotaMode) -> Result<(), Errno> {
    // `struct btrfs_ioctl_quota_ctl_args`: cmd, status.
    let mut args: [u64; 2] = match mode {
        QuotaMode::Full => [1, 0],
        QuotaMode::Simple => [4, 0],
    };
    // SAFETY: BTRFS_IOC_QUOTA_CTL takes two u64.
    match unsafe { ioctl(any, btrfs_request::<[u64; 2]>(3, 40), &mut args) } {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}

/// How the filesystem counts; `None` when quotas are off.
pub fn quota_mode(any: BorrowedFd<'_>) -> io::Result<Option<QuotaMode>> {
    let dir = format!("/sys/fs/btrfs/{}/qgroups", fs_id(any)?);
    match fs::read_to_string(format!("{dir}/mode")) {
        Ok(text) if text.trim() == "squota" => Ok(Some(QuotaMode::Simple)),
        Ok(text) if text.trim() == "qgroup" => Ok(Some(QuotaMode::Full)),
        Ok(_) => Ok(None),
        // Before 6.7 there is no `mode`, and the directory is there only while quotas are on (5.9).
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(fs::exists(dir)?.then_some(QuotaMode::Full)),
        Err(error) => Err(error),
    }
}

/// Makes a quota group; `EEXIST` when there is one.
pub fn create_qgroup(any: BorrowedFd<'_>, group: QgroupId) -> Result<(), Errno> {
    qgroup_create(any, 1, group)
}

/// Removes a quota group; `EBUSY` while a subvolume or blocks count in it, `ENOENT` when there is none.
pub fn remove_qgroup(any: BorrowedFd<'_>, group: QgroupId) -> Result<(), Errno> {
    qgroup_create(any, 0, group)
}

fn qgroup_create(any: BorrowedFd<'_>, create: u64, group: QgroupId) -> Result<(), Errno> {
    let mut args = [create, group.0];
    // SAFETY: BTRFS_IOC_QGROUP_CREATE takes a qgroup_create_args: two u64.
    unsafe { ioctl(any, btrfs_request::<[u64; 2]>(1, 42), &mut args) }
}

/// Counts a subvolume's own group in a group above it too.
pub fn assign_qgroup(any: BorrowedFd<'_>, member: QgroupId, group: QgroupId) -> Result<(), Errno> {
    qgroup_assign(any, 1, member, group)
}

/// Undoes [`assign_qgroup`].
pub fn unassign_qgroup(any: BorrowedFd<'_>, member: QgroupId, group: QgroupId) -> Result<(), Errno> {
    qgroup_assign(any, 0, member, group)
}

fn qgroup_assign(any: BorrowedFd<'_>, assign: u64, member: QgroupId, group: QgroupId) -> Result<(), Errno> {
    let mut args = [assign, member.0, group.0];
    // SAFETY: BTRFS_IOC_QGROUP_ASSIGN takes a qgroup_assign_args: three u64.
    unsafe { ioctl(any, btrfs_request::<[u64; 3]>(1, 41), &mut args) }
}

/// `struct btrfs_ioctl_qgroup_limit_args`.
#[repr(C)]
struct LimitArgs {
    group: u64,
    limit: Limit,
}

/// Sets a hard limit in bytes; writers get `EDQUOT`.
pub fn limit_qgroup(any: BorrowedFd<'_>, group: QgroupId, counter: Counter, bytes: u64) -> Result<(), Errno> {
    let limit = match counter {
        Counter::Referenced => Limit { flags: 1, max_rfer: bytes, ..Limit::default() },
        Counter::Exclusive => Limit { flags: 2, max_excl: bytes, ..Limit::default() },
    };
    let mut args = LimitArgs { group: group.0, limit };
    // SAFETY: BTRFS_IOC_QGROUP_LIMIT takes a qgroup_limit_args, which LimitArgs lays out.
    unsafe { ioctl(any, btrfs_request::<LimitArgs>(2, 43), &mut args) }
}

/// What a quota group has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Bytes used; those of files deleted a moment ago go with the next commit.
    pub used: u64,
    /// The limit in bytes, if there is one.
    pub limit: Option<u64>,
}

/// A group's counters, from the kernel's memory (sysfs, 5.9+); `None` when there is no such group.
pub fn qgroup_counters(fs: FsId, group: QgroupId, counter: Counter) -> io::Result<Option<Counters>> {
    let dir = group.directory(fs);
    let (used, most, flag) = match counter {
        Counter::Referenced => ("referenced", "max_referenced", 1),
        Counter::Exclusive => ("exclusive", "max_exclusive", 2),
    };
    let read = |name: &str| -> io::Result<u64> {
        let text = fs::read_to_string(dir.join(name))?;
        text.trim().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))
    };
    match read(used) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(bytes) => {
            let limited = read("limit_flags")? & flag != 0;
            let limit = if limited { Some(read(most)?) } else { None };
            // What is written and not yet in a committed block counts against the limit already.
            Ok(Some(Counters { used: bytes.saturating_add(read("rsv_data")?), limit }))
        }
    }
}

/// Every quota group of a filesystem.
pub fn qgroups(fs: FsId) -> io::Result<Vec<QgroupId>> {
    let entries = match fs::read_dir(format!("/sys/fs/btrfs/{fs}/qgroups")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let parse = |name: &str| {
        let (level, id) = name.split_once('_')?;
        Some(QgroupId((u64::from(u16::from_str(level).ok()?) << 48) | u64::from_str(id).ok()?))
    };
    Ok(entries.flatten().filter_map(|entry| parse(entry.file_name().to_str()?)).collect())
}
