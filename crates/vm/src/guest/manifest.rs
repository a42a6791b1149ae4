//! What was recorded of the files when they were made.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest;
use super::error::{Error, ErrorKind};

/// Changes when guests of an older version of this crate would not find what they need.
pub(super) const FORMAT: u32 = 1;

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The format of these files.
    pub format: u32,
    /// What `uname -r` says in the guest.
    pub release: String,
    /// Whether the kernel can be started by its PVH entry.
    pub has_pvh: bool,
    /// Where the kernel and its modules came from.
    pub source: Source,
    /// The SHA-256 of the agent.
    pub agent: String,
    /// The modules, in the order in which a guest loads them; what else guests use is built in.
    pub modules: Vec<String>,
    /// What guests could use and the kernel does not have.
    pub missing: Vec<String>,
    /// `vmlinux`.
    pub vmlinux: Recorded,
    /// `initrd.img`.
    pub initrd: Recorded,
}

/// Where a kernel came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Source {
    /// Packages of the distribution: each its name, its version and its SHA-256.
    Packages(Vec<(String, String, String)>),
    /// A file of the user's, with its SHA-256.
    File(PathBuf, String),
}

/// A file as it was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recorded {
    /// Of its content.
    pub sha256: String,
    /// In bytes.
    pub size: u64,
    /// When it was last written, in nanoseconds since 1970.
    pub modified: i64,
}

impl Recorded {
    /// Looks at a file that was just written with this content.
    pub(super) fn of(path: &Path, content: &[u8]) -> Result<Self, Error> {
        let (size, modified) = stat(path)?;
        Ok(Self { sha256: digest::of(content), size, modified })
    }

    /// Whether the file is as it was left, as far as its size and time tell.
    pub(super) fn check(&self, path: &Path) -> Result<(), Error> {
        match stat(path)? == (self.size, self.modified) {
            true => Ok(()),
            false => Err(ErrorKind::Changed(path.to_owned()).into()),
        }
    }

    /// Whether the file has the content that it was made with.
    pub(super) fn verify(&self, path: &Path) -> Result<(), Error> {
        match digest::of_file(path)? == self.sha256 {
            true => Ok(()),
            false => Err(ErrorKind::Changed(path.to_owned()).into()),
        }
    }
}

fn stat(path: &Path) -> Result<(u64, i64), Error> {
    let metadata = fs::symlink_metadata(path).map_err(Error::file("read", path))?;
    let modified = metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec());
    Ok((metadata.len(), modified))
}
