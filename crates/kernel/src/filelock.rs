//! Locks on single bytes of a file, that last as long as somebody holds the open file (`fcntl(2)`, "Open file
//! description locks", Linux 3.15): a claim that the kernel takes back by itself, however its holders end.
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Locks one byte for this open file and its duplicates, in other processes too. `false` when another has it.
pub fn claim(file: BorrowedFd<'_>, byte: u32) -> io::Result<bool> {
    // SAFETY: `flock` is plain integers, for which all zeroes is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = libc::F_WRLCK as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = byte.into();
    lock.l_len = 1;
    // SAFETY: the kernel reads one structure of this type.
    match unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const lock) } {
        0 => Ok(true),
        _ => match io::Error::last_os_error() {
            e if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
            e => Err(e),
        },
    }
}
