//! The disk where the OCI runtime finds it, in a mount namespace that ends with the runtime's call.
use std::fs::DirBuilder;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use garth_kernel::namespace::{self, Own};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags};

use super::bundle::VOLUMES;
use crate::disk::become_user;
use crate::error::ErrorKind;
use crate::ids::FirstId;

/// The disk, detached, and the directory that its parts are attached in: one that the container's root can walk to, as
/// the run directory is closed to all but the host's.
#[derive(Debug)]
pub(crate) struct Tree<'a> {
    pub(crate) root: BorrowedFd<'a>,
    pub(crate) usr: Option<BorrowedFd<'a>>,
    pub(crate) first: FirstId,
    pub(crate) directory: &'a Path,
}

/// A part of the disk that is a mount of its own: where it is in the sandbox, and where here.
pub(crate) type Volume = (&'static str, PathBuf);

impl Tree<'_> {
    /// Where the disk's root goes.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.directory.join("rootfs")
    }

    /// Makes the directory, which anyone may walk through.
    pub(crate) fn make_places(&self) -> io::Result<()> {
        let volumes = (0..VOLUMES.len()).map(|number| self.volume(number));
        for place in [self.rootfs()].into_iter().chain(volumes) {
            DirBuilder::new().recursive(true).mode(0o711).create(place)?;
        }
        Ok(())
    }

    fn volume(&self, number: usize) -> PathBuf {
        self.directory.join(format!("volume-{number}"))
    }

    /// Does something in a mount namespace where all is attached; nothing of it is to be seen in any other.
    pub(crate) fn with<T: Send>(
        &self,
        work: impl FnOnce(&[Volume]) -> Result<T, ErrorKind> + Send,
    ) -> Result<T, ErrorKind> {
        as_thread("garth-oci", || {
            self.attach()?;
            as_thread("garth-volumes", || Ok(make_volumes(self.root, self.first)?))?;
            work(&self.volumes()?)
        })
    }

    fn attach(&self) -> io::Result<()> {
        namespace::unshare(Own::Mounts)?;
        rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        attach(self.root, &self.rootfs())?;
        if let Some(usr) = self.usr {
            // The name is the disk's: opened so that it is a directory of it and no link.
            let place = inside(self.root, "usr", ResolveFlags::NO_SYMLINKS)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
            rustix::mount::move_mount(usr, "", place, "", flags)?;
        }
        Ok(())
    }

    /// A place that the disk has something else in, or that a link leads to, is left out: its user has seen to it.
    fn volumes(&self) -> io::Result<Vec<Volume>> {
        let mut found = Vec::new();
        for (number, path) in VOLUMES.into_iter().enumerate() {
            let place = match inside(self.root, path.trim_start_matches('/'), ResolveFlags::NO_SYMLINKS) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                place => place?,
            };
            let flags =
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
            let volume = rustix::mount::open_tree(&place, "", flags)?;
            let at = self.volume(number);
            attach(volume.as_fd(), &at)?;
            found.push((path, at));
        }
        Ok(found)
    }
}

fn attach(mount: BorrowedFd<'_>, at: &Path) -> io::Result<()> {
    Ok(rustix::mount::move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Namespaces and credentials are a thread's own: what is changed there ends with it.
fn as_thread<T: Send>(name: &str, work: impl FnOnce() -> Result<T, ErrorKind> + Send) -> Result<T, ErrorKind> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| io::Error::other("a thread that prepares a container panicked"))?
    })
}

/// As the disk's root, who alone may.
fn make_volumes(root: BorrowedFd<'_>, first: FirstId) -> io::Result<()> {
    become_user(first)?;
    VOLUMES.iter().try_for_each(|path| match make_place(root, path) {
        // A file, a link or a full disk: its user's business.
        Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT | Errno::NOSPC | Errno::DQUOT) => Ok(()),
        result => Ok(result?),
    })
}

/// Every directory of the path that is missing.
fn make_place(root: BorrowedFd<'_>, path: &str) -> rustix::io::Result<()> {
    let path = path.trim_start_matches('/');
    for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
        let (above, name) = path[..end].rsplit_once('/').unwrap_or((".", &path[..end]));
        let above = inside(root, above, ResolveFlags::empty())?;
        match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// A directory below `root`, whatever links there are on the way.
fn inside(root: BorrowedFd<'_>, path: &str, how: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat2(root, path, flags, Mode::empty(), how | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)
}
