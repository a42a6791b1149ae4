//! What descriptors a process holds.
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{Mode, OFlags};

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

/// Takes what standard input is, and leaves /dev/null there: descriptor 0 stays taken, so that nothing opened later
/// becomes standard input. For programs that are handed a socket as their standard input.
pub fn take_stdin() -> io::Result<OwnedFd> {
    let taken = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?;
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    Ok(taken)
}

/// Ends this process at once, with nothing of it run or written any more: for a forked child whose parent goes on in
/// the same program.
pub fn exit(code: i32) -> ! {
    // SAFETY: _exit(2) does not return and touches no memory.
    unsafe { libc::_exit(code) }
}
