use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use garth_spec::Limits;
use rustix::io::Errno;

use super::{DEVICES, Usage, field, number, quota};
use crate::error::ErrorKind;

/// Controllers that a slot has a cgroup of its own in.
const NEEDED: [&str; 4] = ["memory", "cpu", "cpuacct", "pids"];

/// cgroup v1: one hierarchy per controller, or per few.
#[derive(Debug)]
pub(crate) struct V1 {
    hierarchies: Vec<Hierarchy>,
    devices: Option<PathBuf>,
    /// The parent of slots in a v2 tree without controllers, beside these.
    unified: Option<PathBuf>,
}

#[derive(Debug)]
struct Hierarchy {
    /// Its mount point's last part, as in `cpu,cpuacct`.
    name: String,
    controllers: Vec<String>,
    /// The parent of the slots.
    parent: PathBuf,
}

impl V1 {
    pub(super) fn open(mounts: &str, parent: &str) -> Result<Self, ErrorKind> {
        let v1 = Self::find(mounts, parent)?;
        for parent in v1.all_parents() {
            make(&parent)?;
        }
        v1.allow_devices()?;
        Ok(v1)
    }

    /// Whether the controllers are there, and where.
    pub(super) fn find(mounts: &str, parent: &str) -> Result<Self, ErrorKind> {
        let hierarchies = hierarchies(mounts, parent);
        let found: BTreeSet<&str> = hierarchies.iter().flat_map(|h| h.controllers.iter().map(String::as_str)).collect();
        let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !found.contains(name)).collect();
        if !missing.is_empty() {
            return Err(ErrorKind::NoCgroups { missing: missing.join(", ") });
        }
        let has = |h: &Hierarchy, names: &[&str]| h.controllers.iter().any(|c| names.contains(&c.as_str()));
        let devices = hierarchies.iter().find(|h| has(h, &["devices"]) && !has(h, &NEEDED)).map(|h| h.parent.clone());
        let hierarchies: Vec<Hierarchy> = hierarchies.into_iter().filter(|h| has(h, &NEEDED)).collect();
        Ok(Self { hierarchies, devices, unified: unified(mounts, parent) })
    }

    /// Once on the parent: what is below can have no more.
    fn allow_devices(&self) -> io::Result<()> {
        let Some(devices) = &self.devices else { return Ok(()) };
        fs::write(devices.join("devices.deny"), "a")?;
        DEVICES.iter().try_for_each(|device| {
            let minor = device.minor.map_or("*".to_owned(), |minor| minor.to_string());
            fs::write(devices.join("devices.allow"), format!("c {}:{minor} rwm", device.major))
        })
    }

    /// The parent of slots in the v2 tree of a hybrid host.
    pub(super) fn unified(&self) -> Option<&Path> {
        self.unified.as_deref()
    }

    /// Where the root spawner goes, so that everything it makes is bound by the device rules.
    pub(crate) fn devices(&self) -> Option<&Path> {
        self.devices.as_deref()
    }

    pub(super) fn layout(&self) -> (Vec<String>, Vec<(String, String)>) {
        let names = self.hierarchies.iter().map(|h| h.name.clone()).collect();
        let links = |h: &Hierarchy| -> Vec<(String, String)> {
            let others = h.controllers.iter().filter(|controller| **controller != h.name);
            others.map(|controller| (controller.clone(), h.name.clone())).collect()
        };
        (names, self.hierarchies.iter().flat_map(links).collect())
    }

    pub(super) fn directories(&self, slot: &str) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|h| h.parent.join(slot)).collect()
    }

    pub(super) fn parents(&self) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|h| h.parent.clone()).collect()
    }

    pub(super) fn all_parents(&self) -> Vec<PathBuf> {
        self.parents().into_iter().chain(self.devices.clone()).chain(self.unified.clone()).collect()
    }

    pub(super) fn file(&self, controller: &str, slot: &str, file: &str) -> PathBuf {
        let hierarchy = self.hierarchies.iter().find(|h| h.controllers.iter().any(|c| c == controller));
        // `open` refuses a machine without one of the needed controllers.
        hierarchy.map(|h| h.parent.join(slot).join(file)).unwrap_or_default()
    }

    pub(super) fn limit(&self, slot: &str, limits: &Limits) -> Result<(), ErrorKind> {
        self.limit_memory(slot, limits.memory.bytes())?;
        fs::write(self.file("cpu", slot, "cpu.cfs_quota_us"), quota(limits).to_string())?;
        // One more for the spawner.
        fs::write(self.file("pids", slot, "pids.max"), (u64::from(limits.pids) + 1).to_string())?;
        Ok(())
    }

    /// Memory, and memory with swap to the same: the second may never be below the first, so which comes first depends
    /// on whether the limit grows.
    fn limit_memory(&self, slot: &str, bytes: u64) -> Result<(), ErrorKind> {
        let memory = self.file("memory", slot, "memory.limit_in_bytes");
        let with_swap = self.file("memory", slot, "memory.memsw.limit_in_bytes");
        let bytes = bytes.to_string();
        let set_swap = || match fs::write(&with_swap, &bytes) {
            // Swap is not accounted on this machine.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        };
        let result = match fs::write(&memory, &bytes) {
            Ok(()) => set_swap(),
            Err(e) if is(&e, Errno::INVAL) => set_swap().and_then(|()| fs::write(&memory, &bytes)),
            Err(e) => Err(e),
        };
        result.map_err(|e| if is(&e, Errno::BUSY) { ErrorKind::InUse } else { e.into() })
    }

    pub(super) fn usage(&self, slot: &str) -> io::Result<Usage> {
        let used = number(&self.file("memory", slot, "memory.usage_in_bytes"))?;
        let cache = field(&self.file("memory", slot, "memory.stat"), "total_inactive_file")?;
        Ok(Usage {
            memory: used.saturating_sub(cache),
            cpu_micros: number(&self.file("cpuacct", slot, "cpuacct.usage"))? / 1000,
            pids: number(&self.file("pids", slot, "pids.current"))?,
            oom_kills: field(&self.file("memory", slot, "memory.oom_control"), "oom_kill")?,
        })
    }

    pub(super) fn forget_file(&self, slot: &str) -> PathBuf {
        self.file("memory", slot, "memory.force_empty")
    }
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

const CONTROLLERS: [&str; 14] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "blkio",
    "pids",
    "net_cls",
    "net_prio",
    "perf_event",
    "hugetlb",
    "rdma",
    "misc",
];

