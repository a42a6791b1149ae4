//! The disk of a sandbox as detached mounts: made in the daemon, attached nowhere, handed over as descriptors.
//!
//! Layers of an overlay are named `/proc/self/fd/N`, so that no path of the host shows in the sandbox's mount table and
//! no character in one needs quoting.
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use crate::error::{Doing, Result};
use crate::{Durability, Overlay, Root, SandboxPlan};

mod layers;
pub(crate) use layers::Layers;

/// The mounts of one sandbox's disk.
#[derive(Debug)]
pub(crate) struct Disk {
    root: OwnedFd,
    state: OwnedFd,
    usr: Option<OwnedFd>,
}

impl Disk {
    /// Its overlays count as used in `layers` from then on; after an error they do not.
    pub(crate) fn open(plan: &SandboxPlan, layers: &Layers) -> Result<Self> {
        let state = detached(&plan.state_dir)?;
        let root = match &plan.root {
            Root::Directory(path) => detached(path)?,
            Root::Overlay(overlay) => layers.mount(overlay, plan.durability)?,
        };
        let usr = plan.usr.as_ref().map(|overlay| layers.mount(overlay, plan.durability)).transpose();
        let usr = usr.inspect_err(|_| {
            if let Root::Overlay(overlay) = &plan.root {
                layers.end(std::slice::from_ref(&overlay.upper));
            }
        })?;
        Ok(Self { root, state, usr })
    }

    /// In the order that an init takes them.
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.root.as_fd(), self.state.as_fd()];
        fds.extend(self.usr.as_ref().map(AsFd::as_fd));
        fds
    }
}

/// The upper layers a plan's overlays write to.
pub(crate) fn uppers(plan: &SandboxPlan) -> Vec<PathBuf> {
    plan.overlays().map(|overlay| overlay.upper.clone()).collect()
}

fn detached(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(CWD, path, flags).doing(|| format!("take {} as a mount", path.display()))
}

/// Another mount of what a detached mount shows; `None` before Linux 6.15, which copies attached mounts only.
fn copy(mount: &OwnedFd) -> Result<Option<OwnedFd>> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    match rustix::mount::open_tree(mount, "", flags) {
        Err(rustix::io::Errno::INVAL) => Ok(None),
        result => result.map(Some).doing(|| "take an overlay as a mount".to_owned()),
    }
}

fn mount_overlay(overlay: &Overlay, durability: Durability) -> Result<OwnedFd> {
    if durability == Durability::Discarded {
        allow_reuse(&overlay.work)?;
    }
    overlay_mount(overlay, durability).doing(|| format!("mount an overlay over {}", overlay.lower.display()))
}

fn overlay_mount(overlay: &Overlay, durability: Durability) -> rustix::io::Result<OwnedFd> {
    let layer = |path: &Path| {
        rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
    };
    let layers = [layer(&overlay.lower)?, layer(&overlay.upper)?, layer(&overlay.work)?];
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, layer) in ["lowerdir", "upperdir", "workdir"].into_iter().zip(&layers) {
        rustix::mount::fsconfig_set_string(&fs, key, format!("/proc/self/fd/{}", layer.as_raw_fd()))?;
    }
    rustix::mount::fsconfig_set_string(&fs, "source", "overlay")?;
    // Renaming a directory of the lower layer works as on any disk; package managers do it.
    rustix::mount::fsconfig_set_string(&fs, "redirect_dir", "on")?;
    if durability == Durability::Discarded {
        rustix::mount::fsconfig_set_flag(&fs, "volatile")?;
    }
    rustix::mount::fsconfig_create(&fs)?;
    rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)
}

/// A volatile mount leaves a mark that refuses the next mount (`overlayfs.rst`, "Volatile mount"): here nothing of it
/// was to be kept safe, so the mark goes.
fn allow_reuse(work: &Path) -> Result<()> {
    let mark = work.join("work/incompat/volatile");
    match std::fs::remove_dir_all(&mark) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(e).doing(|| format!("remove the mark {}", mark.display()))
        }
        _ => Ok(()),
    }
}
