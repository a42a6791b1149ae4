//! What a tar stream holds becomes a root filesystem.

use std::io::Read;
use std::path::Path;

use garth_spec::ImageConfig;

use crate::error::{Error, ErrorKind};

/// What a stream is said to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Whatever its content shows.
    #[default]
    Auto,
    /// A root filesystem.
    Tar,
    /// What `docker save` writes.
    DockerArchive,
    /// An OCI image layout, as in `skopeo copy … oci-archive:`.
    OciLayout,
}

/// What an import may hold at most: bombs end here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of all files, layers one upon the other.
    pub bytes: u64,
    /// Files, directories and links, in all layers.
    pub entries: u64,
    /// How many times larger than its compressed stream an image may be.
    pub ratio: u64,
    /// Directories one in the other.
    pub depth: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 4_000_000, ratio: 200, depth: 256 }
    }
}

/// What an import wrote.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Imported {
    /// What the image says of the processes to run in it.
    pub config: ImageConfig,
    /// Files, directories and links in it.
    pub entries: u64,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Writes an image's files into an empty directory. On an error the directory holds part of them:
/// drop the draft that it belongs to.
pub fn import(_reader: &mut dyn Read, _format: Format, _root: &Path, _limits: &Limits) -> Result<Imported, Error> {
    Err(Error::new(ErrorKind::UnknownFormat("import is not written yet".to_owned())))
}
