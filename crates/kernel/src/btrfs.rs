//! btrfs ioctls: subvolumes, snapshots, quota groups, resize, chunks.
//!
//! Layouts and numbers are those of `include/uapi/linux/btrfs.h` and `btrfs_tree.h`. Everything here
//! needs root; a call on a descriptor of another filesystem fails with `ENOTTY` and changes nothing.

mod quota;
mod search;
mod space;
mod subvolume;

pub use quota::{Counter, Counters, QgroupId, QuotaMode};
pub use quota::{
    assign_qgroup, create_qgroup, enable_quota, limit_qgroup, qgroup_counters, qgroups, quota_mode, remove_qgroup,
    unassign_qgroup,
};
pub use search::{Nested, nested_subvolumes, subvolume_exists};
pub use space::{BlockGroupKind, Chunk, FsId, chunks, commit, fs_id, resize, sync, trim};
pub use subvolume::{
    Access, SubvolumeId, create_subvolume, delete_subvolume, open_directory, set_access, snapshot, subvolume_id,
};

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

/// Is this descriptor on a btrfs?
pub fn is_btrfs(fd: BorrowedFd<'_>) -> Result<bool, Errno> {
    // BTRFS_SUPER_MAGIC, include/uapi/linux/magic.h.
    Ok(rustix::fs::fstatfs(fd)?.f_type as u64 == 0x9123_683e)
}

/// `_IOC`: direction 0 none, 1 write, 2 read, 3 both, as in include/uapi/asm-generic/ioctl.h.
const fn request(direction: u32, kind: u8, number: u8, size: usize) -> u32 {
    (direction << 30) | ((size as u32) << 16) | ((kind as u32) << 8) | number as u32
}

/// A btrfs ioctl whose argument is a `T`.
const fn btrfs_request<T>(direction: u32, number: u8) -> u32 {
    request(direction, 0x94, number, size_of::<T>())
}

/// Calls an ioctl that reads and writes nothing but `*argument` and what it points to.
///
/// # Safety
///
/// `request` must be one whose argument is a `T` as the kernel lays it out, and every pointer or
/// descriptor inside `argument` must stay valid for the call.
unsafe fn ioctl<T>(fd: BorrowedFd<'_>, request: u32, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: `argument` is a valid, exclusive reference to a T for the whole call; the caller upholds that
    // the kernel takes `request`'s argument to be a T.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, std::ptr::from_mut(argument)) };
    if answer < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    Ok(())
}

/// Puts a file name into a fixed field with a NUL behind it.
fn put_name(field: &mut [u8], name: &OsStr) -> Result<(), Errno> {
    let bytes = name.as_bytes();
    if bytes.is_empty() || bytes.contains(&0) || bytes.contains(&b'/') {
        return Err(Errno::INVAL);
    }
    if bytes.len() >= field.len() {
        return Err(Errno::NAMETOOLONG);
    }
    field[..bytes.len()].copy_from_slice(bytes);
    Ok(())
}
