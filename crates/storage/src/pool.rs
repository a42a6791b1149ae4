use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use garth_spec::{ByteSize, ImageId, ProjectId};

use crate::btrfs::Btrfs;
use crate::disk::{Disk, DiskUsage};
use crate::error::{At, Error, ErrorKind};
use crate::image::{Image, ImageDraft, ImageMeta, Record, finish_skeleton, make_skeleton, read_record};
use crate::layout::Layout;
use crate::overlay::Overlay;

/// How a pool is to be opened.
#[derive(Debug, Clone, Default)]
pub struct PoolOptions {
    /// The driver, or `Auto` to take the best that works here.
    pub driver: DriverChoice,
    /// Bytes of the host's filesystem that the pool leaves free; by default a twentieth, at most 4 GiB.
    pub reserve: Option<ByteSize>,
    /// Bytes the pool file may be ahead of what is used; by default 16 GiB. Costs nothing until it is written.
    pub headroom: Option<ByteSize>,
}

/// Which driver is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DriverChoice {
    /// The one the pool was made with; for a new pool btrfs, and overlay where the machine lacks btrfs.
    #[default]
    Auto,
    /// btrfs, or an error.
    Btrfs,
    /// overlay, or an error.
    Overlay,
}

/// Which driver runs a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Driver {
    /// Subvolumes, snapshots, hard quotas.
    Btrfs,
    /// Directories and overlayfs; no quotas.
    Overlay,
}

/// What a sweep removed, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Images and disks that were half-made or half-deleted.
    pub drafts: Vec<String>,
}

/// What maintenance did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Maintained {
    /// Bytes the pool grew by.
    pub grown: u64,
    /// Bytes given back to the host.
    pub given_back: u64,
}

/// How full the pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolUsage {
    /// Bytes the pool holds.
    pub used: u64,
    /// Bytes it could hold now, without growing.
    pub size: u64,
    /// Bytes it takes from the host's filesystem.
    pub on_host: u64,
    /// Bytes free on the host's filesystem.
    pub host_free: u64,
}

/// The place where images and disks live. Clones are the same pool.
///
/// Needs root. All calls block; none needs more than one thread, and calls on different ids may run at
/// once. Two calls on one id at once are the caller's mistake: the engine has one queue per project.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    backing: Backing,
    warnings: Vec<String>,
}

#[derive(Debug)]
enum Backing {
    Btrfs(Btrfs),
    Overlay(Overlay),
}

impl Pool {
    /// Opens the pool of a data directory, making it if there is none, and finds it again after a
    /// crash or a reboot. The caller holds the data directory's lock.
    pub fn open(data_dir: &Path, options: &PoolOptions) -> Result<Self, Error> {
        let root = data_dir.join("pool");
        make_private_dir(&root)?;
        let mut warnings = Vec::new();
        let backing = match choose(data_dir, &root, options.driver)? {
            Chosen::Overlay => Backing::Overlay(Overlay),
            Chosen::Btrfs => Backing::Btrfs(Btrfs::open(data_dir, &root, options)?),
            Chosen::BtrfsIfThere => match Btrfs::open(data_dir, &root, options) {
                Ok(btrfs) => Backing::Btrfs(btrfs),
                Err(error) if error.is_missing_feature() => {
                    warnings.push(format!("quotas and instant snapshots are off, the overlay driver is used: {error}"));
                    Backing::Overlay(Overlay)
                }
                Err(error) => return Err(error),
            },
        };
        if matches!(backing, Backing::Overlay(_)) {
            warnings.push("the overlay driver has no quotas: a project can fill the host's disk".to_owned());
        }
        let layout = Layout::new(root);
        for dir in [layout.root().to_owned(), layout.images(), layout.disks(), layout.drafts(), layout.spares()] {
            make_private_dir(&dir)?;
        }
        let pool = Self { inner: Arc::new(Inner { layout, backing, warnings }) };
        pool.remember_driver()?;
        Ok(pool)
    }

    /// The driver that runs this pool.
    pub fn driver(&self) -> Driver {
        match self.inner.backing {
            Backing::Btrfs(_) => Driver::Btrfs,
            Backing::Overlay(_) => Driver::Overlay,
        }
    }

