//! The disk of a sandbox as detached mounts: made in the daemon, attached nowhere, handed over as descriptors.
//!
//! Layers of an overlay are named `/proc/self/fd/N`, so that no path of the host shows in the sandbox's mount table and
//! no character in one needs quoting.
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use crate::error::{Doing, Error, ErrorKind, Result};
use crate::{Durability, Overlay, Root, SandboxPlan};

/// The mounts of one sandbox's disk.
#[derive(Debug)]
pub(crate) struct Disk {
    root: OwnedFd,
    state: OwnedFd,
    usr: Option<OwnedFd>,
}

impl Disk {
    pub(crate) fn open(plan: &SandboxPlan) -> Result<Self> {
        Ok(Self {
            root: match &plan.root {
                Root::Directory(path) => detached(path)?,
                Root::Overlay(overlay) => mount_overlay(overlay, plan.durability)?,
            },
            state: detached(&plan.state_dir)?,
            usr: plan.usr.as_ref().map(|overlay| mount_overlay(overlay, plan.durability)).transpose()?,
        })
    }

    /// In the order that an init takes them from its order.
    pub(crate) fn fds<'a>(&'a self, netns: BorrowedFd<'a>) -> Vec<BorrowedFd<'a>> {
        let mut fds = vec![self.root.as_fd(), self.state.as_fd(), netns];
        fds.extend(self.usr.as_ref().map(AsFd::as_fd));
        fds
    }
}

/// The upper layers a plan's overlays write to.
pub(crate) fn uppers(plan: &SandboxPlan) -> Vec<PathBuf> {
    let root = match &plan.root {
        Root::Directory(_) => None,
        Root::Overlay(overlay) => Some(overlay),
    };
    root.into_iter().chain(&plan.usr).map(|overlay| overlay.upper.clone()).collect()
}

fn detached(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(CWD, path, flags).doing(|| format!("take {} as a mount", path.display()))
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

/// Which upper layers are mounted. An overlay writes its upper layer's file system out when it ends, 2 ms and more; that
/// happens after `destroy`, and a start that wants the same layer waits for it here.
#[derive(Debug, Default)]
pub(crate) struct Uppers {
    state: Mutex<HashMap<PathBuf, Use>>,
    changed: Condvar,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Use {
    Live,
    Ending,
}

/// How long a start waits for the end of the last mount of its disk.
const PATIENCE: Duration = Duration::from_secs(30);

impl Uppers {
    pub(crate) fn acquire(&self, uppers: &[PathBuf]) -> Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match uppers.iter().filter_map(|upper| state.get(upper)).max_by_key(|used| **used == Use::Live) {
                None => break,
                Some(Use::Live) => return Err(error(ErrorKind::Exists)),
                Some(Use::Ending) => {
                    let (next, timeout) =
                        self.changed.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
                    if timeout.timed_out() {
                        return Err(error(ErrorKind::Stuck { seconds: PATIENCE.as_secs() }));
                    }
                    state = next;
                }
            }
        }
        state.extend(uppers.iter().map(|upper| (upper.clone(), Use::Live)));
        Ok(())
    }

    pub(crate) fn ending(&self, uppers: &[PathBuf]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.extend(uppers.iter().map(|upper| (upper.clone(), Use::Ending)));
    }

    pub(crate) fn release(&self, uppers: &[PathBuf]) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.retain(|upper, _| !uppers.contains(upper));
        self.changed.notify_all();
    }
}

fn error(kind: ErrorKind) -> Error {
    Error { doing: "use the disk".to_owned(), kind }
}
