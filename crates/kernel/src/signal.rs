//! Signal dispositions that the Rust libraries have no safe call for.
use std::io;

/// What happens when a child of this process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildEnds {
    /// The kernel reaps it at once: no zombie, nothing to wait for.
    Reaped,
    /// It stays a zombie until waited for.
    WaitedFor,
}

/// Sets the disposition of SIGCHLD (`sigaction(2)`, SA_NOCLDWAIT under NOTES). Children inherit it.
pub fn children(ends: ChildEnds) -> io::Result<()> {
    let handler = match ends {
        ChildEnds::Reaped => libc::SIG_IGN,
        ChildEnds::WaitedFor => libc::SIG_DFL,
    };
    // SAFETY: SIG_IGN and SIG_DFL install no code, so no handler can run at a bad moment.
    match unsafe { libc::signal(libc::SIGCHLD, handler) } {
        libc::SIG_ERR => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Unblocks every signal: whoever started this process may have had some blocked, and children inherit that.
pub fn unblock_all() -> io::Result<()> {
    // SAFETY: a zeroed `sigset_t` is plain memory that sigemptyset initialises before it is read.
    let mut none: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `none` is a live `sigset_t`; the old mask is not asked for.
    let result = unsafe {
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut())
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks an init to stop its services and power off: SIGRTMIN+4, as systemd(1) has it under "Signals". The number is
/// glibc's, which inits are built with (its SIGRTMIN is 34).
pub fn power_off(init: rustix::process::Pid) -> io::Result<()> {
    const POWER_OFF: libc::c_int = 34 + 4;
    // SAFETY: kill(2) takes two numbers.
    match unsafe { libc::kill(init.as_raw_nonzero().get(), POWER_OFF) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
