//! The btrfs driver: an image is a read-only subvolume, a disk a writable snapshot with a hard quota.
//!
//! ```text
//!  DATA_DIR/pool.img --loop--> DATA_DIR/pool/        (or a plain directory, where DATA_DIR is on btrfs)
//!                                images/ID/          read-only subvolume: rootfs/ state/ image.json [usr/]
//!                                disks/ID/           snapshot of one; in group 103/<48 bits of ID>, which has the limit
//!                                drafts/             nothing that is whole
//! ```
//!
//! No descriptor of the mounted filesystem is kept: one would keep the pool from being unmounted.

mod disks;
mod file;
mod groups;
mod mount;
mod spares;

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use garth_kernel::btrfs::{self as kernel, Access};
use rustix::io::Errno;

use crate::error::{At, Error, ErrorKind};
use crate::layout::Layout;
use crate::pool::{Maintained, PoolOptions, PoolUsage};
use file::PoolFile;
use groups::Groups;
use spares::Spares;

#[derive(Debug)]
pub(crate) struct Btrfs {
    layout: Layout,
    groups: Groups,
    /// `None` when the data directory itself is on btrfs.
    file: Option<PoolFile>,
    spares: Spares,
}

/// The thread that makes spares ends with the pool.
impl Drop for Btrfs {
    fn drop(&mut self) {
        self.spares.stop();
    }
}

impl Btrfs {
    /// Makes or finds the filesystem below `root` and turns quotas on.
    pub(crate) fn open(data_dir: &Path, root: &Path, options: &PoolOptions) -> Result<Self, Error> {
        if !garth_kernel::namespace::has_machines_users().at("open pool", root)? {
            return Err(Error::new(ErrorKind::InUserNamespace, "open pool", root));
        }
        let native = is_on_btrfs(data_dir)?;
        let file = if native { None } else { Some(PoolFile::open(data_dir, root, options)?) };
        let groups = Groups::open(root).inspect_err(|_| {
            if let Some(file) = &file {
                let _ = file.close(root);
            }
        })?;
        Ok(Self { layout: Layout::new(root.to_owned()), groups, file, spares: Spares::default() })
    }

    /// Unmounts and detaches the pool file; nothing to do without one.
    pub(crate) fn close(&self) -> Result<(), Error> {
        self.drop_spares();
        let closed = self.file.as_ref().map_or(Ok(()), |file| file.close(self.layout.root()));
        if closed.is_err() {
            self.spares.resume();
        }
        closed
    }

    /// The one disk that the filesystem is on, whole: the kernel counts by disks and not by their partitions.
    pub(crate) fn device(&self) -> Result<Option<(u32, u32)>, Error> {
        let root = self.layout.root();
        let fs = kernel::fs_id(open(root)?.as_fd()).at("look at the pool's disk", root)?;
        let devices = Path::new("/sys/fs/btrfs").join(fs.to_string()).join("devices");
        let found: Result<Vec<_>, _> = std::fs::read_dir(&devices).and_then(Iterator::collect);
        let found = found.at("look at the pool's disk", &devices)?;
        let [device] = found.as_slice() else { return Ok(None) };
        let at = std::fs::canonicalize(device.path()).at("look at the pool's disk", &devices)?;
        let whole = if at.join("partition").exists() { at.parent().unwrap_or(&at) } else { &at };
        let numbers = std::fs::read_to_string(whole.join("dev")).at("look at the pool's disk", whole)?;
        Ok(numbers.trim().split_once(':').and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?))))
    }

    /// Makes an empty subvolume.
    pub(crate) fn make_subvolume(&self, path: &Path) -> Result<(), Error> {
        let (parent, name) = open_parent(path)?;
        kernel::create_subvolume(parent.as_fd(), name).at("make subvolume", path)
    }

    /// After the rename that published an image: nothing changes it any more, not even by mistake.
    pub(crate) fn seal(&self, path: &Path) -> Result<(), Error> {
        let dir = open(path)?;
        kernel::set_access(dir.as_fd(), Access::ReadOnly).at("seal image", path)?;
        kernel::sync(dir.as_fd()).at("sync image", path)
    }

    /// Deletes a subvolume and all inside it, or a plain directory; fine when there is none.
    pub(crate) fn remove_tree(&self, path: &Path) -> Result<(), Error> {
        disks::remove_tree(path).at("remove", path)
    }

    /// Deletes an image; disks made from it do not notice.
    pub(crate) fn remove_image(&self, path: &Path) -> Result<(), Error> {
        self.drop_spares();
        self.spares.resume();
        self.remove_tree(path)
    }

    pub(crate) fn usage(&self) -> Result<PoolUsage, Error> {
        let root = self.layout.root();
        let stat = Space::of(root).at("measure pool", root)?;
        let (on_host, host_free) = match &self.file {
            None => (stat.used, stat.free),
            Some(file) => file.host_usage()?,
        };
        Ok(PoolUsage { used: stat.used, size: stat.size, on_host, host_free })
    }

    /// Refuses when the host's disk is all but full; grows the pool when it is.
    pub(crate) fn make_room(&self) -> Result<(), Error> {
        self.file.as_ref().map_or(Ok(()), |file| file.make_room(self.layout.root()))
    }

    pub(crate) fn maintain(&self) -> Result<Maintained, Error> {
        let root = self.layout.root();
        let Some(file) = &self.file else { return Ok(Maintained::default()) };
        self.groups.reap_all(root).at("clear quota groups", root)?;
        file.maintain(root)
    }

    /// After the drafts are gone: so are spares, quota groups without a disk go, images that a crash left
    /// writable are sealed.
    pub(crate) fn sweep(&self) -> Result<(), Error> {
        let root = self.layout.root();
        self.drop_spares();
        self.spares.resume();
        disks::remove_all_in(&self.layout.spares()).at("remove spares", root)?;
        self.groups.reap(root).at("clear quota groups", root)?;
        for image in crate::pool::ids(&self.layout.images())? {
            let path = self.layout.image(image);
            let dir = open(&path)?;
            kernel::set_access(dir.as_fd(), Access::ReadOnly).at("seal image", &path)?;
        }
        Ok(())
    }
}

impl Btrfs {
    /// A spare that stays is removed by the next sweep.
    fn drop_spares(&self) {
        for spare in self.spares.stop() {
            let _ = disks::remove_disk_at(&self.groups, &spare);
        }
    }
}

/// The filesystem's own numbers.
struct Space {
    size: u64,
    used: u64,
    free: u64,
}

impl Space {
    fn of(path: &Path) -> Result<Self, Errno> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(Self {
            size: stat.f_blocks * stat.f_frsize,
            used: (stat.f_blocks - stat.f_bfree) * stat.f_frsize,
            free: stat.f_bavail * stat.f_frsize,
        })
    }
}

pub(crate) fn is_on_btrfs(path: &Path) -> Result<bool, Error> {
    let dir = open(path)?;
    kernel::is_btrfs(dir.as_fd()).at("look at the filesystem", path)
}

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).at("open", path)
}

fn open_parent(path: &Path) -> Result<(OwnedFd, &OsStr), Error> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Errno::INVAL).at("open", path);
    };
    Ok((open(parent)?.into(), name))
}
