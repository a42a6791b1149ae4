use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use garth_kernel::namespace;
use garth_spec::Limits;

use super::{DEVICES, PERIOD, Usage, field, number, quota};
use crate::error::ErrorKind;

const NEEDED: [&str; 3] = ["cpu", "memory", "pids"];

/// cgroup v2: one tree.
#[derive(Debug)]
pub(crate) struct V2 {
    parent: PathBuf,
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
        let enable: Vec<String> = NEEDED.iter().map(|name| format!("+{name}")).collect();
        for directory in [root, &parent] {
            fs::write(directory.join("cgroup.subtree_control"), enable.join(" "))?;
        }
        // Once on the parent: what is below can have no more.
        match garth_kernel::devices::allow_only(fs::File::open(&parent)?.as_fd(), &DEVICES) {
            // In a sandbox, where nobody can make a node of another device, and whose own program holds for all below.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied && !namespace::has_machines_users()? => {}
            result => result?,
        }
        Ok(Self { parent })
    }

    pub(super) fn below(root: &Path, parent: &str) -> Self {
        Self { parent: root.join(parent) }
    }

    /// Whether the controllers are there.
    pub(super) fn check(root: &Path) -> Result<(), ErrorKind> {
        let controllers = fs::read_to_string(root.join("cgroup.controllers"))?;
        let has = |name: &&str| controllers.split_whitespace().any(|found| found == *name);
        let missing: Vec<&str> = NEEDED.into_iter().filter(|name| !has(name)).collect();
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
