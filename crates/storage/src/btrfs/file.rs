//! The pool file: sparse, as large as the host can back, smaller again when files are deleted.
//!
//! The file's length is what btrfs may use; its blocks are what it has used. The host could run out
//! of blocks below the length, and then writes to a hole fail. Three things stand against that: the
//! length never exceeds what the host can back when it is set; the host keeps a reserve; and the
//! blocks of the trees are allocated, so that what fails is the write of a file's content (an error
//! for that writer), never of a tree (which would make the whole pool read-only).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use garth_kernel::btrfs::{self as kernel, BlockGroupKind};
use garth_kernel::loopdev::LoopDevice;
use rustix::fs::FallocateFlags;

use super::{Space, mount};
use crate::error::{At, Error, ErrorKind};
use crate::pool::{Maintained, PoolOptions};

/// Below this btrfs does not shrink (fs/btrfs/ioctl.c, `btrfs_ioctl_resize`).
const LEAST: u64 = 256 << 20;
/// Lengths are multiples of this, and smaller changes are not worth one.
const STEP: u64 = 64 << 20;
/// Free blocks that stay allocated: giving back and taking again costs both sides.
const SLACK: u64 = 256 << 20;
const HEADROOM: u64 = 16 << 30;
const MOST_RESERVE: u64 = 4 << 30;

#[derive(Debug)]
pub(super) struct PoolFile {
    path: PathBuf,
    reserve: u64,
    headroom: u64,
    /// One change of the length at a time.
    changing: Mutex<()>,
}

impl PoolFile {
    /// Makes the file if there is none, and mounts it.
    pub(super) fn open(data_dir: &Path, root: &Path, options: &PoolOptions) -> Result<Self, Error> {
        let space = Space::of(data_dir).at("measure the host's disk", data_dir)?;
        let pool = Self {
            path: data_dir.join("pool.img"),
            reserve: options.reserve.map_or((space.size / 20).min(MOST_RESERVE), |size| size.bytes()),
            headroom: options.headroom.map_or(HEADROOM, |size| size.bytes()).max(LEAST),
            changing: Mutex::new(()),
        };
        let new = !pool.path.exists();
        if new {
            pool.create(data_dir)?;
        }
        let mounted = mount::ensure(&pool.open_file()?, &pool.path, root);
        if mounted.is_err() && new {
            // It has never held anything; without it the next open may choose again.
            let _ = fs::remove_file(&pool.path);
        }
        mounted?;
        pool.settle(root)?;
        Ok(pool)
    }

    /// Finishes a growth that a crash cut short.
    fn settle(&self, root: &Path) -> Result<(), Error> {
        let file = self.open_file()?;
        let length = file.metadata().at("open pool file", &self.path)?.len();
        let size = Space::of(root).at("measure pool", root)?.size;
        if size + STEP <= length { self.fill_device(&file, root, length) } else { Ok(()) }
    }

    pub(super) fn close(&self, root: &Path) -> Result<(), Error> {
        mount::remove(&self.open_file()?, root)
    }

    pub(super) fn host_usage(&self) -> Result<(u64, u64), Error> {
        Ok((self.allocated()?, self.host_free()?))
    }

    /// Refuses when the host's reserve is half gone; grows when the pool runs low.
    pub(super) fn make_room(&self, root: &Path) -> Result<(), Error> {
        if self.host_free()? < self.reserve / 2 {
            return Err(Error::new(ErrorKind::NoSpace, "take space: the host's disk is full", &self.path));
        }
        self.grow(root).map(drop)
    }

    pub(super) fn maintain(&self, root: &Path) -> Result<Maintained, Error> {
        let given_back = self.give_back(root)?;
        let grown = if self.host_free()? < self.reserve / 2 {
            self.fence(root)?;
            0
        } else {
            self.grow(root)?
        };
        self.back_trees(root)?;
        Ok(Maintained { grown, given_back })
    }

    /// Punches holes where btrfs has freed blocks.
    fn give_back(&self, root: &Path) -> Result<u64, Error> {
        let dir = super::open(root)?;
        let before = self.allocated()?;
        let used = Space::of(root).at("measure pool", root)?.used;
        let slack = SLACK.max(used / 4);
        if before <= used + slack {
            return Ok(0);
        }
        kernel::sync(dir.as_fd()).at("give space back", root)?;
        kernel::trim(dir.as_fd()).at("give space back", root)?;
        Ok(before.saturating_sub(self.allocated()?))
    }

