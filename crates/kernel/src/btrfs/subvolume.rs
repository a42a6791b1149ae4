use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use super::quota::{Inherit, QgroupId};
use super::{btrfs_request, ioctl, put_name};

/// The number of a subvolume, unique in its filesystem for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubvolumeId(pub u64);

/// Whether a subvolume can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing in it changes.
    ReadOnly,
    /// As any directory.
    ReadWrite,
}

/// `struct btrfs_ioctl_vol_args_v2`.
#[repr(C)]
struct VolArgs {
    fd: i64,
    transid: u64,
    flags: u64,
    inherit_size: u64,
    inherit: *const Inherit,
    unused: [u64; 2],
    name: [u8; 4040],
}

const _: () = assert!(size_of::<VolArgs>() == 4096);

const SUBVOL_RDONLY: u64 = 1 << 1;
const SUBVOL_QGROUP_INHERIT: u64 = 1 << 2;

impl VolArgs {
    fn new(name: &OsStr) -> Result<Self, Errno> {
        let mut args = Self {
            fd: 0,
            transid: 0,
            flags: 0,
            inherit_size: 0,
            inherit: std::ptr::null(),
            unused: [0; 2],
            name: [0; 4040],
        };
        put_name(&mut args.name, name)?;
        Ok(args)
    }
}

/// Makes an empty subvolume in a directory. Durable with the next commit (a sync, or 30 s).
pub fn create_subvolume(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let mut args = VolArgs::new(name)?;
    // SAFETY: BTRFS_IOC_SUBVOL_CREATE_V2 takes a vol_args_v2, which VolArgs lays out; `inherit` is null with size 0.
    unsafe { ioctl(parent, btrfs_request::<VolArgs>(1, 24), &mut args) }
}

/// Makes a writable snapshot of a subvolume in a directory, counted in a quota group if one is given
/// (which must exist). Durable when this returns: the kernel commits the transaction.
pub fn snapshot(
    source: BorrowedFd<'_>,
    parent: BorrowedFd<'_>,
    name: &OsStr,
    group: Option<QgroupId>,
) -> Result<(), Errno> {
    let inherit = group.map(Inherit::one);
    let mut args = VolArgs::new(name)?;
    args.fd = i64::from(source.as_raw_fd());
    if let Some(inherit) = &inherit {
        args.flags = SUBVOL_QGROUP_INHERIT;
        args.inherit_size = size_of::<Inherit>() as u64;
        args.inherit = inherit;
    }
    // SAFETY: BTRFS_IOC_SNAP_CREATE_V2 takes a vol_args_v2; `source` is borrowed and `inherit`, of the size
    // given, lives to the end of this function.
    unsafe { ioctl(parent, btrfs_request::<VolArgs>(1, 23), &mut args) }
}

/// Unlinks a subvolume from a directory; the kernel frees its blocks later. `ENOTEMPTY` when another
/// subvolume is in it. Durable with the next commit.
pub fn delete_subvolume(parent: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    let mut args = VolArgs::new(name)?;
    // SAFETY: BTRFS_IOC_SNAP_DESTROY_V2 (5.7) takes a vol_args_v2 and, without SPEC_BY_ID, reads its NUL-ended name.
    unsafe { ioctl(parent, btrfs_request::<VolArgs>(1, 63), &mut args) }
}

/// Makes a subvolume read-only or writable. `EINVAL` for anything but a subvolume's top directory.
pub fn set_access(subvolume: BorrowedFd<'_>, access: Access) -> Result<(), Errno> {
    let mut flags: u64 = match access {
        Access::ReadOnly => SUBVOL_RDONLY,
        Access::ReadWrite => 0,
    };
    // SAFETY: BTRFS_IOC_SUBVOL_SETFLAGS takes a u64.
    unsafe { ioctl(subvolume, btrfs_request::<u64>(1, 26), &mut flags) }
}

/// `struct btrfs_ioctl_ino_lookup_args`.
#[repr(C)]
struct InoLookup {
    treeid: u64,
    objectid: u64,
    name: [u8; 4080],
}

/// The number of the subvolume that a file is in.
pub fn subvolume_id(file: BorrowedFd<'_>) -> Result<SubvolumeId, Errno> {
    // 256 is the top directory of any subvolume; tree 0 means "that of the descriptor".
    let mut args = InoLookup { treeid: 0, objectid: 256, name: [0; 4080] };
    // SAFETY: BTRFS_IOC_INO_LOOKUP takes an ino_lookup_args, which InoLookup lays out.
    unsafe { ioctl(file, btrfs_request::<InoLookup>(3, 18), &mut args)? };
    Ok(SubvolumeId(args.treeid))
}

/// `struct file_handle` with a btrfs handle without parent: objectid, root_objectid, generation.
#[repr(C)]
struct Handle {
    handle_bytes: u32,
    handle_type: i32,
    objectid: [u32; 2],
    root: [u32; 2],
    generation: u32,
}

/// Opens a directory by its inode number in a subvolume: no path, so none can be too long or change.
/// Needs CAP_DAC_READ_SEARCH.
pub fn open_directory(any: BorrowedFd<'_>, subvolume: SubvolumeId, inode: u64) -> Result<OwnedFd, Errno> {
    let halves = |number: u64| {
        let bytes = number.to_ne_bytes();
        [0, 4].map(|at| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
    };
    // FILEID_BTRFS_WITHOUT_PARENT, include/linux/exportfs.h; generation 0 is not compared (fs/btrfs/export.c).
    let mut handle = Handle {
        handle_bytes: 20,
        handle_type: 0x4d,
        objectid: halves(inode),
        root: halves(subvolume.0),
        generation: 0,
    };
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // SAFETY: Handle lays out a file_handle of `handle_bytes` bytes behind its two-word head, and is ours for
    // the call.
    let fd = unsafe { libc::open_by_handle_at(any.as_raw_fd(), (&raw mut handle).cast(), flags) };
    if fd < 0 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO));
    }
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
