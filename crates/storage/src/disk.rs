use std::path::{Path, PathBuf};

use garth_spec::{ByteSize, ImageId, ProjectId};

use crate::error::Error;
use crate::pool::Pool;

/// A project's disk.
#[derive(Debug, Clone)]
pub struct Disk {
    pub(crate) pool: Pool,
    pub(crate) project: ProjectId,
    pub(crate) image: ImageId,
    pub(crate) path: PathBuf,
    pub(crate) root: DiskRoot,
}

/// What the runtime joins to make the sandbox's `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskRoot {
    /// The root itself.
    pub root: Root,
    /// An overlay of the machine's own `/usr`, for disks made from the built-in image.
    pub usr: Option<UsrOverlay>,
}

/// The root filesystem of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// A directory, used as it is.
    Directory(PathBuf),
    /// Directories for the kernel's overlayfs.
    Overlay {
        /// The image's files.
        lower: PathBuf,
        /// What the project wrote.
        upper: PathBuf,
        /// The kernel's scratch directory.
        work: PathBuf,
    },
}

/// A writable layer over the machine's own `/usr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsrOverlay {
    /// The machine's `/usr`.
    pub lower: PathBuf,
    /// What the project wrote.
    pub upper: PathBuf,
    /// The kernel's scratch directory.
    pub work: PathBuf,
}

/// What a disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUsage {
    /// Bytes that the project itself wrote and still keeps: what counts against the limit.
    pub used: u64,
    /// The hard limit; `None` where the driver has no quotas.
    pub limit: Option<ByteSize>,
}

impl Disk {
    /// Whose disk it is.
    pub fn project(&self) -> ProjectId {
        self.project
    }

    /// The image it began as.
    pub fn image(&self) -> ImageId {
        self.image
    }

    /// What the runtime mounts as the sandbox's `/`.
    pub fn root(&self) -> &DiskRoot {
        &self.root
    }

    /// The directory on the disk that holds the agent's records; outside the sandbox's `/`, below the same limit.
    pub fn state_dir(&self) -> PathBuf {
        self.path.join(crate::layout::STATE)
    }

    /// Changes the limit; an error of kind `LimitBelowUse` when the disk holds more already.
    pub fn set_limit(&self, limit: ByteSize) -> Result<(), Error> {
        self.pool.set_disk_limit(self, limit)
    }

    /// What the disk holds now. With the overlay driver this walks the whole disk.
    pub fn usage(&self) -> Result<DiskUsage, Error> {
        self.pool.disk_usage(self)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}
