//! Taps: network interfaces whose other end is a descriptor (the kernel's networking/tuntap.rst).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// linux/if_tun.h.
const TUNSETIFF: u64 = 0x4004_54ca;
const TUNSETPERSIST: u64 = 0x4004_54cb;
const TUNSETOWNER: u64 = 0x4004_54cc;
const IFF_TAP: i16 = 0x0002;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;

/// Makes a tap of this name, at most 15 bytes, in the calling thread's network namespace. It goes with the descriptor.
/// Frames have a virtio header, by which checksums and segments are left to whoever can do them. Needs CAP_NET_ADMIN.
pub fn make(name: &str) -> io::Result<OwnedFd> {
    let tap = rustix::fs::open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    // SAFETY: `ifreq` is plain bytes, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero.
    if name.len() >= request.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (place, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *place = byte.cast_signed();
    }
    request.ifr_ifru.ifru_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    // SAFETY: the kernel reads and writes one `ifreq`, which lives over the call.
    match unsafe { libc::ioctl(tap.as_raw_fd(), TUNSETIFF as _, &raw mut request) } {
        0 => Ok(tap),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets programs of a user open a tap by its name, and keeps it when its descriptors are closed: it goes with its network
/// namespace. Needs CAP_NET_ADMIN.
pub fn give(tap: BorrowedFd<'_>, user: u32) -> io::Result<()> {
    set(tap, TUNSETOWNER, user)?;
    set(tap, TUNSETPERSIST, 1)
}

fn set(tap: BorrowedFd<'_>, what: u64, to: u32) -> io::Result<()> {
    // SAFETY: both take a number and not a pointer (drivers/net/tun.c, `__tun_chr_ioctl`).
    match unsafe { libc::ioctl(tap.as_raw_fd(), what as _, libc::c_ulong::from(to)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
