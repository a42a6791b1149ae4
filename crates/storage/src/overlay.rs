//! The driver for machines without btrfs: an image is a directory, a disk is an upper directory over it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat};

use crate::disk::{DiskRoot, DiskUsage, Root, UsrOverlay};
use crate::error::{At, Error};
use crate::image::{Image, ImageMeta, Record, UsrSource, finish_skeleton};
use crate::layout::{ROOTFS, STATE, UPPER, USR, WORK};
use crate::pool::PoolUsage;

/// How overlayfs marks a directory that hides the one below (Documentation/filesystems/overlayfs.rst). In a sandbox,
/// `trusted.` attributes are out of reach, and overlays are mounted with `userxattr`.
pub fn opaque_mark() -> std::io::Result<&'static str> {
    let machines = garth_kernel::namespace::has_machines_users()?;
    Ok(if machines { "trusted.overlay.opaque" } else { "user.overlay.opaque" })
}

#[derive(Debug)]
pub(crate) struct Overlay;

impl Overlay {
    pub(crate) fn make_disk(&self, image: &Image, path: &Path) -> std::io::Result<()> {
        for dir in ["", UPPER, WORK, STATE] {
            fs::create_dir(path.join(dir))?;
        }
        copy_owner_and_mode(&image.rootfs(), &path.join(UPPER))?;
        finish_skeleton(path, &Record { id: image.id, meta: image.meta.clone() })?;
        if image.meta.usr == UsrSource::Host {
            let layer = Path::new(USR).join(UPPER);
            copy_layer(&image.path.join(&layer), &path.join(&layer))?;
        }
        Ok(())
    }

    pub(crate) fn disk_root(&self, path: &Path, image: &Path, meta: &ImageMeta) -> DiskRoot {
        let root = Root::Overlay { lower: image.join(ROOTFS), upper: path.join(UPPER), work: path.join(WORK) };
        DiskRoot { root, usr: usr_overlay(path, meta) }
    }

    /// Bytes below the disk's directory; a walk, since directories have no quota.
    pub(crate) fn disk_usage(&self, path: &Path) -> std::io::Result<DiskUsage> {
        let mut used = 0;
        let mut pending = vec![path.to_owned()];
        while let Some(dir) = pending.pop() {
            for entry in fs::read_dir(&dir)? {
                let entry = entry?;
                let Ok(meta) = entry.metadata() else { continue };
                used += meta.blocks() * 512 / meta.nlink().max(1);
                if meta.is_dir() {
                    pending.push(entry.path());
                }
            }
        }
        Ok(DiskUsage { used, limit: None })
    }

    pub(crate) fn pool_usage(&self, root: &Path) -> Result<PoolUsage, Error> {
        let stat = rustix::fs::statvfs(root).at("measure pool", root)?;
        let host_free = stat.f_bavail * stat.f_frsize;
        let used = (stat.f_blocks - stat.f_bfree) * stat.f_frsize;
        Ok(PoolUsage { used, size: stat.f_blocks * stat.f_frsize, on_host: used, host_free })
    }
}

/// The layer over the machine's `/usr`, for disks made from an image that wants one.
pub(crate) fn usr_overlay(path: &Path, meta: &ImageMeta) -> Option<UsrOverlay> {
    (meta.usr == UsrSource::Host).then(|| UsrOverlay {
        lower: "/usr".into(),
        upper: path.join(USR).join(UPPER),
        work: path.join(USR).join(WORK),
    })
}

/// The top of an overlay shows the owner and mode of the upper directory, not the image's.
fn copy_owner_and_mode(from: &Path, to: &Path) -> std::io::Result<()> {
    let meta = fs::metadata(from)?;
    chown(to, Some(meta.uid()), Some(meta.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(meta.mode() & 0o7777))
}

/// Copies what the image begins its `/usr` layer with: directories, opaque ones, and whiteouts.
fn copy_layer(from: &Path, to: &Path) -> std::io::Result<()> {
    copy_owner_and_mode(from, to)?;
    let (mark, mut opaque) = (opaque_mark()?, [0; 1]);
    if rustix::fs::lgetxattr(from, mark, &mut opaque).is_ok() {
        rustix::fs::lsetxattr(to, mark, &opaque, XattrFlags::empty())?;
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_layer(&entry.path(), &target)?;
        } else {
            mknodat(CWD, &target, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))?;
        }
    }
    Ok(())
}