    /// Makes the file longer when less than half of the headroom is free and the host can back it.
    fn grow(&self, root: &Path) -> Result<u64, Error> {
        let space = Space::of(root).at("measure pool", root)?;
        if space.free >= self.headroom / 2 {
            return Ok(0);
        }
        let _one = self.changing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let file = self.open_file()?;
        let length = file.metadata().at("grow pool", &self.path)?.len();
        let wanted = (space.used + self.headroom).next_multiple_of(STEP);
        let possible = self.allocated()? + self.host_free()?.saturating_sub(self.reserve);
        let target = wanted.min(possible) / STEP * STEP;
        if target < length + STEP {
            return Ok(0);
        }
        file.set_len(target).at("grow pool", &self.path)?;
        self.fill_device(&file, root, target)?;
        Ok(target - length)
    }

    /// The host is nearly full: what btrfs has not taken yet it shall not take.
    fn fence(&self, root: &Path) -> Result<(), Error> {
        let _one = self.changing.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let dir = super::open(root)?;
        let chunks = kernel::chunks(dir.as_fd()).at("shrink pool", root)?;
        let taken = chunks.iter().map(|chunk| chunk.start + chunk.length).max().unwrap_or_default();
        let file = self.open_file()?;
        let length = file.metadata().at("shrink pool", &self.path)?.len();
        let target = taken.max(LEAST).next_multiple_of(STEP);
        if target + STEP > length {
            return Ok(());
        }
        kernel::resize(dir.as_fd(), target).at("shrink pool", root)?;
        file.set_len(target).at("shrink pool", &self.path)?;
        self.device(&file)?.refresh_capacity().at("shrink pool", &self.path)
    }

    /// Allocates the blocks of the trees. Best effort: a host that cannot is no reason to stop.
    fn back_trees(&self, root: &Path) -> Result<(), Error> {
        let dir = super::open(root)?;
        let file = self.open_file()?;
        for chunk in kernel::chunks(dir.as_fd()).at("read chunks", root)? {
            if chunk.kind == BlockGroupKind::Metadata {
                let _ = rustix::fs::fallocate(&file, FallocateFlags::KEEP_SIZE, chunk.start, chunk.length);
            }
        }
        Ok(())
    }

    /// After the file grew: the device, then the filesystem. Repeated harmlessly after a crash in between.
    fn fill_device(&self, file: &File, root: &Path, length: u64) -> Result<(), Error> {
        self.device(file)?.refresh_capacity().at("grow pool", &self.path)?;
        let dir = super::open(root)?;
        kernel::resize(dir.as_fd(), length).at("grow pool", root)
    }

    fn create(&self, data_dir: &Path) -> Result<(), Error> {
        let room = Space::of(data_dir).at("measure the host's disk", data_dir)?.free.saturating_sub(self.reserve);
        let length = self.headroom.min(room) / STEP * STEP;
        if length < LEAST {
            return Err(Error::new(ErrorKind::NoSpace, "make pool: the host's disk is full", &self.path));
        }
        let draft = data_dir.join("pool.img.draft");
        let made = make_file(&draft, length).and_then(|()| {
            fs::rename(&draft, &self.path).at("make pool", &self.path)?;
            File::open(data_dir).and_then(|dir| dir.sync_all()).at("make pool", data_dir)
        });
        made.inspect_err(|_| {
            let _ = fs::remove_file(&draft);
        })
    }

    fn open_file(&self) -> Result<File, Error> {
        OpenOptions::new().read(true).write(true).open(&self.path).at("open pool file", &self.path)
    }

    fn device(&self, file: &File) -> Result<LoopDevice, Error> {
        let found = LoopDevice::find(file.as_fd()).at("find loop device", &self.path)?;
        found.ok_or_else(|| Error::new(ErrorKind::Corrupt, "find loop device: the pool is not mounted", &self.path))
    }

    fn allocated(&self) -> Result<u64, Error> {
        Ok(fs::metadata(&self.path).at("measure pool", &self.path)?.blocks() * 512)
    }

    fn host_free(&self) -> Result<u64, Error> {
        Ok(Space::of(&self.path).at("measure the host's disk", &self.path)?.free)
    }
}

fn make_file(draft: &Path, length: u64) -> Result<(), Error> {
    match fs::remove_file(draft) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        other => other.at("make pool", draft)?,
    }
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(draft);
    let file = file.at("make pool", draft)?;
    file.set_len(length).at("make pool", draft)?;
    format(draft)?;
    file.sync_all().at("make pool", draft)
}

/// One copy of the trees: a second one on the same disk of the host protects from little and is written each time.
fn format(draft: &Path) -> Result<(), Error> {
    const PROGRAM: &str = "mkfs.btrfs";
    let arguments = ["--quiet", "--nodiscard", "--metadata", "single", "--data", "single", "--label", "garth"];
    let output = Command::new(PROGRAM).args(arguments).arg(draft).stdin(Stdio::null()).output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let kind = ErrorKind::ProgramMissing { program: PROGRAM, package: "btrfs-progs" };
            return Err(Error::new(kind, "make pool", draft));
        }
        other => other.at("make pool", draft)?,
    };
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::new(ErrorKind::ProgramFailed { program: PROGRAM, output }, "make pool", draft))
}
