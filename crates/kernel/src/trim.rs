//! Telling a disk which blocks its file system does not use, fstrim(8).
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

// linux/fs.h: _IOWR('X', 121, struct fstrim_range).
const FITRIM: libc::Ioctl = 0xc018_5879_u32 as libc::Ioctl;

/// `struct fstrim_range`.
#[repr(C)]
struct Range {
    start: u64,
    length: u64,
    smallest: u64,
}

/// Discards all free blocks of the file system that this file or directory is on; how many bytes.
pub fn all(file: BorrowedFd<'_>) -> io::Result<u64> {
    let mut range = Range { start: 0, length: u64::MAX, smallest: 0 };
    // SAFETY: the kernel reads and writes one structure of this layout, which outlives the call.
    match unsafe { libc::ioctl(file.as_raw_fd(), FITRIM, &raw mut range) } {
        0 => Ok(range.length),
        _ => Err(io::Error::last_os_error()),
    }
}
