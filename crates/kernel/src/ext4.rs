//! What ext4(5) is asked for by ioctl.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};

/// fs/ext4/ext4.h, `EXT4_IOC_RESIZE_FS`: `_IOW('f', 16, __u64)`.
const RESIZE: u64 = 0x4008_6610;

/// Makes the mounted filesystem that a directory is of so many of its blocks large. Needs CAP_SYS_RESOURCE.
pub fn grow(directory: BorrowedFd<'_>, blocks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads one u64, which lives over the call.
    match unsafe { libc::ioctl(directory.as_raw_fd(), RESIZE as _, &raw const blocks) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
