use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use garth_kernel::namespace;
use garth_spec::Limits;

use super::{BlockDevice, DEVICES, PERIOD, Usage, field, number, quota};
use crate::error::ErrorKind;

const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];
/// Taken where the kernel has it: without, no sandbox is held to a rate of its disk.
const IO: &str = "io";

/// cgroup v2: one tree.
#[derive(Debug)]
pub(crate) struct V2 {
    parent: PathBuf,
    has_io: bool,
    /// What the disks of all sandboxes are on.
    disks: Mutex<Option<BlockDevice>>,
}

impl V2 {
    /// The mount point of the v2 tree, when the controllers that matter are there and not on v1.
    pub(super) fn find(mounts: &str) -> Option<PathBuf> {
        let root = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (mount, kind) = (words.next()?, words.next()?);
            (kind == "cgroup2").then(|| PathBuf::from(mount))
        })?;
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
        controllers.split_whitespace().any(|name| name == "memory").then_some(root)
    }

    pub(super) fn open(root: &Path, parent: &str) -> Result<Self, ErrorKind> {
        Self::check(root)?;
        let parent = root.join(parent);
        match fs::create_dir(&parent) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
        let has_io = controllers(root)?.iter().any(|name| name == IO);
        let wanted = NEEDED.into_iter().chain(has_io.then_some(IO));
        let enable: Vec<String> = wanted.map(|name| format!("+{name}")).collect();
        for directory in [root, &parent] {
            fs::write(directory.join("cgroup.subtree_control"), enable.join(" "))?;
        }
        // Once on the parent: what is below can have no more.
        match garth_kernel::devices::allow_only(fs::File::open(&parent)?.as_fd(), &DEVICES) {
            // In a sandbox, where nobody can make a node of another device, and whose own program holds for all below.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !namespace::has_machines_users()? => {}
            result => result?,
        }
        Ok(Self { parent, has_io, disks: Mutex::default() })
    }

    pub(super) fn below(root: &Path, parent: &str) -> Self {
        Self { parent: root.join(parent), has_io: false, disks: Mutex::default() }
    }

    /// Whether the controllers are there.
    pub(super) fn check(root: &Path) -> Result<(), ErrorKind> {
        let found = controllers(root)?;
        let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !found.iter().any(|found| found == name)).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(ErrorKind::NoCgroups { missing: missing.join(", ") }),
        }
    }

    pub(super) fn parent(&self) -> PathBuf {
        self.parent.clone()
    }

    pub(crate) fn directory(&self, slot: &str) -> PathBuf {
        self.parent.join(slot)
    }

    /// Lets the cgroups below a slot have controllers, and makes the one of the keeper.
    pub(super) fn divide(&self, slot: &str) -> io::Result<()> {
        let directory = self.directory(slot);
        let enable: Vec<String> = NEEDED.iter().map(|name| format!("+{name}")).collect();
        fs::write(directory.join("cgroup.subtree_control"), enable.join(" "))?;
        fs::create_dir_all(directory.join(super::BESIDE))
    }

    pub(super) fn limit(&self, slot: &str, limits: &Limits) -> Result<(), ErrorKind> {
        let directory = self.directory(slot);
        self.limit_one(&directory, limits)?;
        self.hold_disk(&directory, limits)?;
        // The same where the sandbox can read it, as Java and others do; the files stay those of the host.s root.
        let shown = directory.join(super::BOX);
        if shown.exists() { self.limit_one(&shown, limits) } else { Ok(()) }
    }

    fn limit_one(&self, directory: &Path, limits: &Limits) -> Result<(), ErrorKind> {
        let memory = limits.memory.bytes();
        // Where v1 refuses, v2 would end processes to get below the new limit.
        if number(&directory.join("memory.current"))? > memory {
            return Err(ErrorKind::InUse);
        }
        fs::write(directory.join("memory.max"), memory.to_string())?;
        match fs::write(directory.join("memory.swap.max"), "0") {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
        fs::write(directory.join("cpu.max"), format!("{} {PERIOD}", quota(limits)))?;
        Ok(fs::write(directory.join("pids.max"), limits.pids.to_string())?)
    }

    pub(super) fn set_disks(&self, device: Option<BlockDevice>) {
        *self.disks.lock().unwrap_or_else(PoisonError::into_inner) = device;
    }

    /// Where the rates of a sandbox's disk would be set, or why they cannot be.
    pub(super) fn disks(&self) -> Result<BlockDevice, ErrorKind> {
        if !self.has_io {
            return Err(ErrorKind::NoDiskRate { why: "the kernel's cgroup v2 has no controller io" });
        }
        let device = *self.disks.lock().unwrap_or_else(PoisonError::into_inner);
        device.ok_or(ErrorKind::NoDiskRate { why: "the pool of disks is not on one block device" })
    }

    /// What a process wrote is charged to its cgroup also when the kernel writes it out later: btrfs says on whose
    /// behalf (`wbc_init_bio`).
    fn hold_disk(&self, directory: &Path, limits: &Limits) -> Result<(), ErrorKind> {
        match self.disks() {
            Ok(device) => Ok(fs::write(directory.join("io.max"), io_max(device, limits))?),
            Err(error) if limits.has_disk_rate() => Err(error),
            Err(_) => Ok(()),
        }
    }

    pub(super) fn usage(&self, slot: &str) -> io::Result<Usage> {
        let directory = self.directory(slot);
        let cache = field(&directory.join("memory.stat"), "inactive_file")?;
        Ok(Usage {
            memory: number(&directory.join("memory.current"))?.saturating_sub(cache),
            cpu_micros: field(&directory.join("cpu.stat"), "usage_usec")?,
            pids: number(&directory.join("pids.current"))?,
            oom_kills: field(&directory.join("memory.events"), "oom_kill")?,
        })
    }
}

