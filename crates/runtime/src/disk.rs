//! The disk of a sandbox as detached mounts: made in the daemon, attached nowhere, handed over as descriptors.
//!
//! Layers of an overlay are named `/proc/self/fd/N`, so that no path of the host shows in the sandbox's mount table and
//! no character in one needs quoting.
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use garth_kernel::{idmap, namespace};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};

use crate::error::{Doing, Result};
use crate::ids::FirstId;
use crate::{Durability, Overlay, Root, SandboxPlan};

mod layers;
mod volumes;
pub(crate) use layers::Layers;
pub use volumes::check_volume;
pub(crate) use volumes::open as open_volume;

/// The mounts of one sandbox's disk.
#[derive(Debug)]
pub(crate) struct Disk {
    root: OwnedFd,
    state: OwnedFd,
    usr: Option<OwnedFd>,
    volumes: Vec<OwnedFd>,
}

impl Disk {
    /// Its overlays count as used in `layers` from then on; after an error they do not.
    pub(crate) fn open(plan: &SandboxPlan, layers: &Layers, owners: Owners<'_>) -> Result<Self> {
        let state = directory(&plan.state_dir, owners)?;
        let volumes = plan.volumes.iter().map(|volume| volumes::open(volume, &plan.hidden, owners));
        let volumes = volumes.collect::<Result<Vec<_>>>()?;
        let root = match &plan.root {
            Root::Directory(path) => directory(path, owners)?,
            Root::Overlay(overlay) => layers.mount(overlay, plan.durability, owners)?,
        };
        let usr = plan.usr.as_ref().map(|overlay| layers.mount(overlay, plan.durability, owners)).transpose();
        let usr = usr.inspect_err(|_| {
            if let Root::Overlay(overlay) = &plan.root {
                layers.end(std::slice::from_ref(&overlay.upper));
            }
        })?;
        Ok(Self { root, state, usr, volumes })
    }

    pub(crate) fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    pub(crate) fn state(&self) -> BorrowedFd<'_> {
        self.state.as_fd()
    }

    pub(crate) fn usr(&self) -> Option<BorrowedFd<'_>> {
        self.usr.as_ref().map(AsFd::as_fd)
    }

    /// In the order that an init takes them.
    pub(crate) fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.root.as_fd(), self.state.as_fd()];
        fds.extend(self.usr.iter().chain(&self.volumes).map(AsFd::as_fd));
        fds
    }
}

/// The upper layers a plan's overlays write to.
pub(crate) fn uppers(plan: &SandboxPlan) -> Vec<PathBuf> {
    plan.overlays().map(|overlay| overlay.upper.clone()).collect()
}

/// Whose the files of the disk seem to be: those that are root's on disk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Owners<'a> {
    /// The host's.
    AsStored,
    /// Those of a user namespace, whose root is this user of the host.
    Mapped { users: BorrowedFd<'a>, first: FirstId },
}

fn directory(path: &Path, owners: Owners<'_>) -> Result<OwnedFd> {
    let mount = detached(path)?;
    if let Owners::Mapped { users, .. } = owners {
        idmap::map(mount.as_fd(), users).doing(|| format!("map the owners of {}", path.display()))?;
    }
    Ok(mount)
}

fn detached(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    rustix::mount::open_tree(CWD, path, flags).doing(|| format!("take {} as a mount", path.display()))
}

/// Another mount of what a detached mount shows; `None` before Linux 6.15, which copies attached mounts only.
fn copy(mount: &OwnedFd) -> Result<Option<OwnedFd>> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    match rustix::mount::open_tree(mount, "", flags) {
        Err(Errno::INVAL) => Ok(None),
        result => result.map(Some).doing(|| "take an overlay as a mount".to_owned()),
    }
}

fn mount_overlay(overlay: &Overlay, durability: Durability, owners: Owners<'_>) -> Result<OwnedFd> {
    if durability == Durability::Discarded {
        allow_reuse(&overlay.work)?;
    }
    let mount = match owners {
        Owners::AsStored => as_stored(overlay, durability).map_err(io::Error::from),
        Owners::Mapped { users, first } => mapped(overlay, durability, users, first),
    };
    mount.doing(|| format!("mount an overlay over {}", overlay.lower.display()))
}

