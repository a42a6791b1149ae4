//! System calls that a sandbox is tried with, to see whether it is refused them. Nothing comes of those that succeed.
use std::ffi::{c_long, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

use rustix::io::Errno;

/// A system call with arguments that change nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `bpf(BPF_MAP_CREATE)` of an array of one number.
    Bpf,
    /// `perf_event_open(2)` of the processor clock of this process.
    PerfEventOpen,
    /// `keyctl(KEYCTL_GET_KEYRING_ID)` of the session keyring.
    Keyctl,
    /// `io_uring_setup(2)` with one entry.
    IoUringSetup,
    /// `open_by_handle_at(2)` with a handle of no file: ESTALE when it is let through.
    OpenByHandleAt,
    /// `userfaultfd(2)`.
    Userfaultfd,
    /// `syslog(SYSLOG_ACTION_READ_ALL)` of one byte.
    Syslog,
    /// `init_module(2)` of nothing: EFAULT or ENOEXEC when it is let through.
    InitModule,
    /// `unshare(CLONE_NEWUSER)`. The calling process is another afterwards, so only one of its own makes it.
    UnshareUser,
}

/// The largest structure that any of the calls takes.
#[repr(C, align(8))]
struct Zeroes([u8; 256]);

/// Makes the call and gives back what it gives out.
pub fn attempt(call: Call) -> io::Result<()> {
    let mut memory = Zeroes([0; 256]);
    let words = |memory: &mut Zeroes, words: &[u32]| {
        for (at, word) in words.iter().enumerate() {
            memory.0[at * 4..at * 4 + 4].copy_from_slice(&word.to_ne_bytes());
        }
    };
    let (number, arguments): (c_long, [c_long; 5]) = match call {
        Call::Bpf => {
            // union bpf_attr: map_type ARRAY, key_size, value_size, max_entries.
            words(&mut memory, &[2, 4, 4, 1]);
            (libc::SYS_bpf, [0, address(&mut memory), 72, 0, 0])
        }
        Call::PerfEventOpen => {
            // struct perf_event_attr: type SOFTWARE, size of version 5; all else zero: the processor clock.
            words(&mut memory, &[1, 112]);
            (libc::SYS_perf_event_open, [address(&mut memory), 0, -1, -1, 0])
        }
        Call::Keyctl => (libc::SYS_keyctl, [0, -3, 0, 0, 0]),
        Call::IoUringSetup => (libc::SYS_io_uring_setup, [1, address(&mut memory), 0, 0, 0]),
        Call::OpenByHandleAt => {
            // struct file_handle: 8 bytes, type 1 (FILEID_INO32_GEN).
            words(&mut memory, &[8, 1, u32::MAX, u32::MAX]);
            (libc::SYS_open_by_handle_at, [c_long::from(libc::AT_FDCWD), address(&mut memory), 0, 0, 0])
        }
        Call::Userfaultfd => (libc::SYS_userfaultfd, [c_long::from(libc::O_CLOEXEC), 0, 0, 0, 0]),
        Call::Syslog => (libc::SYS_syslog, [3, address(&mut memory), 1, 0, 0]),
        Call::InitModule => (libc::SYS_init_module, [0, 0, address(&mut memory), 0, 0]),
        Call::UnshareUser => (libc::SYS_unshare, [c_long::from(libc::CLONE_NEWUSER), 0, 0, 0, 0]),
    };
    let [a, b, c, d, e] = arguments;
    // SAFETY: every pointer above is that of `memory`, which lives on this stack, is aligned for any structure, and is
    // larger than the size that each call is told or, for io_uring_setup (120 bytes), knows; none is kept by the kernel.
    // The calls map nothing and touch no other memory of this process.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if matches!(call, Call::Bpf | Call::PerfEventOpen | Call::IoUringSetup | Call::OpenByHandleAt | Call::Userfaultfd) {
        let fd = i32::try_from(result).map_err(|_| io::Error::from(Errno::OVERFLOW))?;
        // SAFETY: the kernel has just made this descriptor for this call, and nobody else knows of it.
        drop(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    Ok(())
}

fn address(memory: &mut Zeroes) -> c_long {
    (&raw mut memory.0).cast::<c_void>() as c_long
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Alone in its program: no other test has descriptors of these kinds.
    #[test]
    fn a_call_that_is_let_through_is_not_taken_for_a_refusal_and_leaves_nothing_open() {
        let refusals = [Errno::PERM, Errno::ACCESS].map(|errno| Some(errno.raw_os_error()));
        for call in [Call::OpenByHandleAt, Call::PerfEventOpen, Call::Bpf, Call::Keyctl] {
            let failed = attempt(call).err().filter(|_| rustix::process::geteuid().is_root());
            assert!(!failed.is_some_and(|error| refusals.contains(&error.raw_os_error())), "{call:?}");
        }
        // A setting of the machine may refuse these to root as well.
        for call in [Call::IoUringSetup, Call::Userfaultfd] {
            let _ = attempt(call);
        }
        let entries = std::fs::read_dir("/proc/self/fd").expect("fds").flatten();
        let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        for link in links.map(|link| link.to_string_lossy().into_owned()) {
            assert!(!["bpf", "perf_event", "io_uring", "userfaultfd"].iter().any(|kind| link.contains(kind)), "{link}");
        }
    }
}
