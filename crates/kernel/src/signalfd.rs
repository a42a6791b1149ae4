//! Signals as a readable descriptor (signalfd(2)), for programs whose main loop waits on descriptors.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::process::Signal;

/// Signals that are blocked in this thread (and in threads and children made from it) and read here instead.
///
/// Call it before any other thread exists. Signals of one kind that come close together are read as one.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks the signals and begins to collect them; non-blocking and close-on-exec.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        // SAFETY: plain data, for which zero is valid, filled by sigemptyset(3).
        let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
        // SAFETY: `set` lives on this stack, and the numbers are signals.
        let error = unsafe {
            libc::sigemptyset(&raw mut set);
            for signal in signals {
                libc::sigaddset(&raw mut set, signal.as_raw());
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut())
        };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: signalfd(2) reads `set` and makes a new descriptor.
        let fd = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and nobody else's.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// The next signal; `WouldBlock` when there is none.
    pub fn read(&self) -> io::Result<Signal> {
        let mut bytes = [0u8; size_of::<libc::signalfd_siginfo>()];
        rustix::io::retry_on_intr(|| rustix::io::read(&self.0, &mut bytes))?;
        // ssi_signo is the first field (signalfd(2)).
        let number = i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        Signal::from_named_raw(number).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blocked_signal_is_read() {
        let signals = SignalFd::new(&[Signal::USR1]).expect("signalfd");
        assert_eq!(signals.read().expect_err("none yet").kind(), io::ErrorKind::WouldBlock);
        // To this thread: the others of the test process do not block it.
        // SAFETY: tgkill(2) of the calling thread with a signal that it blocks.
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), libc::SIGUSR1) };
        assert_eq!(sent, 0);
        assert_eq!(signals.read().expect("pending"), Signal::USR1);
    }
}
