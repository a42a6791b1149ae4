//! What a tar stream holds becomes a root filesystem.
//!
//! ```text
//!  stream --Source (gzip, zstd; ratio)--> Archive (members) --+--> Tree (a root filesystem tar)
//!                                                             '--> Spool (blobs) --Contents (manifests)--> layers --> Tree
//! ```

mod archive;
mod attributes;
mod contents;
mod pax;
mod source;
mod sparse;
mod spool;
mod tree;
mod whiteout;

use std::fs;
use std::io::Read;
use std::path::Path;

use garth_spec::ImageConfig;

use crate::error::{Error, ErrorKind};
use archive::Archive;
use contents::{Contents, Layer};
use source::{Digested, Source};
use spool::Spool;
use tree::Tree;

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
    /// How many times larger than its compressed stream an image may be, once it is above 1 GiB.
    pub ratio: u64,
    /// Directories one in the other.
    pub depth: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bytes: 64 << 30, entries: 2_000_000, ratio: 200, depth: 256 }
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

/// Writes an image's files into an empty directory: that of a [`garth_storage::ImageDraft`]. On an
/// error the directory holds part of them: drop the draft. The directory `scratch` beside it is used
/// and removed.
pub fn import(reader: &mut dyn Read, format: Format, root: &Path, limits: &Limits) -> Result<Imported, Error> {
    let mut archive = Archive::new(Source::open(reader, limits)?);
    let first = archive.next()?;
    let archived = match format {
        Format::Tar => false,
        Format::DockerArchive | Format::OciLayout => true,
        Format::Auto => first.as_ref().is_some_and(|member| spool::is_archive_name(&member.path)),
    };
    let mut tree = Tree::open(root, limits)?;
    let config = if archived {
        let scratch = root.with_file_name("scratch");
        let done = import_archive(&mut archive, first, format, (&scratch, &mut tree, limits));
        let removed = fs::remove_dir_all(&scratch);
        let config = done?;
        removed.map_err(|error| Error::write(&scratch, error))?;
        config
    } else {
        unpack(&mut archive, first, &mut tree)?;
        if tree.entries() == 0 {
            return Err(Error::new(ErrorKind::UnknownFormat("it is empty".to_owned())));
        }
        ImageConfig::default()
    };
    archive.finish()?;
    tree.add_mount_points()?;
    Ok(Imported { config, entries: tree.entries(), bytes: tree.bytes() })
}

/// A root filesystem: its members are the image's files.
fn unpack<R: Read>(archive: &mut Archive<R>, first: Option<archive::Member>, tree: &mut Tree<'_>) -> Result<(), Error> {
    let mut next = first;
    while let Some(member) = next {
        tree.add(&member, archive)?;
        next = archive.next()?;
    }
    tree.end_layer()
}

/// Blobs first: their order in the stream is none, and manifests often come last.
fn import_archive<R: Read>(
    archive: &mut Archive<R>,
    first: Option<archive::Member>,
    format: Format,
    (scratch, tree, limits): (&Path, &mut Tree<'_>, &Limits),
) -> Result<ImageConfig, Error> {
    let mut spool = Spool::create(scratch, limits)?;
    let mut next = first;
    while let Some(member) = next {
        spool.add(&member, archive)?;
        next = archive.next()?;
    }
    let contents = Contents::read(&spool, format)?;
    for layer in &contents.layers {
        apply(layer, tree, limits)?;
    }
    Ok(contents.config)
}

fn apply(layer: &Layer, tree: &mut Tree<'_>, limits: &Limits) -> Result<(), Error> {
    let mut file = fs::File::open(&layer.file).map_err(|error| Error::write(&layer.file, error))?;
    let mut archive = Archive::new(Digested::new(Source::open(&mut file, limits)?));
    while let Some(member) = archive.next()? {
        tree.add_of_layer(&member, &mut archive)?;
    }
    tree.end_layer()?;
    if archive.finish()?.digest() != layer.diff_id {
        return Err(Error::new(ErrorKind::DigestMismatch(layer.name.clone())));
    }
    Ok(())
}