fn unified(mounts: &str, parent: &str) -> Option<PathBuf> {
    let mut lines = mounts.lines().map(|line| line.split(' ').skip(1));
    let mount =
        lines.find_map(|mut words| Some((words.next()?, words.next()?)).filter(|(_, kind)| *kind == "cgroup2"))?;
    Some(Path::new(mount.0).join(parent))
}

/// Reads lines of `/proc/mounts`: `device mountpoint type options …`.
fn hierarchies(mounts: &str, parent: &str) -> Vec<Hierarchy> {
    mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            let (mount, kind, options) = (Path::new(words.next()?), words.next()?, words.next()?);
            let controllers: Vec<String> =
                options.split(',').filter(|option| CONTROLLERS.contains(option)).map(str::to_owned).collect();
            let name = mount.file_name()?.to_str()?.to_owned();
            (kind == "cgroup" && !controllers.is_empty()).then(|| Hierarchy {
                name,
                controllers,
                parent: mount.join(parent),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
proc /proc proc rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,nosuid,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,xattr,name=systemd 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
";

    #[test]
    fn hierarchies_with_several_controllers_are_one() {
        let found = hierarchies(MOUNTS, "garth-x");
        assert_eq!(found.iter().map(|h| h.name.as_str()).collect::<Vec<_>>(), ["cpu,cpuacct", "memory"]);
        assert_eq!(unified(MOUNTS, "garth-x").as_deref(), Some(Path::new("/sys/fs/cgroup/unified/garth-x")));
        let v1 = V1 { hierarchies: found, devices: None, unified: None };
        let (names, links) = v1.layout();
        assert_eq!(names.len(), 2);
        assert_eq!(links, [("cpu", "cpu,cpuacct"), ("cpuacct", "cpu,cpuacct")].map(|(a, b)| (a.into(), b.into())));
        let file = v1.file("cpuacct", "s1", "cpuacct.usage");
        assert_eq!(file, Path::new("/sys/fs/cgroup/cpu,cpuacct/garth-x/s1/cpuacct.usage"));
    }

    #[test]
    fn a_machine_without_a_needed_controller_is_refused() {
        let error = V1::open("", "garth-x").expect_err("no cgroups").to_string();
        assert!(error.contains("memory") && error.contains("pids"), "{error}");
    }
}
