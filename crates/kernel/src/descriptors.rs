//! What descriptors a process holds.
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Closes every descriptor above 2 that is not in `keep` (`close_range(2)`, Linux 5.9).
///
/// For a process that is about to become something less trusted: what the caller forgot, or inherited, is gone.
/// The caller must own no other descriptor that it will use or drop later.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).filter(|fd| *fd > 2).collect();
    keep.sort_unstable();
    let mut first: RawFd = 3;
    for fd in keep {
        close_between(first, fd - 1)?;
        first = fd + 1;
    }
    close_between(first, RawFd::MAX)
}

fn close_between(first: RawFd, last: RawFd) -> io::Result<()> {
    if first > last {
        return Ok(());
    }
    // SAFETY: closing a descriptor that an `OwnedFd` still names breaks that value's promise. The one caller is a
    // sandbox's init, right after it forgot (`std::mem::forget`) or borrowed for `keep` everything it owns.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes the descriptor 0 as an owned one, leaving 0 to be filled by the next open.
///
/// For programs that are handed a socket as their standard input; nothing else of the program reads standard input.
pub fn take_stdin() -> OwnedFd {
    // SAFETY: descriptor 0 is open (the Rust runtime opens /dev/null there when it is not) and no other value owns it.
    unsafe { OwnedFd::from_raw_fd(0) }
}
