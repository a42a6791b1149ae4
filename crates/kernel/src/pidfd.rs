//! How a process ended that is no child: the kernel keeps that with its descriptor.
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// `struct pidfd_info` of linux/pidfd.h, in its first version: the kernel fills as much as is asked for.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    /// Process, thread group, parent, and eight ids of users and groups.
    ids: [u32; 11],
    exit_code: i32,
}

/// PIDFD_GET_INFO: `_IOWR(0xff, 11, struct pidfd_info)`.
const GET_INFO: libc::c_ulong = (3 << 30) | ((size_of::<Info>() as libc::c_ulong) << 16) | (0xff << 8) | 11;
/// PIDFD_INFO_EXIT.
const EXIT: u64 = 1 << 3;

/// How the process ended, once it is reaped, waiting for that at most so long; `None` when it is not by then. The
/// descriptor must have been open when it ended. Of the first process of a pid namespace that another one in there
/// ended by reboot(2) it tells no more than SIGKILL.
///
/// Linux 6.15, else ENOTTY or EINVAL.
pub fn exit_status(pidfd: BorrowedFd<'_>, patience: Duration) -> io::Result<Option<ExitStatus>> {
    let timeout = Timespec::try_from(patience).map_err(|_| io::ErrorKind::InvalidInput)?;
    // Readable once it is a zombie, hung up once it is reaped.
    let mut hung_up = [PollFd::from_borrowed_fd(pidfd, PollFlags::empty())];
    loop {
        match poll(&mut hung_up, Some(&timeout)) {
            Err(Errno::INTR) => {}
            result => break result.map(drop)?,
        }
    }
    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the request's number says how large `info` is, and it outlives the call. Any bytes are a value of it.
    match unsafe { libc::ioctl(pidfd.as_raw_fd(), GET_INFO as _, &raw mut info) } {
        0 => Ok((info.mask & EXIT != 0).then(|| ExitStatus::from_raw(info.exit_code))),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    #[test]
    fn the_end_is_told_once_the_process_is_reaped() {
        let mut child = std::process::Command::new("sh").args(["-c", "exit 7"]).spawn().expect("sh");
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).expect("pidfd");
        let early = exit_status(pidfd.as_fd(), Duration::ZERO);
        child.wait().expect("wait");
        match early {
            Err(error) => {
                return eprintln!("SKIP the_end_is_told_once_the_process_is_reaped: PIDFD_INFO_EXIT: {error}");
            }
            Ok(early) => assert_eq!(early, None),
        }
        let status = exit_status(pidfd.as_fd(), Duration::from_secs(10)).expect("ended");
        assert_eq!(status.and_then(|status| status.code()), Some(7));
    }
}