fn as_stored(overlay: &Overlay, durability: Durability) -> rustix::io::Result<OwnedFd> {
    let layers = [layer(CWD, &overlay.lower)?, layer(CWD, &overlay.upper)?, layer(CWD, &overlay.work)?];
    let fs = new_overlay(durability)?;
    for (key, layer) in ["lowerdir", "upperdir", "workdir"].into_iter().zip(&layers) {
        rustix::mount::fsconfig_set_string(&fs, key, format!("/proc/self/fd/{}", layer.as_raw_fd()))?;
    }
    finish_overlay(&fs)
}

/// An overlay of mapped layers. What it makes in its upper layer belongs to whoever mounts it, so that has to be the
/// sandbox's root, with the host's capabilities: a thread for this alone, as credentials are a thread's own.
fn mapped(overlay: &Overlay, durability: Durability, users: BorrowedFd<'_>, first: FirstId) -> io::Result<OwnedFd> {
    let above = overlay.upper.parent().filter(|above| overlay.work.starts_with(above)).ok_or(Errno::INVAL)?;
    let within = |path: &Path| path.strip_prefix(above).map(Path::to_owned).map_err(|_| Errno::INVAL);
    let (upper, work) = (within(&overlay.upper)?, within(&overlay.work)?);
    let map = |path: &Path| -> io::Result<OwnedFd> {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let mount = rustix::mount::open_tree(CWD, path, flags)?;
        idmap::map(mount.as_fd(), users)?;
        Ok(mount)
    };
    let (lower, above) = (map(&overlay.lower)?, map(above)?);
    let mount = move || -> io::Result<OwnedFd> {
        become_user(first)?;
        let fs = new_overlay(durability)?;
        // Descriptors, because the layers are attached nowhere and so have no path (Linux 6.13).
        rustix::mount::fsconfig_set_fd(&fs, "lowerdir+", &lower)?;
        rustix::mount::fsconfig_set_fd(&fs, "upperdir", layer(&above, &upper)?)?;
        rustix::mount::fsconfig_set_fd(&fs, "workdir", layer(&above, &work)?)?;
        Ok(finish_overlay(&fs)?)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("garth-overlay".to_owned()).spawn_scoped(scope, mount)?;
        thread.join().map_err(|_| io::Error::other("the thread that mounts an overlay panicked"))?
    })
}

/// This thread alone becomes a user and group of the host, and keeps its capabilities.
pub(crate) fn become_user(first: FirstId) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(first.get()), Gid::from_raw(first.get()));
    let sets = rustix::thread::capabilities(None)?;
    rustix::thread::set_keep_capabilities(true)?;
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

fn layer(at: impl AsFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(at, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn new_overlay(durability: Durability) -> rustix::io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&fs, "source", "overlay")?;
    if namespace::has_machines_users().map_err(errno)? {
        // Renaming a directory of the lower layer works as on any disk; package managers do it.
        rustix::mount::fsconfig_set_string(&fs, "redirect_dir", "on")?;
    } else {
        // Without `trusted.` attributes, which are the machine's root's; the two do not go together.
        rustix::mount::fsconfig_set_flag(&fs, "userxattr")?;
    }
    if durability == Durability::Discarded {
        rustix::mount::fsconfig_set_flag(&fs, "volatile")?;
    }
    Ok(fs)
}

fn errno(error: io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::IO)
}

fn finish_overlay(fs: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    rustix::mount::fsconfig_create(fs)?;
    rustix::mount::fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)
}

/// A volatile mount leaves a mark that refuses the next mount (`overlayfs.rst`, "Volatile mount"): here nothing of it
/// was to be kept safe, so the mark goes.
fn allow_reuse(work: &Path) -> Result<()> {
    let mark = work.join("work/incompat/volatile");
    match std::fs::remove_dir_all(&mark) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).doing(|| format!("remove the mark {}", mark.display())),
        _ => Ok(()),
    }
}
