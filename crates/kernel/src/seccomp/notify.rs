//! Answers to system calls that a filter holds back (`seccomp_unotify(2)`).
//!
//! What a call's pointers lead to can be changed by other threads of the caller at any time. So whoever answers must
//! never let a call go on ([`Answer::Continue`]) because of what was read there, unless the kernel itself would refuse
//! what must not happen.
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::process::Pid;

/// SECCOMP_IOCTL_NOTIF_* of linux/seccomp.h.
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const ID_VALID: libc::c_ulong = 0x4008_2102;
const SET_FLAGS: libc::c_ulong = 0x4008_2104;
/// SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP.
const SYNC_WAKE_UP: u64 = 1;

/// Where held-back calls arrive: readable when there is one, hung up when no process has the filter any more.
#[derive(Debug)]
pub struct Listener(OwnedFd);

/// A call that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Which call of the filter's processes; never used twice.
    pub id: u64,
    /// The calling thread, in the reader's pid namespace.
    pub thread: Pid,
    /// The system call's number.
    pub number: u32,
    /// Its arguments.
    pub arguments: [u64; 6],
}

/// What the caller gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The call is carried out, with whatever is in the caller's memory by then.
    Continue,
    /// This result.
    Value(i64),
    /// This error.
    Error(rustix::io::Errno),
}

impl From<OwnedFd> for Listener {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Listener {
    /// Asks the kernel to hand the processor straight to who answers and back (Linux 6.6), which takes a call from 30
    /// microseconds to 5. Older kernels go on without.
    pub fn wake_synchronously(&self) {
        // SAFETY: the argument is a number, not a pointer; a kernel that does not know the request returns an error.
        let _ = unsafe { libc::ioctl(self.0.as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) };
    }

    /// The next call; waits for one. `None` when its caller was killed meanwhile.
    pub fn receive(&self) -> io::Result<Option<Call>> {
        let mut call = MaybeUninit::<libc::seccomp_notif>::zeroed();
        // SAFETY: the kernel wants zeroed memory of this type, which it fills.
        let call = match unsafe { libc::ioctl(self.0.as_raw_fd(), RECEIVE as _, call.as_mut_ptr()) } {
            // SAFETY: success means that all of it is filled, and it is plain integers anyway.
            0 => unsafe { call.assume_init() },
            _ => return gone(io::Error::last_os_error()).map(|()| None),
        };
        let thread = i32::try_from(call.pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let number = u32::try_from(call.data.nr).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Some(Call { id: call.id, thread, number, arguments: call.data.args }))
    }

    /// Whether the call still waits: what was opened by its thread's id before this is that thread's.
    pub fn is_waiting(&self, call: &Call) -> bool {
        // SAFETY: the kernel reads one u64.
        unsafe { libc::ioctl(self.0.as_raw_fd(), ID_VALID as _, &raw const call.id) == 0 }
    }

    /// Answers. A caller that is gone needs none.
    pub fn answer(&self, call: u64, answer: Answer) -> io::Result<()> {
        let mut response = libc::seccomp_notif_resp { id: call, val: 0, error: 0, flags: 0 };
        match answer {
            Answer::Continue => response.flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32,
            Answer::Value(value) => response.val = value,
            Answer::Error(errno) => response.error = -errno.raw_os_error(),
        }
        // SAFETY: the kernel reads one structure of this type.
        match unsafe { libc::ioctl(self.0.as_raw_fd(), SEND as _, &raw const response) } {
            0 => Ok(()),
            _ => gone(io::Error::last_os_error()),
        }
    }
}

/// ENOENT: the caller was killed.
fn gone(error: io::Error) -> io::Result<()> {
    match error.raw_os_error() {
        Some(libc::ENOENT) => Ok(()),
        _ => Err(error),
    }
}

/// Reads from a process's memory up to `buffer`'s length; less at the end of what is mapped (`process_vm_readv(2)`).
/// Needs the right to trace it.
pub fn read_memory(of: Pid, address: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: buffer.len() };
    // SAFETY: the local vector is `buffer`; the remote one is of another process, where the kernel checks it.
    let got =
        unsafe { libc::process_vm_readv(of.as_raw_nonzero().get(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

/// Writes to a process's memory; all or an error (`process_vm_writev(2)`). Needs the right to trace it.
pub fn write_memory(of: Pid, address: u64, bytes: &[u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: address as *mut _, iov_len: bytes.len() };
    // SAFETY: the local vector is `bytes`, which is only read; the remote one is of another process, where the kernel
    // checks it.
    let put =
        unsafe { libc::process_vm_writev(of.as_raw_nonzero().get(), &raw const local, 1, &raw const remote, 1, 0) };
    match usize::try_from(put) {
        Ok(put) if put == bytes.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// A NUL-terminated string of a process's memory, of at most `longest` bytes. `None` when it is longer.
pub fn read_string(of: Pid, address: u64, longest: usize) -> io::Result<Option<Vec<u8>>> {
    const PAGE: u64 = 4096;
    let mut text = Vec::new();
    while text.len() <= longest {
        let at = address + text.len() as u64;
        // Not over the end of a page: the next may not be mapped.
        let mut piece = vec![0; usize::try_from(PAGE - at % PAGE).unwrap_or(1)];
        let got = read_memory(of, at, &mut piece)?;
        match piece[..got].iter().position(|byte| *byte == 0) {
            Some(end) => {
                text.extend_from_slice(&piece[..end]);
                return Ok((text.len() <= longest).then_some(text));
            }
            None if got == 0 => return Err(io::ErrorKind::InvalidInput.into()),
            None => text.extend_from_slice(&piece[..got]),
        }
    }
    Ok(None)
}