    /// What the user should know: features that are off here, and why.
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// Major and minor number of the disk that the pool is on; `None` where it is on several, or on none of its own.
    pub fn device(&self) -> Result<Option<(u32, u32)>, Error> {
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.device(),
            Backing::Overlay(_) => Ok(None),
        }
    }

    /// Unmounts the pool and detaches its loop device; an error of kind `Busy` when sandboxes use it.
    /// Without this the pool stays mounted and the next [`Pool::open`] finds it.
    pub fn close(&self) -> Result<(), Error> {
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.close(),
            Backing::Overlay(_) => Ok(()),
        }
    }

    /// Begins an image. An older draft of the same id is discarded.
    pub fn new_image(&self, id: ImageId) -> Result<ImageDraft, Error> {
        if self.layout().image(id).exists() {
            return Err(Error::new(ErrorKind::ImageExists(id), "begin image", &self.layout().image(id)));
        }
        let path = self.layout().image_draft(id);
        self.remove_tree(&path)?;
        let draft = ImageDraft::new(self.clone(), id, path.clone());
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => {
                btrfs.make_room()?;
                btrfs.make_subvolume(&path)?;
            }
            Backing::Overlay(_) => make_private_dir(&path)?,
        }
        make_skeleton(&path).at("begin image", &path)?;
        Ok(draft)
    }

    /// Every image, in no order. One whose record is damaged is an error.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        ids(&self.layout().images())?.into_iter().filter_map(|id| self.image(id).transpose()).collect()
    }

    /// The image with this id, if there is one.
    pub fn image(&self, id: ImageId) -> Result<Option<Image>, Error> {
        let path = self.layout().image(id);
        match read_record(&path) {
            Ok(record) => Ok(Some(Image { id, meta: record.meta, path })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).at("read image record", &path),
        }
    }

    /// Deletes an image; fine when there is none.
    pub fn remove_image(&self, id: ImageId) -> Result<(), Error> {
        let path = self.layout().image(id);
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.remove_image(&path),
            Backing::Overlay(_) => {
                self.refuse_if_used(id)?;
                self.discard(&path, &format!("image-{id}"))
            }
        }
    }

    /// Makes a project's disk from an image, with a hard limit where the driver has quotas. Durable when
    /// this returns.
    pub fn create_disk(&self, project: ProjectId, image: ImageId, limit: ByteSize) -> Result<Disk, Error> {
        self.make_disk(project, image, limit, Lasting::Now)
    }

    /// As [`create_disk`](Self::create_disk), in a fraction of the time: a power cut within the next half
    /// minute may undo it. For ephemeral projects.
    pub fn create_scratch_disk(&self, project: ProjectId, image: ImageId, limit: ByteSize) -> Result<Disk, Error> {
        self.make_disk(project, image, limit, Lasting::Soon)
    }

    fn make_disk(&self, project: ProjectId, image: ImageId, limit: ByteSize, lasting: Lasting) -> Result<Disk, Error> {
        let path = self.layout().disk(project);
        if path.exists() {
            return Err(Error::new(ErrorKind::DiskExists(project), "create disk", &path));
        }
        let Some(image) = self.image(image)? else {
            return Err(Error::new(ErrorKind::ImageMissing(image), "create disk", &self.layout().image(image)));
        };
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.make_disk(project, &image, limit, lasting)?,
            Backing::Overlay(overlay) => {
                let draft = self.layout().disk_draft(project);
                self.remove_tree(&draft)?;
                overlay.make_disk(&image, &draft).at("create disk", &draft).inspect_err(|_| {
                    let _ = self.remove_tree(&draft);
                })?;
                fs::rename(&draft, &path).at("create disk", &path)?;
                sync_dir(&self.layout().disks())?;
            }
        }
        self.disk_at(project, path)?
            .ok_or_else(|| Error::new(ErrorKind::DiskMissing(project), "create disk", &PathBuf::new()))
    }

    /// Puts an empty tree in the place of the project's, in one step: its files are elsewhere.
    ///
    /// # Errors
    /// [`ErrorKind::NeedsBtrfs`] on a pool without.
    pub fn empty_disk(&self, disk: &Disk, limit: ByteSize) -> Result<Disk, Error> {
        let Backing::Btrfs(btrfs) = &self.inner.backing else {
            return Err(Error::new(ErrorKind::NeedsBtrfs, "empty disk", disk.path()));
        };
        btrfs.empty_disk(disk, limit)?;
        Ok(disk.clone())
    }

    /// Refuses when the host's disk is all but full.
    pub(crate) fn make_room(&self) -> Result<(), Error> {
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.make_room(),
            Backing::Overlay(_) => Ok(()),
        }
    }

    /// The project's disk, if it has one.
    pub fn disk(&self, project: ProjectId) -> Result<Option<Disk>, Error> {
        self.disk_at(project, self.layout().disk(project))
    }

    /// The projects that have a disk, in no order.
    pub fn disks(&self) -> Result<Vec<ProjectId>, Error> {
        ids(&self.layout().disks())
    }

    /// Deletes a project's disk; fine when it has none.
    pub fn remove_disk(&self, project: ProjectId) -> Result<(), Error> {
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.remove_disk(project),
            Backing::Overlay(_) => self.discard(&self.layout().disk(project), &format!("disk-{project}")),
        }
    }

    /// How full the pool is.
    pub fn usage(&self) -> Result<PoolUsage, Error> {
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.usage(),
            Backing::Overlay(overlay) => overlay.pool_usage(self.layout().root()),
        }
    }

    /// Grows the pool when it gets full, gives freed space back to the host, and clears the records of
    /// deleted disks. To be called on a timer while sandboxes run and after deletions; cheap when there
    /// is nothing to do.
    pub fn maintain(&self) -> Result<Maintained, Error> {
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.maintain(),
            Backing::Overlay(_) => Ok(Maintained::default()),
        }
    }

    /// Removes what a crash left half-made or half-deleted. To be called once after opening, before
    /// anything else uses the pool.
    pub fn sweep(&self) -> Result<Swept, Error> {
        let drafts = self.layout().drafts();
        let mut swept = Swept::default();
        for entry in fs::read_dir(&drafts).at("sweep", &drafts)? {
            let entry = entry.at("sweep", &drafts)?;
            self.remove_tree(&entry.path())?;
            swept.drafts.push(entry.file_name().to_string_lossy().into_owned());
        }
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.sweep()?,
            Backing::Overlay(_) => {}
        }
        Ok(swept)
    }

    pub(crate) fn commit_image(&self, id: ImageId, draft: &Path, meta: ImageMeta) -> Result<Image, Error> {
        let path = self.layout().image(id);
        finish_skeleton(draft, &Record { id, meta: meta.clone() }).at("write image record", draft)?;
        let dir = fs::File::open(draft).at("sync image", draft)?;
        rustix::fs::syncfs(&dir).at("sync image", draft)?;
        fs::rename(draft, &path).at("publish image", &path)?;
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.seal(&path)?,
            Backing::Overlay(_) => sync_dir(&self.layout().images())?,
        }
        Ok(Image { id, meta, path })
    }

    pub(crate) fn set_disk_limit(&self, disk: &Disk, limit: ByteSize) -> Result<(), Error> {
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.set_limit(disk, limit),
            Backing::Overlay(_) => {
                let used = self.disk_usage(disk)?.used;
                if used > limit.bytes() {
                    return Err(Error::new(ErrorKind::LimitBelowUse { used, limit }, "set disk limit", disk.path()));
                }
                Ok(())
            }
        }
    }

    pub(crate) fn disk_usage(&self, disk: &Disk) -> Result<DiskUsage, Error> {
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.disk_usage(disk),
            Backing::Overlay(overlay) => overlay.disk_usage(disk.path()).at("measure disk", disk.path()),
        }
    }

    /// Removes a draft or a doomed tree; fine when there is none.
    pub(crate) fn remove_tree(&self, path: &Path) -> Result<(), Error> {
        match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.remove_tree(path),
            Backing::Overlay(_) => crate::removal::remove_tree(path).at("remove", path),
        }
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    fn disk_at(&self, project: ProjectId, path: PathBuf) -> Result<Option<Disk>, Error> {
        let record = match read_record(&path) {
            Ok(record) => record,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).at("read disk record", &path),
        };
        let root = match &self.inner.backing {
            Backing::Btrfs(btrfs) => btrfs.disk_root(&path, &record.meta),
            Backing::Overlay(overlay) => overlay.disk_root(&path, &self.layout().image(record.id), &record.meta),
        };
        Ok(Some(Disk { pool: self.clone(), project, image: record.id, path, root }))
    }

    fn remember_driver(&self) -> Result<(), Error> {
        let path = self.layout().driver();
        let text = match self.driver() {
            Driver::Btrfs => "btrfs",
            Driver::Overlay => "overlay",
        };
        if fs::read_to_string(&path).is_ok_and(|known| known == text) {
            return Ok(());
        }
        fs::write(&path, text).at("remember driver", &path)
    }

    /// Takes a tree out of sight in one step, then deletes it.
    pub(crate) fn discard(&self, path: &Path, name: &str) -> Result<(), Error> {
        let doomed = self.layout().doomed(name);
        self.remove_tree(&doomed)?;
        match fs::rename(path, &doomed) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other.at("remove", path)?,
        }
        self.remove_tree(&doomed)
    }

    fn refuse_if_used(&self, id: ImageId) -> Result<(), Error> {
        for project in self.disks()? {
            if self.disk(project)?.is_some_and(|disk| disk.image == id) {
                return Err(Error::new(ErrorKind::ImageInUse(id, project), "remove image", &self.layout().image(id)));
            }
        }
        Ok(())
    }
}

