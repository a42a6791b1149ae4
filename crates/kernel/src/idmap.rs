//! Mounts whose files show other owners than they have (`mount_setattr(2)`, MOUNT_ATTR_IDMAP, Linux 5.12).
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Makes a detached mount, that nothing has used yet, show its files' owners through a user namespace's map: what is 0
/// on disk is that namespace's root. Needs CAP_SYS_ADMIN over the file system; EINVAL for one that cannot do it.
pub fn map(mount: BorrowedFd<'_>, users: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: u64::try_from(users.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?,
    };
    set(mount, &attributes)
}

/// Adds flags (MOUNT_ATTR_RDONLY, _NOSUID, _NODEV, _NOEXEC) to one mount.
pub fn restrict(mount: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    set(mount, &libc::mount_attr { attr_set: flags, attr_clr: 0, propagation: 0, userns_fd: 0 })
}

/// Adds flags to a mount and all that is mounted below it.
pub fn restrict_tree(mount: BorrowedFd<'_>, flags: u64) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: flags, attr_clr: 0, propagation: 0, userns_fd: 0 };
    set_by(mount, &attributes, libc::AT_EMPTY_PATH | libc::AT_RECURSIVE)
}

/// Takes a mount out of its peer group, so that what is mounted on it here shows nowhere else, and the other way round.
pub fn seclude(mount: BorrowedFd<'_>) -> io::Result<()> {
    set(mount, &libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 })
}

fn set(mount: BorrowedFd<'_>, attributes: &libc::mount_attr) -> io::Result<()> {
    set_by(mount, attributes, libc::AT_EMPTY_PATH)
}

fn set_by(mount: BorrowedFd<'_>, attributes: &libc::mount_attr, flags: i32) -> io::Result<()> {
    // SAFETY: the path is an empty string, the structure one of this size; the kernel only reads both.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