fn controllers(root: &Path) -> io::Result<Vec<String>> {
    let text = fs::read_to_string(root.join("cgroup.controllers"))?;
    Ok(text.split_whitespace().map(str::to_owned).collect())
}

/// A line of `io.max` (Documentation/admin-guide/cgroup-v2.rst).
fn io_max(device: BlockDevice, limits: &Limits) -> String {
    let text = |rate: Option<u64>| rate.map_or("max".to_owned(), |rate| rate.to_string());
    let bytes = text(limits.disk_rate.map(|rate| rate.bytes()));
    let operations = text(limits.disk_iops.map(u64::from));
    let BlockDevice { major, minor } = device;
    format!("{major}:{minor} rbps={bytes} wbps={bytes} riops={operations} wiops={operations}")
}

#[cfg(test)]
mod tests {
    use garth_spec::ByteSize;

    use super::*;

    const LOOP: BlockDevice = BlockDevice { major: 7, minor: 3 };

    #[test]
    fn a_rate_that_is_taken_away_is_written_too() {
        let limits = Limits { disk_rate: Some(ByteSize::mib(1)), ..Limits::default() };
        assert_eq!(io_max(LOOP, &limits), "7:3 rbps=1048576 wbps=1048576 riops=max wiops=max");
        let limits = Limits { disk_iops: Some(50), ..Limits::default() };
        assert_eq!(io_max(LOOP, &limits), "7:3 rbps=max wbps=max riops=50 wiops=50");
    }

    #[test]
    fn a_rate_that_cannot_be_held_is_refused_and_none_is_not() {
        let limited = Limits { disk_iops: Some(50), ..Limits::default() };
        let nowhere = Path::new("/nowhere");
        for (has_io, disks) in [(false, Some(LOOP)), (true, None)] {
            let v2 = V2 { parent: nowhere.to_owned(), has_io, disks: Mutex::new(disks) };
            assert!(matches!(v2.hold_disk(nowhere, &limited), Err(ErrorKind::NoDiskRate { .. })));
            assert!(v2.hold_disk(nowhere, &Limits::default()).is_ok());
        }
    }
}
