//! Directories of the host for a sandbox to see, as detached mounts.
//!
//! The path is looked up once; what was found is judged and mounted by descriptor, so that nobody can put something else
//! in its place. Devices and set-user-id programs in it count for nothing inside. Owners are the same on both sides: also
//! root's, see SECURITY.md.
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use garth_kernel::idmap;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

use super::Owners;
use crate::Volume;
use crate::error::{Doing, ErrorKind, Result};

/// Where kernel file systems are, that show the host.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// The same wherever they are mounted: proc, sysfs, cgroup, cgroup2, debugfs, tracefs, securityfs, devpts (linux/magic.h).
const KERNEL_TYPES: [u64; 8] =
    [0x9fa0, 0x6265_6572, 0x0027_e0eb, 0x6367_7270, 0x6462_6720, 0x7472_6163, 0x7363_6673, 0x1cd1];

/// Whether this directory may be shown to a sandbox now.
pub fn check_volume(host: &Path, hidden: &Path) -> Result<()> {
    find(host, hidden).doing(|| "find the directory of a volume".to_owned()).map(drop)
}

pub(crate) fn open(volume: &Volume, hidden: &Path, owners: Owners<'_>) -> Result<OwnedFd> {
    let directory = find(&volume.host, hidden).doing(|| "find the directory of a volume".to_owned())?;
    let doing = || format!("take {} as a mount", volume.host.display());
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    let mount = rustix::mount::open_tree(&directory, "", flags).doing(doing)?;
    idmap::seclude(mount.as_fd()).doing(doing)?;
    if let Owners::Mapped { users, .. } = owners {
        idmap::map(mount.as_fd(), users).map_err(|error| cannot_map(error, volume)).doing(doing)?;
    }
    let mut kept = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    kept.set(MountAttrFlags::MOUNT_ATTR_RDONLY, volume.read_only);
    idmap::restrict(mount.as_fd(), kept.bits().into()).doing(doing)?;
    Ok(mount)
}

fn cannot_map(error: std::io::Error, volume: &Volume) -> ErrorKind {
    let refuse = |why| ErrorKind::Volume { host: volume.host.clone(), why };
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::INVAL) => refuse("is on a file system that cannot show its owners to a sandbox of mapped users"),
        Some(Errno::PERM) => refuse("is on a mount that maps owners already"),
        _ => error.into(),
    }
}

fn find(host: &Path, hidden: &Path) -> std::result::Result<OwnedFd, ErrorKind> {
    let refuse = |why| ErrorKind::Volume { host: host.to_owned(), why };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let found = match rustix::fs::open(host, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Err(refuse("is not there")),
        Err(Errno::NOTDIR) => return Err(refuse("is not a directory")),
        result => result?,
    };
    let real = std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))?;
    if real == Path::new("/") || KERNEL.iter().any(|path| real.starts_with(path)) {
        return Err(refuse("is the host's root, or below /proc, /sys or /dev"));
    }
    let kind = rustix::fs::fstatfs(&found)?.f_type;
    if u64::try_from(kind).is_ok_and(|kind| KERNEL_TYPES.contains(&kind)) {
        return Err(refuse("is on a file system of the kernel's"));
    }
    if real.starts_with(hidden) || leads_to(&found, hidden)? {
        return Err(refuse("is or holds this daemon's data directory, or is in it"));
    }
    Ok(found)
}

/// Whether a directory is one of those on the path, under whatever name it was found.
fn leads_to(found: &OwnedFd, path: &Path) -> std::io::Result<bool> {
    let identity = |stat: rustix::fs::Stat| (stat.st_dev, stat.st_ino);
    let own = identity(rustix::fs::fstat(found)?);
    for above in path.ancestors() {
        match rustix::fs::statat(CWD, above, rustix::fs::AtFlags::empty()) {
            Ok(stat) if identity(stat) == own => return Ok(true),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_shows_the_host_or_other_projects_is_refused() {
        let dir = std::env::temp_dir().join(format!("garth-volumes-{}", std::process::id()));
        let (data, shared) = (dir.join("data"), dir.join("shared"));
        std::fs::create_dir_all(data.join("pool")).expect("dir");
        std::fs::create_dir_all(&shared).expect("dir");
        std::os::unix::fs::symlink("/proc/1", dir.join("link")).expect("link");
        std::os::unix::fs::symlink(&data, dir.join("other-name")).expect("link");
        std::fs::write(dir.join("file"), "").expect("file");
        let refused = |path: &Path| find(path, &data).is_err();
        for path in ["/", "/proc", "/sys/kernel", "/dev", "/proc/self/root"] {
            assert!(refused(Path::new(path)), "{path}");
        }
        for name in [".", "data", "data/pool", "link", "other-name", "file", "missing"] {
            assert!(refused(&dir.join(name)), "{name}");
        }
        assert!(!refused(&shared));
        std::fs::remove_dir_all(&dir).expect("clean");
    }
}
