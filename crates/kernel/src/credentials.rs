//! The user and group by which a thread's rights to files are judged (`setfsuid(2)`).
use rustix::fs::{Gid, Uid};

/// Sets both. Neither call has an error to tell: a number that the user namespace does not map changes nothing.
pub fn set_file_user(user: Uid, group: Gid) {
    // SAFETY: both calls take a number and touch this thread's credentials alone.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, group.as_raw());
        libc::syscall(libc::SYS_setfsuid, user.as_raw());
    }
}
