//! A project's disk in the form that a kernel of its own mounts: one sparse file of ext4, which this host never mounts.
//!
//! ```text
//!  guests/ID/disk.ext4   /rootfs  /state  /usr/{upper,work}     as in a disk's tree
//!  guests/ID/memory/     what a paused machine had in memory
//! ```
//!
//! Its size is the limit: what the guest frees is given back to the host as holes. Made without a mount: `mke2fs -d`
//! reads the tree.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use garth_spec::{ByteSize, ProjectId};

use crate::disk::{Disk, DiskUsage};
use crate::error::{At, Error, ErrorKind};
use crate::layout::{ROOTFS, STATE, UPPER, USR, WORK};
use crate::pool::{Driver, Pool, make_private_dir, sync_dir};

const FILE: &str = "disk.ext4";
const MEMORY: &str = "memory";
const MKFS: &str = "mke2fs";

/// What a new guest disk holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestContents {
    /// What the project's tree holds, which nothing uses meanwhile.
    Tree,
    /// Empty directories.
    Nothing,
}

/// A project's disk in guest form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestDisk {
    directory: PathBuf,
}

impl GuestDisk {
    /// The ext4 file. Whoever runs the guest may write to it: never trust what is in it.
    pub fn file(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// Where the memory of a paused guest is kept.
    pub fn memory(&self) -> PathBuf {
        self.directory.join(MEMORY)
    }

    /// What it holds, its size as the limit.
    pub fn usage(&self) -> Result<DiskUsage, Error> {
        let file = self.file();
        let meta = fs::metadata(&file).at("measure guest disk", &file)?;
        Ok(DiskUsage { used: meta.blocks() * 512, limit: ByteSize::from_bytes(meta.len()).ok() })
    }

    /// Makes it larger; the guest's filesystem grows when it is told.
    ///
    /// # Errors
    /// [`ErrorKind::LimitBelowUse`] for a smaller size: what is where in the file only the guest knows.
    pub fn grow(&self, limit: ByteSize) -> Result<(), Error> {
        let path = self.file();
        let file = File::options().write(true).open(&path).at("grow guest disk", &path)?;
        let size = file.metadata().at("grow guest disk", &path)?.len();
        if limit.bytes() < size {
            return Err(Error::new(ErrorKind::LimitBelowUse { used: size, limit }, "shrink guest disk", &path));
        }
        file.set_len(limit.bytes()).and_then(|()| file.sync_all()).at("grow guest disk", &path)
    }

    /// Deletes the memory of a guest; fine when there is none.
    pub fn forget_memory(&self) -> Result<(), Error> {
        crate::removal::remove_tree(&self.memory()).at("remove a guest's memory", &self.memory())
    }
}

/// A disk in guest form that is not the project's yet; gone when dropped.
#[derive(Debug)]
pub struct GuestDraft {
    pool: Pool,
    project: ProjectId,
    disk: GuestDisk,
    done: bool,
}

impl GuestDraft {
    /// The disk, where it is now: a machine that has it open keeps it when it is published.
    pub fn disk(&self) -> &GuestDisk {
        &self.disk
    }

    /// Makes it the project's, in place of an older one, in one step that is durable when this returns.
    pub fn publish(mut self) -> Result<GuestDisk, Error> {
        self.pool.publish_guest(&self.disk.directory, self.project)?;
        self.done = true;
        Ok(GuestDisk { directory: self.pool.layout().guest(self.project) })
    }
}

impl Drop for GuestDraft {
    fn drop(&mut self) {
        if !self.done {
            // What cannot be removed now is removed by the next sweep.
            let _ = self.pool.remove_tree(&self.disk.directory);
        }
    }
}

impl Pool {
    /// The project's disk in guest form, if there is one.
    pub fn guest_disk(&self, project: ProjectId) -> Option<GuestDisk> {
        let disk = GuestDisk { directory: self.layout().guest(project) };
        disk.file().is_file().then_some(disk)
    }

    /// The projects that have one, in no order.
    pub fn guest_disks(&self) -> Result<Vec<ProjectId>, Error> {
        match crate::pool::ids(&self.layout().guests()) {
            Err(error) if *error.kind() == ErrorKind::Io && !self.layout().guests().exists() => Ok(Vec::new()),
            found => found,
        }
    }

    /// Makes the project's disk in guest form, out of sight until it is published.
    ///
    /// # Errors
    /// [`ErrorKind::NeedsBtrfs`] on a pool without; [`ErrorKind::ProgramMissing`] without e2fsprogs.
    pub fn draft_guest_disk(&self, disk: &Disk, size: ByteSize, contents: GuestContents) -> Result<GuestDraft, Error> {
        if self.driver() != Driver::Btrfs {
            return Err(Error::new(ErrorKind::NeedsBtrfs, "make guest disk", self.layout().root()));
        }
        self.make_room()?;
        make_private_dir(&self.layout().guests())?;
        let draft = self.layout().guest_draft(disk.project());
        self.remove_tree(&draft)?;
        make_private_dir(&draft)?;
        let made = GuestDraft {
            pool: self.clone(),
            project: disk.project(),
            disk: GuestDisk { directory: draft },
            done: false,
        };
        match contents {
            GuestContents::Tree => fill(&made.disk.file(), size, disk.path())?,
            GuestContents::Nothing => make_empty(&made.disk.directory, size)?,
        }
        Ok(made)
    }

    fn publish_guest(&self, draft: &Path, project: ProjectId) -> Result<(), Error> {
        let path = self.layout().guest(project);
        self.remove_guest_disk(project)?;
        fs::rename(draft, &path).at("publish guest disk", &path)?;
        sync_dir(&self.layout().guests())
    }

    /// Deletes the project's disk in guest form, with what memory is beside it; fine when there is none.
    pub fn remove_guest_disk(&self, project: ProjectId) -> Result<(), Error> {
        self.discard(&self.layout().guest(project), &format!("guest-{project}"))
    }
}

fn make_empty(draft: &Path, size: ByteSize) -> Result<(), Error> {
    let tree = draft.join("tree");
    for directory in [ROOTFS, STATE, &format!("{USR}/{UPPER}"), &format!("{USR}/{WORK}")] {
        fs::create_dir_all(tree.join(directory)).at("make guest disk", &tree)?;
    }
    fill(&draft.join(FILE), size, &tree)?;
    crate::removal::remove_tree(&tree).at("make guest disk", &tree)
}

/// mke2fs(8). A guest may freeze its clock and its disk: no checks by count or date. No blocks are reserved for root,
/// who is the user here.
fn fill(file: &Path, size: ByteSize, tree: &Path) -> Result<(), Error> {
    File::create_new(file).and_then(|file| file.set_len(size.bytes())).at("make guest disk", file)?;
    let options = ["-q", "-F", "-t", "ext4", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,root_owner=0:0"];
    let output = Command::new(MKFS).args(options).arg("-d").arg(tree).arg(file).stdin(Stdio::null()).output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let kind = ErrorKind::ProgramMissing { program: MKFS, package: "e2fsprogs" };
            return Err(Error::new(kind, "make guest disk", file));
        }
        output => output.at("make guest disk", file)?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let full = said.contains("No space left") || said.contains("Could not allocate block");
        let failed = ErrorKind::ProgramFailed { program: MKFS, output: said };
        return Err(Error::new(if full { ErrorKind::NoSpace } else { failed }, "make guest disk", file));
    }
    File::open(file).and_then(|file| file.sync_all()).at("make guest disk", file)
}