/// When a change must have reached the disk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lasting {
    /// Before the call returns.
    Now,
    /// With the kernel's next commit.
    Soon,
}

/// What is to be tried.
enum Chosen {
    Btrfs,
    BtrfsIfThere,
    Overlay,
}

/// A pool keeps the driver it was made with: with another one its projects would seem gone.
fn choose(data_dir: &Path, root: &Path, choice: DriverChoice) -> Result<Chosen, Error> {
    let known = if data_dir.join("pool.img").exists() {
        Some(Driver::Btrfs)
    } else {
        match fs::read_to_string(Layout::new(root.to_owned()).driver()) {
            Ok(text) if text == "btrfs" => Some(Driver::Btrfs),
            Ok(text) if text == "overlay" => Some(Driver::Overlay),
            Ok(_) => return Err(Error::new(ErrorKind::Corrupt, "read the pool's driver", root)),
            Err(_) => None,
        }
    };
    match (known, choice) {
        (Some(Driver::Btrfs), DriverChoice::Overlay) => {
            Err(Error::new(ErrorKind::OtherDriver("btrfs"), "open pool", root))
        }
        (Some(Driver::Overlay), DriverChoice::Btrfs) => {
            Err(Error::new(ErrorKind::OtherDriver("overlay"), "open pool", root))
        }
        (Some(Driver::Btrfs), _) | (None, DriverChoice::Btrfs) => Ok(Chosen::Btrfs),
        (Some(Driver::Overlay), _) | (None, DriverChoice::Overlay) => Ok(Chosen::Overlay),
        (None, DriverChoice::Auto) => Ok(Chosen::BtrfsIfThere),
    }
}

/// A directory that only root can enter: images hold set-user-id programs that users of the host must not reach.
pub(crate) fn make_private_dir(path: &Path) -> Result<(), Error> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        other => other.at("make directory", path)?,
    }
    // A filesystem that was just made has an open top directory.
    if fs::metadata(path).at("make directory", path)?.mode() & 0o7777 != 0o700 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).at("make directory", path)?;
    }
    Ok(())
}

pub(crate) fn sync_dir(path: &Path) -> Result<(), Error> {
    fs::File::open(path).and_then(|dir| dir.sync_all()).at("sync directory", path)
}

/// The names in a directory that are ids; what else is there is none of ours.
pub(crate) fn ids<T: std::str::FromStr>(dir: &Path) -> Result<Vec<T>, Error> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).at("list", dir)? {
        found.extend(entry.at("list", dir)?.file_name().to_str().and_then(|name| name.parse().ok()));
    }
    Ok(found)
}
