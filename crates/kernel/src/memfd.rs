//! Programs and data in sealed memory files.
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

/// A memory file with this content that nobody can change, grow, shrink or unseal any more, and that can be executed.
///
/// Executed from such a file, a program cannot be overwritten through `/proc/PID/exe` (the way of CVE-2019-5736), and
/// all processes that run it share its pages.
pub fn sealed(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // MFD_EXEC says "executable" where sysctl vm.memfd_noexec would make it not so; kernels before 6.3 do not know it.
    let fd = memfd_create(name, flags | MemfdFlags::EXEC).or_else(|_| memfd_create(name, flags))?;
    let mut file = File::from(fd);
    file.write_all(content)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_content_cannot_be_overwritten() {
        let fd = sealed("test", b"content").expect("memfd");
        assert!(rustix::io::pwrite(&fd, b"x", 0).is_err());
        assert!(rustix::fs::ftruncate(&fd, 0).is_err());
    }
}
