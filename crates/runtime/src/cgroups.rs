//! The cgroups of sandboxes, on v1 and v2: made, limited, read, removed.
//!
//! ```text
//!  v1   /sys/fs/cgroup/{memory,cpu,…}/garth-<tag>/<slot>     a spawner lives in it, so that inits are born there
//!  v2   /sys/fs/cgroup/garth-<tag>/<slot>                    inits are cloned into it
//! ```
//!
//! Where users are mapped, a slot has a cgroup `box` below, which is the sandbox's own to divide further: the limits
//! are on the slot, out of its reach. On a host with v1 controllers and a v2 tree beside them (hybrid) the box is in the
//! v2 tree: systemd and container engines work there, without limits of their own.
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use garth_kernel::devices::Device;
use garth_spec::Limits;
use rustix::fs::CWD;
use rustix::mount::{MountFlags, OpenTreeFlags};
use serde::{Deserialize, Serialize};

use crate::Level;
use crate::error::{Doing, ErrorKind, Result};
use crate::handshake::CgroupDirs;

mod freezer;
mod v1;
mod v2;

pub(crate) use v1::V1;
pub(crate) use v2::V2;

/// What a sandbox uses now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of memory that could not be given back at once: without clean page cache that is not in use.
    pub memory: u64,
    /// Processor time since its start, in microseconds.
    pub cpu_micros: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Processes ended since its start because memory ran out.
    pub oom_kills: u64,
}

/// A block device by its numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockDevice {
    /// The driver's.
    pub major: u32,
    /// Which of the driver's.
    pub minor: u32,
}

/// The machine's kind of cgroups.
#[derive(Debug)]
pub(crate) enum Cgroups {
    V1(V1),
    V2(V2),
}

impl Cgroups {
    /// Finds the hierarchies and makes the parents of this data directory's slots.
    pub(crate) fn open(tag: &str) -> Result<Self> {
        let mounts = fs::read_to_string("/proc/self/mounts").doing(|| "read the list of mounts".to_owned())?;
        let parent = format!("garth-{tag}");
        match V2::find(&mounts) {
            Some(root) => V2::open(&root, &parent).map(Self::V2),
            None => V1::open(&mounts, &parent).map(Self::V1),
        }
        .doing(|| "prepare the cgroups".to_owned())
    }

    /// Those that an OCI runtime makes below `parent`. Makes and changes nothing.
    pub(crate) fn made_by_others(mounts: &str, parent: &str) -> std::result::Result<Self, ErrorKind> {
        match V2::find(mounts) {
            Some(root) => Ok(Self::V2(V2::below(&root, parent))),
            None => V1::find(mounts, parent).map(Self::V1),
        }
    }

