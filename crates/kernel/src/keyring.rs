//! The session keyring (`keyctl(2)`, `session-keyring(7)`).
use std::io;

/// KEYCTL_JOIN_SESSION_KEYRING of linux/keyctl.h.
const JOIN_SESSION: libc::c_long = 1;

/// Gives this process a new, empty session keyring of its own, so that neither it nor its children can look up keys of
/// the session that started it. A kernel without keyrings (ENOSYS) has none to leak, which counts as success.
pub fn leave_session() -> io::Result<()> {
    // SAFETY: JOIN_SESSION with a null name reads no memory; it makes an anonymous keyring.
    let serial = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION, std::ptr::null::<libc::c_char>()) };
    if serial >= 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        e if e.raw_os_error() == Some(libc::ENOSYS) => Ok(()),
        e => Err(e),
    }
}
