//! What comes before the host can be heard: the kernel's file systems, limits, modules.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use garth_runtime::steps::shares_of_memory;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::process::{Resource, Rlimit};

use super::{At, GuestFailure, devices};

const INERT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
const NO_PROGRAMS: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

/// File system, place, flags, options; in this order.
const MOUNTS: [(&str, &str, MountFlags, &CStr); 8] = [
    ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=755"),
    ("proc", "/proc", INERT, c""),
    ("sysfs", "/sys", INERT, c""),
    ("cgroup2", "/sys/fs/cgroup", INERT, c"nsdelegate"),
    ("devpts", "/dev/pts", NO_PROGRAMS, c"ptmxmode=0666,mode=0620,gid=5"),
    ("tmpfs", "/dev/shm", MountFlags::NOSUID.union(MountFlags::NODEV), c"mode=1777"),
    ("mqueue", "/dev/mqueue", INERT, c""),
    ("tmpfs", "/run", MountFlags::NOSUID.union(MountFlags::NODEV), c"mode=755"),
];

/// Where the kernel finds these by their first names, and programs by their second.
const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

const MODULES: &str = "/modules";

/// What systemd gives, too: enough for servers, and `select` still works for who does not ask for more.
const FILES: Rlimit = Rlimit { current: Some(1024), maximum: Some(524_288) };

pub(super) fn mounts() -> Result<(), GuestFailure> {
    for (fs, at, flags, options) in MOUNTS {
        match std::fs::create_dir(at) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).at(|| format!("make {at}"))?,
            _ => {}
        }
        match rustix::mount::mount(fs, at, fs, flags, options) {
            // A kernel without message queues has processes without them.
            Err(Errno::NODEV) if fs == "mqueue" => {}
            result => result.at(|| format!("mount {at}"))?,
        }
    }
    for (to, name) in LINKS {
        std::os::unix::fs::symlink(to, name).at(|| format!("link {name}"))?;
    }
    // For whoever makes groups below; an old kernel lacks some.
    for controller in ["+cpu", "+io", "+memory", "+pids"] {
        let _ = std::fs::write("/sys/fs/cgroup/cgroup.subtree_control", controller);
    }
    Ok(())
}

pub(super) fn limits() -> Result<(), GuestFailure> {
    rustix::process::setrlimit(Resource::Nofile, FILES).at(|| "limit open files".to_owned())
}

/// Files in memory are bounded as at the other levels.
pub(super) fn bound_memory(memory: u64) -> Result<(), GuestFailure> {
    for (at, bytes) in shares_of_memory(memory) {
        let options = CString::new(format!("size={bytes}")).at(|| format!("bound /{at}"))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount_remount(format!("/{at}"), flags, options.as_c_str()).at(|| format!("bound /{at}"))?;
    }
    Ok(())
}

/// Loads all that there are, by name. One that fails is told: whatever needed it says the rest.
pub(super) fn modules() -> Result<(), GuestFailure> {
    let mut files: Vec<PathBuf> = match std::fs::read_dir(MODULES) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.at(|| format!("list {MODULES}"))?.flatten().map(|entry| entry.path()).collect(),
    };
    files.sort();
    for file in files {
        // The bus itself may come with one of them.
        let loaded = load(&file).and_then(|()| devices::hold());
        if let Err(error) = loaded {
            eprintln!("garth-agent: {}: {error}", file.display());
        }
    }
    if let Err(error) = devices::find_others() {
        eprintln!("garth-agent: give devices to their drivers: {error}");
    }
    Ok(())
}

fn load(file: &Path) -> io::Result<()> {
    match rustix::system::finit_module(File::open(file)?, c"", 0) {
        // It is built in, or there already.
        Err(Errno::EXIST) => Ok(()),
        result => Ok(result?),
    }
}