    /// Which kind the machine has, or what is missing. Changes nothing.
    pub(crate) fn find() -> std::result::Result<&'static str, ErrorKind> {
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        match V2::find(&mounts) {
            Some(root) => V2::check(&root).map(|()| "cgroup v2"),
            None => V1::find(&mounts, "").map(|_| "cgroup v1"),
        }
    }

    /// Directories and links wanted below a sandbox's `/sys/fs/cgroup`.
    pub(crate) fn layout(&self, level: Level) -> (Vec<String>, Vec<(String, String)>) {
        match self {
            Self::V1(v1) if level == Level::Default || v1.unified().is_none() => v1.layout(),
            Self::V1(_) | Self::V2(_) => (Vec::new(), Vec::new()),
        }
    }

    /// What a sandbox sees of its cgroups, in the order of the layout.
    pub(crate) fn shown(&self, slot: &str, level: Level) -> Vec<PathBuf> {
        match level {
            Level::Default => self.directories(slot),
            Level::Sysbox => self.boxes(slot),
        }
    }

    /// The cgroups that a sandbox of mapped users may divide.
    fn boxes(&self, slot: &str) -> Vec<PathBuf> {
        let outer = match self {
            Self::V1(v1) => v1.unified().map_or_else(|| v1.directories(slot), |unified| vec![unified.join(slot)]),
            Self::V2(v2) => vec![v2.directory(slot)],
        };
        outer.into_iter().map(|directory| directory.join(BOX)).collect()
    }

    /// Makes the boxes of a slot and gives them to the sandbox's root (cgroups(7), "Cgroups delegation"). What an earlier
    /// sandbox left in them is removed.
    pub(crate) fn delegate(&self, slot: &str, owner: u32) -> std::result::Result<(), ErrorKind> {
        if let Self::V2(v2) = self {
            v2.divide(slot)?;
        }
        for directory in self.boxes(slot) {
            remove_tree(&directory)?;
            fs::create_dir_all(&directory)?;
            for name in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "tasks"] {
                match std::os::unix::fs::chown(directory.join(name), Some(owner), Some(owner)) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    result => result?,
                }
            }
        }
        Ok(())
    }

    /// Moves the process that will clone the init into the boxes, and its keeper beside them.
    pub(crate) fn enter(&self, slot: &str, porter: i32, keeper: i32) -> io::Result<()> {
        for directory in self.boxes(slot) {
            fs::write(directory.join("cgroup.procs"), porter.to_string())?;
        }
        match self {
            // It was born in the slot.
            Self::V1(_) => Ok(()),
            Self::V2(_) => self.enter_beside(slot, keeper),
        }
    }

    /// Moves a keeper into the slot, beside the boxes.
    pub(crate) fn enter_beside(&self, slot: &str, keeper: i32) -> io::Result<()> {
        let directories = match self {
            Self::V1(v1) => v1.directories(slot),
            Self::V2(v2) => vec![v2.directory(slot).join(BESIDE)],
        };
        directories.iter().try_for_each(|directory| fs::write(directory.join("cgroup.procs"), keeper.to_string()))
    }

    /// Where a sandbox's limits and counters are read.
    pub(crate) fn readable(&self, slot: &str) -> io::Result<(CgroupDirs, Vec<OwnedFd>)> {
        let open = |path: &Path| -> io::Result<OwnedFd> { Ok(fs::File::open(path)?.into()) };
        match self {
            Self::V1(v1) => {
                let of = |controller| open(&v1.file(controller, slot, ""));
                Ok((CgroupDirs::V1, vec![of("memory")?, of("cpu")?, of("cpuacct")?]))
            }
            Self::V2(v2) => Ok((CgroupDirs::V2, vec![open(&v2.directory(slot))?])),
        }
    }

    /// The directories of a slot.
    pub(crate) fn directories(&self, slot: &str) -> Vec<PathBuf> {
        match self {
            Self::V1(v1) => v1.directories(slot),
            Self::V2(v2) => vec![v2.directory(slot)],
        }
    }

    /// Makes the cgroups of a new slot, with these limits.
    pub(crate) fn create(&self, slot: &str, limits: &Limits) -> std::result::Result<(), ErrorKind> {
        for directory in self.all_directories(slot) {
            fs::create_dir(&directory)?;
        }
        self.limit(slot, limits)
    }

    /// The slot's cgroup in the v2 tree, which a hybrid host has too: inits are cloned into it.
    pub(crate) fn in_v2_tree(&self, slot: &str) -> Option<PathBuf> {
        match self {
            Self::V1(v1) => Some(v1.unified()?.join(slot)),
            Self::V2(v2) => Some(v2.directory(slot)),
        }
    }

    /// Brings every process of a sandbox to rest and waits until they are; after an error they run.
    pub(crate) fn freeze(&self, slot: &str, level: Level) -> std::result::Result<(), ErrorKind> {
        freezer::freeze(&self.frozen_with(slot, level)?)
    }

    /// Has them run again.
    pub(crate) fn thaw(&self, slot: &str, level: Level) -> std::result::Result<(), ErrorKind> {
        match self.frozen_with(slot, level) {
            // Then nothing was brought to rest.
            Err(ErrorKind::NoFreezer) => Ok(()),
            directory => Ok(freezer::thaw(&directory?)?),
        }
    }

    /// The cgroup that holds a sandbox's processes and no other: no spawner, no keeper, who serve those that run.
    fn frozen_with(&self, slot: &str, level: Level) -> std::result::Result<PathBuf, ErrorKind> {
        let directory = self.in_v2_tree(slot).ok_or(ErrorKind::NoFreezer)?;
        Ok(if level == Level::Sysbox { directory.join(BOX) } else { directory })
    }

    /// Tells what the disks of sandboxes are on.
    pub(crate) fn set_disks(&self, device: Option<BlockDevice>) {
        if let Self::V2(v2) = self {
            v2.set_disks(device);
        }
    }

    /// Whether reading and writing a disk can be held to a rate, or why not.
    pub(crate) fn check_disk_rate(&self) -> std::result::Result<(), ErrorKind> {
        match self {
            // Measured on 6.18: what a process leaves to the kernel to write is written at full speed.
            Self::V1(_) => Err(ErrorKind::NoDiskRate {
                why: "cgroup v1 does not charge a sandbox for what the kernel writes out later for it",
            }),
            Self::V2(v2) => v2.disks().map(drop),
        }
    }

    pub(crate) fn limit(&self, slot: &str, limits: &Limits) -> std::result::Result<(), ErrorKind> {
        match self {
            Self::V1(v1) => {
                if limits.has_disk_rate() {
                    self.check_disk_rate()?;
                }
                v1.limit(slot, limits)
            }
            Self::V2(v2) => v2.limit(slot, limits),
        }
    }

    /// Counters since the slot was made.
    pub(crate) fn usage(&self, slot: &str) -> io::Result<Usage> {
        match self {
            Self::V1(v1) => v1.usage(slot),
            Self::V2(v2) => v2.usage(slot),
        }
    }

    /// Gives back the page cache that a sandbox left behind in a slot.
    pub(crate) fn forget(&self, slot: &str) {
        let file = match self {
            Self::V1(v1) => v1.forget_file(slot),
            // v2 has no such switch before 5.19; `memory.reclaim` takes bytes.
            Self::V2(v2) => v2.directory(slot).join("memory.reclaim"),
        };
        if self.usage(slot).is_ok_and(|usage| usage.memory > 4 << 20) {
            // Best effort: what cannot be given back is pinned, and counts until it is.
            let _ = fs::write(file, "1G");
        }
    }

    /// Every slot there is on the machine, of this daemon or a dead one before it.
    pub(crate) fn slots(&self) -> io::Result<Vec<String>> {
        let parents = match self {
            Self::V1(v1) => v1.parents().into_iter().chain(v1.unified().map(Path::to_owned)).collect(),
            Self::V2(v2) => vec![v2.parent()],
        };
        let mut slots = Vec::new();
        for parent in parents {
            let entries = match fs::read_dir(parent) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                entries => entries?,
            };
            for entry in entries {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    slots.extend(entry.file_name().into_string());
                }
            }
        }
        slots.sort();
        slots.dedup();
        Ok(slots)
    }

    /// The processes in a slot.
    pub(crate) fn processes(&self, slot: &str) -> io::Result<Vec<i32>> {
        let mut pids = Vec::new();
        for directory in self.all_directories(slot) {
            processes_below(&directory, &mut pids)?;
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Removes a slot without processes; one that is gone counts as removed.
    pub(crate) fn remove(&self, slot: &str) -> io::Result<()> {
        self.all_directories(slot).iter().try_for_each(|directory| remove_tree(directory))
    }

    fn all_directories(&self, slot: &str) -> Vec<PathBuf> {
        let unified = match self {
            Self::V1(v1) => v1.unified().map(|unified| unified.join(slot)),
            Self::V2(_) => None,
        };
        self.directories(slot).into_iter().chain(unified).collect()
    }

    /// Removes the parents, when no slot is left.
    pub(crate) fn close(&self) {
        let parents = match self {
            Self::V1(v1) => v1.all_parents(),
            Self::V2(v2) => vec![v2.parent()],
        };
        for parent in parents {
            let _ = fs::remove_dir(parent);
        }
    }
}

/// Removes a cgroup and those that a sandbox made below it.
pub(crate) fn remove_tree(directory: &Path) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(_) => {}
    }
    for child in children(directory)? {
        remove_tree(&child)?;
    }
    match fs::remove_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn children(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let is_dir = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_dir());
    Ok(entries.flatten().filter(is_dir).map(|entry| entry.path()).collect())
}

