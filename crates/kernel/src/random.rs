//! The kernel's random numbers made different from those of another machine that woke up with the same memory,
//! random(4).
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Bytes taken at once: what a host gives.
pub const SEED: usize = 64;

// linux/random.h: _IOW('R', 0x03, int[2]) and _IO('R', 0x07).
const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

/// `struct rand_pool_info`.
#[repr(C)]
struct Pool {
    bits: i32,
    bytes: i32,
    seed: [u8; SEED],
}

/// Mixes a secret seed in, counts all of it as random, and has every generator begin again from it at once. Needs
/// CAP_SYS_ADMIN.
pub fn reseed(seed: &[u8; SEED]) -> io::Result<()> {
    let random = File::options().write(true).open("/dev/urandom")?;
    let pool = Pool { bits: 8 * SEED as i32, bytes: SEED as i32, seed: *seed };
    // SAFETY: the kernel reads a header of two ints and as many bytes behind it as the second says, which is what
    // `Pool` has.
    let added = unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, &raw const pool) };
    if added != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: this request takes no argument.
    match unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_taken_from_root_alone() {
        assert_eq!(reseed(&[7; SEED]).is_ok(), rustix::process::geteuid().is_root());
    }
}
