use std::fs;
use std::path::{Path, PathBuf};

use garth_spec::{ImageConfig, ImageId};
use serde::{Deserialize, Serialize};

use crate::error::{At, Error};
use crate::layout::{RECORD, ROOTFS, SCRATCH, STATE, UPPER, USR, WORK};
use crate::pool::Pool;

/// What a pool remembers of an image, beside its files.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageMeta {
    /// What the image says of the processes to run in it.
    #[serde(default)]
    pub config: ImageConfig,
    /// Where `/usr` comes from.
    #[serde(default)]
    pub usr: UsrSource,
    /// Files, directories and links in it.
    #[serde(default)]
    pub entries: u64,
    /// Bytes of its files.
    #[serde(default)]
    pub bytes: u64,
}

/// Where the `/usr` of an image comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsrSource {
    /// The image has its own.
    #[default]
    Image,
    /// This machine's, below a writable layer.
    Host,
}

/// An immutable image in the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: ImageId,
    /// What the pool remembers of it.
    pub meta: ImageMeta,
    pub(crate) path: PathBuf,
}

impl Image {
    /// The image's files. Never write there.
    pub fn rootfs(&self) -> PathBuf {
        self.path.join(ROOTFS)
    }
}

/// What is written inside an image or disk, and nothing else.
#[derive(Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) id: ImageId,
    pub(crate) meta: ImageMeta,
}

/// An image being filled: invisible until [`commit`](Self::commit), gone when dropped.
#[derive(Debug)]
pub struct ImageDraft {
    pool: Pool,
    id: ImageId,
    path: PathBuf,
    done: bool,
}

impl ImageDraft {
    pub(crate) fn new(pool: Pool, id: ImageId, path: PathBuf) -> Self {
        Self { pool, id, path, done: false }
    }

    /// The empty directory to fill: the image's `/`. A directory `scratch` beside it is the importer's to
    /// make and use; it is deleted before the image is visible.
    pub fn path(&self) -> PathBuf {
        self.path.join(ROOTFS)
    }

    /// The layer over the machine's `/usr` that disks of this image begin with; for images with
    /// [`UsrSource::Host`] only.
    pub fn usr_upper(&self) -> Result<PathBuf, Error> {
        make_usr(&self.path).at("begin image", &self.path)?;
        Ok(self.path.join(USR).join(UPPER))
    }

    /// Makes the image durable, then visible. A crash before the end leaves nothing visible.
    pub fn commit(mut self, meta: ImageMeta) -> Result<Image, Error> {
        let image = self.pool.commit_image(self.id, &self.path, meta)?;
        self.done = true;
        Ok(image)
    }
}

impl Drop for ImageDraft {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed now is removed by the next sweep.
            let _ = self.pool.remove_tree(&self.path);
        }
    }
}

/// Makes the directories every image has.
pub(crate) fn make_skeleton(path: &Path) -> std::io::Result<()> {
    fs::create_dir(path.join(ROOTFS))?;
    fs::create_dir(path.join(STATE))
}

/// Writes the record, and the directories for a `/usr` layer if the image wants one.
pub(crate) fn finish_skeleton(path: &Path, record: &Record) -> std::io::Result<()> {
    if record.meta.usr == UsrSource::Host {
        make_usr(path)?;
    }
    crate::removal::remove_tree(&path.join(SCRATCH))?;
    fs::write(path.join(RECORD), serde_json::to_vec_pretty(record)?)
}

fn make_usr(path: &Path) -> std::io::Result<()> {
    let usr = path.join(USR);
    for dir in [usr.join(UPPER), usr.join(WORK)] {
        fs::create_dir_all(dir)?;
    }
    Ok(())
}

pub(crate) fn read_record(path: &Path) -> std::io::Result<Record> {
    Ok(serde_json::from_slice(&fs::read(path.join(RECORD))?)?)
}
