//! Names inside the pool. Ids are 16 hexadecimal digits, so none can name anything else.

use std::path::{Path, PathBuf};

use garth_spec::{ImageId, ProjectId};

/// An image's or disk's own record.
pub(crate) const RECORD: &str = "image.json";
/// The files of the sandbox's `/`.
pub(crate) const ROOTFS: &str = "rootfs";
/// An importer's files, gone before an image is visible.
pub(crate) const SCRATCH: &str = "scratch";
/// The agent's records: kept output of processes.
pub(crate) const STATE: &str = "state";
/// The writable layer over the host's `/usr`.
pub(crate) const USR: &str = "usr";
/// Overlay: what was written.
pub(crate) const UPPER: &str = "upper";
/// Overlay: the kernel's scratch directory.
pub(crate) const WORK: &str = "work";

/// Where things are in a pool.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    pub(crate) fn disks(&self) -> PathBuf {
        self.root.join("disks")
    }

    /// Snapshots made ahead (btrfs).
    pub(crate) fn spares(&self) -> PathBuf {
        self.root.join("spares")
    }

    pub(crate) fn drafts(&self) -> PathBuf {
        self.root.join("drafts")
    }

    /// The file that says which driver made the pool.
    pub(crate) fn driver(&self) -> PathBuf {
        self.root.join("driver")
    }

    pub(crate) fn image(&self, id: ImageId) -> PathBuf {
        self.images().join(id.to_string())
    }

    pub(crate) fn disk(&self, id: ProjectId) -> PathBuf {
        self.disks().join(id.to_string())
    }

    pub(crate) fn image_draft(&self, id: ImageId) -> PathBuf {
        self.drafts().join(format!("image-{id}"))
    }

    pub(crate) fn disk_draft(&self, id: ProjectId) -> PathBuf {
        self.drafts().join(format!("disk-{id}"))
    }

    /// Disks in guest form.
    pub(crate) fn guests(&self) -> PathBuf {
        self.root.join("guests")
    }

    pub(crate) fn guest(&self, id: ProjectId) -> PathBuf {
        self.guests().join(id.to_string())
    }

    pub(crate) fn guest_draft(&self, id: ProjectId) -> PathBuf {
        self.drafts().join(format!("guest-draft-{id}"))
    }

    /// Where a tree that is to be deleted waits; outside of every list at once.
    pub(crate) fn doomed(&self, name: &str) -> PathBuf {
        self.drafts().join(format!("gone-{name}"))
    }
}
