//! The images projects start from: the built-in one, and what users imported.
//!
//! ```text
//! body of an import --pipe--> blocking thread: image::import --> draft --> pool --> store --> visible
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use garth_spec::{ImageConfig, ImageId, ImageName};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::fault::{self, Point};
use crate::local::Local;
use crate::project::random_bits;
use crate::store::Store;

/// An image as the store keeps it and as readers see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageEntry {
    /// Its content in the pool.
    pub id: ImageId,
    /// What users call it.
    pub name: ImageName,
    /// Where it came from.
    pub source: ImageSource,
    /// What it says of processes.
    pub config: ImageConfig,
    /// Bytes of its files.
    pub size: Option<u64>,
    /// When it was made.
    pub created_at: Timestamp,
}

/// Where an image came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageSource {
    /// This machine's own `/usr`.
    Builtin,
    /// Someone imported it.
    Imported,
}

/// What the bytes of an import are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// Found out from the first entries.
    Auto,
    /// A root filesystem.
    Tar,
    /// `docker save`.
    DockerArchive,
    /// An OCI layout directory.
    OciLayout,
}

/// The images by name, and the names that imports under way have taken.
#[derive(Debug, Default)]
pub(crate) struct Images {
    /// Held for moments only: readers are on the thread that serves everyone.
    known: Mutex<BTreeMap<ImageName, ImageEntry>>,
    /// Held for reading while a disk is made from an image, for writing while one is forgotten.
    used: RwLock<()>,
    importing: Mutex<BTreeSet<ImageName>>,
    building: Mutex<()>,
}

impl Images {
    pub(crate) fn new(entries: Vec<ImageEntry>) -> Self {
        let known = entries.into_iter().map(|image| (image.name.clone(), image)).collect();
        Self { known: Mutex::new(known), ..Self::default() }
    }

    /// Every image, by name.
    pub(crate) fn list(&self) -> Vec<ImageEntry> {
        lock(&self.known).values().cloned().collect()
    }

    /// One image.
    pub(crate) fn find(&self, name: &ImageName) -> Option<ImageEntry> {
        lock(&self.known).get(name).cloned()
    }

    /// Does something with an image that must not go meanwhile.
    pub(crate) fn with<T>(
        &self,
        name: &ImageName,
        act: impl FnOnce(&ImageEntry) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let _stays = self.used.read().unwrap_or_else(PoisonError::into_inner);
        act(&self.find(name).ok_or_else(|| ErrorKind::NoImage(name.clone()))?)
    }

    /// Makes sure that the built-in image is there and is of this machine as it is now.
    pub(crate) fn ensure_host(&self, local: &Local, store: &Store) -> Result<(), Error> {
        let _one_at_a_time = self.building.lock().unwrap_or_else(PoisonError::into_inner);
        let name = ImageName::host();
        let have = self.find(&name);
        let Some(made) = local.make_host_image(have.as_ref().map(|image| image.id))? else { return Ok(()) };
        fault::reach(Point::ImportFilled);
        let image = ImageEntry {
            id: made.id,
            name: name.clone(),
            source: ImageSource::Builtin,
            config: made.config,
            size: made.size,
            created_at: Timestamp::now(),
        };
        let _unused = self.used.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(old) = have {
            // Its files stay until a restart finds that no one knows them: disks may still read them.
            store.delete_image(&old)?;
        }
        store.insert_image(&image)?;
        fault::reach(Point::ImportCommitted);
        lock(&self.known).insert(name, image);
        Ok(())
    }

    /// Fills a new image from a tar stream, and makes it known.
    pub(crate) fn import(
        &self,
        local: &Local,
        store: &Store,
        name: &ImageName,
        source: (ImageFormat, &mut dyn Read),
    ) -> Result<ImageEntry, Error> {
        let _claim = self.claim(name)?;
        let id = ImageId::from_bits(random_bits());
        let made = local.import(id, source.0, source.1)?;
        fault::reach(Point::ImportFilled);
        let image = ImageEntry {
            id,
            name: name.clone(),
            source: ImageSource::Imported,
            config: made.config,
            size: made.size,
            created_at: Timestamp::now(),
        };
        let recorded = store.insert_image(&image);
        if recorded.is_err() {
            local.remove_image(id)?;
        }
        recorded?;
        fault::reach(Point::ImportCommitted);
        lock(&self.known).insert(name.clone(), image.clone());
        Ok(image)
    }

    /// Forgets an image, then deletes its files.
    pub(crate) fn remove(&self, local: &Local, store: &Store, name: &ImageName) -> Result<(), Error> {
        let _unused = self.used.write().unwrap_or_else(PoisonError::into_inner);
        let image = self.find(name).ok_or_else(|| ErrorKind::NoImage(name.clone()))?;
        if image.source == ImageSource::Builtin {
            return Err(ErrorKind::ImageBuiltIn(name.clone()).into());
        }
        local.check_image_unused(&image)?;
        store.delete_image(&image)?;
        fault::reach(Point::ForgetRecorded);
        lock(&self.known).remove(name);
        // A failure leaves files that no one knows; the next start of the daemon takes them away.
        local.remove_image(image.id)?;
        fault::reach(Point::ForgetRemoved);
        Ok(())
    }

    fn claim(&self, name: &ImageName) -> Result<Claim<'_>, Error> {
        if *name == ImageName::host() {
            return Err(ErrorKind::ImageBuiltIn(name.clone()).into());
        }
        let taken = || Error::from(ErrorKind::ImageExists(name.clone()));
        let mut importing = lock(&self.importing);
        if lock(&self.known).contains_key(name) || !importing.insert(name.clone()) {
            return Err(taken());
        }
        Ok(Claim { images: self, name: name.clone() })
    }
}

/// A name that an import has taken, until it is done.
struct Claim<'a> {
    images: &'a Images,
    name: ImageName,
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        lock(&self.images.importing).remove(&self.name);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
