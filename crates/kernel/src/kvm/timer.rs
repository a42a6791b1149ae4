//! A timer that interrupts system calls.

use std::io;
use std::time::Duration;

/// Interrupts whatever system call this process is in, once the time is over and then every 10 ms: one signal alone
/// could come between two calls and be lost.
pub(super) fn interrupt_after(patience: Duration) -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let time = |duration: Duration| libc::timeval {
        tv_sec: duration.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_usec: duration.subsec_micros().into(),
    };
    let timer = libc::itimerval { it_value: time(patience), it_interval: time(Duration::from_millis(10)) };
    // SAFETY: a zeroed `sigaction` is plain memory, with an empty mask and no flags: without SA_RESTART calls are
    // interrupted.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = nothing as extern "C" fn(libc::c_int) as usize;
    // SAFETY: both structures live over the calls; the handler does nothing, so it may run at any moment.
    let result = unsafe {
        match libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut()) {
            0 => libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut()),
            failed => failed,
        }
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
