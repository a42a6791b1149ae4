//! What a file is besides its content: owner, mode, times, extended attributes.

use std::ffi::OsString;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;

use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid, fchmod, fchown};
use rustix::io::Errno;

use super::archive::Member;
use crate::error::Error;

/// Owner, extended attributes, then mode: a change of owner takes capabilities and set-user-id away.
pub(super) fn describe(file: BorrowedFd<'_>, member: &Member, path: &Path) -> Result<(), Error> {
    let (uid, gid) = owner(member);
    fchown(file, Some(uid), Some(gid)).map_err(|error| Error::write(path, error))?;
    for (name, value) in &member.xattrs {
        if is_image_xattr(name) {
            let name = OsString::from_vec(name.clone());
            rustix::fs::fsetxattr(file, name, value, rustix::fs::XattrFlags::empty())
                .map_err(|error| Error::write(path, error))?;
        }
    }
    fchmod(file, Mode::from_raw_mode(member.mode)).map_err(|error| Error::write(path, error))
}

/// Attributes that belong to files. `trusted.` steers the kernel's overlayfs, and labels of security
/// modules are those of another machine.
fn is_image_xattr(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == b"security.capability" || name.starts_with(b"system.posix_acl_")
}

pub(super) fn owner(member: &Member) -> (Uid, Gid) {
    (Uid::from_raw(member.uid), Gid::from_raw(member.gid))
}

pub(super) fn timestamps((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

pub(super) fn write_all_at(file: &OwnedFd, mut bytes: &[u8], mut offset: u64) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::pwrite(file, bytes, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
