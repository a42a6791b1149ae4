//! A whole root as one stream, for a project that changes its level: `GET` and `PUT /garth/move`, `GET /garth/manifest`.
//!
//! ```text
//! walk (sorted, one mount) -> entries -> pax stream -> entries -> placed beneath the other root
//!                               |                        |
//!                             digest        =          digest, and one more of what could be made
//! ```
//!
//! The stream is in the pax format, one entry a file, directories before what is in them, names in the order of their
//! bytes; its last entry says the digest of all before, or why there is no more. Sockets are left out: they mean nothing at rest. Nothing below
//! other mounts is looked at, but for `/usr` where that lies over a base that both ends have: of it, what differs.
//!
//! Memory does not depend on sizes of files and lengths of paths: one directory's names, one file's attributes, and the
//! names of files that have several. `tarball` serves people's tars, in any order and of any make; this one knows its maker.

mod content;
mod cursor;
mod digest;
mod entry;
mod pack;
mod reader;
mod same;
mod unpack;
mod walk;
mod writer;

use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::refusal::{Kind, Refusal};

pub use digest::Summary;
pub use pack::{manifest, pack};
pub use unpack::{Received, unpack};

/// What is moved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scope {
    /// The tree; `/` for a sandbox's own.
    pub root: PathBuf,
    /// Where only what differs from something else counts.
    pub base: Option<Base>,
    /// Paths that do not exist for us, from the root, without a slash before them.
    pub omit: Vec<Vec<u8>>,
}

/// A directory that both ends have the same content in to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The changed one, from the root, without a slash before it. It may be another mount.
    pub at: Vec<u8>,
    /// The unchanged one.
    pub pristine: PathBuf,
}

impl Scope {
    /// From the parameters of a request: `root=/`, `base=/usr=/run/base/usr`, `omit=/lost+found`.
    pub fn of<'a>(
        root: Option<&str>,
        base: Option<&str>,
        omit: impl Iterator<Item = &'a str>,
    ) -> Result<Self, Refusal> {
        let base = base.map(|text| {
            let (at, pristine) =
                text.split_once('=').ok_or_else(|| Refusal::invalid("base is not of the form AT=PRISTINE"))?;
            Ok(Base { at: inner(at)?, pristine: absolute(pristine)? })
        });
        Ok(Self {
            root: absolute(root.unwrap_or("/"))?,
            base: base.transpose()?,
            omit: omit.map(inner).collect::<Result<_, _>>()?,
        })
    }

    /// Whether there is such a thing.
    pub fn check(&self) -> Result<(), Refusal> {
        walk::Walk::new(self).map(drop)
    }

    fn is_base(&self, path: &[u8]) -> bool {
        self.base.as_ref().is_some_and(|base| base.at == path)
    }
}

fn absolute(path: &str) -> Result<PathBuf, Refusal> {
    inner(path)?;
    Ok(PathBuf::from(path))
}

/// A path from the root as entries have it.
fn inner(path: &str) -> Result<Vec<u8>, Refusal> {
    let rest = path.strip_prefix('/').ok_or_else(|| Refusal::invalid(format!("path '{path}' is not absolute")))?;
    let rest = rest.strip_suffix('/').unwrap_or(rest).as_bytes();
    if rest.is_empty() || is_plain(rest) {
        Ok(rest.to_vec())
    } else {
        Err(Refusal::invalid(format!("path '{path}' is not plain")))
    }
}

/// Nothing in it that means another place than it says.
fn is_plain(path: &[u8]) -> bool {
    !path.contains(&0) && path.split(|byte| *byte == b'/').all(|name| !matches!(name, b"" | b"." | b".."))
}

/// For people.
pub fn shown(path: &[u8]) -> String {
    Path::new("/").join(std::ffi::OsString::from_vec(path.to_vec())).display().to_string()
}

fn refused(error: Errno, path: &[u8]) -> Refusal {
    Refusal::of(&error.into(), shown(path))
}

fn changed(path: &[u8]) -> Refusal {
    Refusal::new(Kind::Failed, format!("path '{}' changed while it was read", shown(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_plain_absolute_paths() {
        let none = || std::iter::empty();
        let scope = Scope::of(None, Some("/usr=/run/base/usr"), ["/lost+found", "/a/b/"].into_iter()).expect("scope");
        assert_eq!(scope.root, Path::new("/"));
        assert_eq!(scope.base, Some(Base { at: b"usr".to_vec(), pristine: "/run/base/usr".into() }));
        assert_eq!(scope.omit, [b"lost+found".to_vec(), b"a/b".to_vec()]);
        for (root, base) in [(Some("a"), None), (Some("/a/../b"), None), (None, Some("/usr")), (None, Some("usr=/b"))] {
            assert!(Scope::of(root, base, none()).is_err(), "{root:?} {base:?}");
        }
    }
}
