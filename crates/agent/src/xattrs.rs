//! Extended attributes of files of every kind, which must not be opened for them.

use std::path::Path;

use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// The prefix of extended attributes in pax records, as GNU tar, bsdtar and star write them.
pub const RECORD: &str = "SCHILY.xattr.";

/// The largest extended attribute, and list of their names (XATTR_SIZE_MAX, XATTR_LIST_MAX; linux/limits.h).
const LARGEST: usize = 64 << 10;

/// What setxattr(2) says when this process may not or this filesystem cannot: ext4 has room for 4 KiB a file.
const CANNOT: [Errno; 7] =
    [Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP, Errno::INVAL, Errno::NOSPC, Errno::TOOBIG, Errno::RANGE];

/// A name and its value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// Reads them; a file without any costs one call.
#[derive(Debug)]
pub struct Xattrs {
    names: Vec<u8>,
    value: Vec<u8>,
}

impl Xattrs {
    /// Room for the names of one file, and for one value.
    pub fn new() -> Self {
        Self { names: vec![0; LARGEST], value: vec![0; LARGEST] }
    }

    /// Those of the file at `path`, or of the link itself, by name. One that goes away meanwhile is not there.
    pub fn of(&mut self, path: &Path) -> Result<Vec<Xattr>, Errno> {
        let count = match rustix::fs::llistxattr(path, &mut self.names[..]) {
            Err(Errno::OPNOTSUPP) => 0,
            other => other?,
        };
        let mut found = Vec::new();
        for name in self.names[..count].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            match rustix::fs::lgetxattr(path, name, &mut self.value[..]) {
                Ok(length) => found.push((name.to_vec(), self.value[..length].to_vec())),
                Err(Errno::NODATA) => {}
                Err(error) => return Err(error),
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Makes `wanted` all that the file at `path` has, as far as it can. Returns the names of those that it could not set.
    pub fn make(&mut self, path: &Path, wanted: &[Xattr]) -> Result<Vec<Vec<u8>>, Errno> {
        let present = self.of(path)?;
        for (name, _) in present.iter().filter(|(name, _)| !wanted.iter().any(|(other, _)| other == name)) {
            // What a security module put there it keeps.
            let _ = rustix::fs::lremovexattr(path, name.as_slice());
        }
        let mut refused = Vec::new();
        for (name, value) in wanted.iter().filter(|wanted| !present.contains(wanted)) {
            match rustix::fs::lsetxattr(path, name.as_slice(), value, XattrFlags::empty()) {
                Ok(()) => {}
                Err(error) if CANNOT.contains(&error) => refused.push(name.clone()),
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }
}