fn processes_below(directory: &Path, pids: &mut Vec<i32>) -> io::Result<()> {
    match fs::read_to_string(directory.join("cgroup.procs")) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        // A threaded cgroup (cgroups(7)) lists its processes further up.
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::OPNOTSUPP.raw_os_error()) => {}
        text => pids.extend(text?.lines().filter_map(|line| line.parse::<i32>().ok())),
    }
    children(directory)?.iter().try_for_each(|child| processes_below(child, pids))
}

/// The cgroup below a slot that is the sandbox's own.
const BOX: &str = "box";
/// On v2, where a cgroup with children has no processes: that of the keeper.
const BESIDE: &str = "keeper";

/// A cgroup directory as a detached read-only mount, for a sandbox to see.
pub(crate) fn detached(directory: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    rustix::mount::open_tree(CWD, directory, flags).doing(|| format!("take {} as a mount", directory.display()))
}

/// How a cgroup is shown. Without mapped users its files are owned by root, which the sandbox's root is, so that only the
/// mount protects it.
pub(crate) fn how_shown(level: Level) -> MountFlags {
    let common = crate::steps::INERT | MountFlags::BIND;
    match level {
        Level::Default => common | MountFlags::RDONLY,
        Level::Sysbox => common,
    }
}

/// What a sandbox may do with devices, whatever nodes it finds: those of its /dev, and terminals (136).
///
/// FUSE (10:229) and TUN (10:200) are among them although only sandboxes of mapped users have the nodes, and KVM (10:232)
/// although only hypervisors have: the list is a second wall behind that nobody can make nodes, and one for all.
const DEVICES: [Device; 11] = [
    device(10, Some(200)),
    device(10, Some(229)),
    device(10, Some(232)),
    device(1, Some(3)),
    device(1, Some(5)),
    device(1, Some(7)),
    device(1, Some(8)),
    device(1, Some(9)),
    device(5, Some(0)),
    device(5, Some(2)),
    device(136, None),
];

const fn device(major: u32, minor: Option<u32>) -> Device {
    Device { major, minor }
}

fn number(path: &Path) -> io::Result<u64> {
    Ok(fs::read_to_string(path)?.trim().parse().unwrap_or(u64::MAX))
}

/// The number behind a key in a file of `key number` lines.
fn field(path: &Path, key: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    Ok(line.and_then(|number| number.trim().parse().ok()).unwrap_or(0))
}

/// The scheduling period that quotas are in, in microseconds: the kernel's default.
const PERIOD: u64 = 100_000;

fn quota(limits: &Limits) -> u64 {
    u64::from(limits.cpus.millis()) * PERIOD / 1000
}
