use serde::Serialize;

use crate::Level;
use crate::cgroups::Cgroups;

mod mapped;

/// One thing that sandboxes of this runtime need from the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is needed.
    pub name: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// What to do when it is not there.
    pub fix: Option<&'static str>,
}

/// Looks at what a level needs; changes nothing.
pub fn probe(level: Level) -> Vec<Finding> {
    let common = [root(), seccomp(), pidfd(), namespaces(), cgroups()];
    match level {
        Level::Default => common.into(),
        Level::Sysbox => common.into_iter().chain(mapped::probe()).collect(),
    }
}

pub(crate) fn finding(name: &'static str, result: Result<String, String>, fix: &'static str) -> Finding {
    match result {
        Ok(detail) => Finding { name, ok: true, detail, fix: None },
        Err(detail) => Finding { name, ok: false, detail, fix: Some(fix) },
    }
}

fn root() -> Finding {
    use rustix::thread::{CapabilitySet, capabilities};
    let wanted = CapabilitySet::SYS_ADMIN | CapabilitySet::MKNOD | CapabilitySet::SYS_CHROOT | CapabilitySet::KILL;
    let result = match capabilities(None) {
        Ok(sets) if sets.effective.contains(wanted) => Ok("all capabilities needed".to_owned()),
        Ok(sets) => Err(format!("missing {:?}", wanted - sets.effective)),
        Err(e) => Err(e.to_string()),
    };
    finding("root", result, "run the daemon as root, with all capabilities")
}

fn seccomp() -> Finding {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let result = match actions.split_whitespace().any(|action| action == "kill_process") {
        true => Ok("system call filters".to_owned()),
        false => Err("the kernel has no system call filters".to_owned()),
    };
    finding("seccomp", result, "use a kernel with CONFIG_SECCOMP_FILTER")
}

fn pidfd() -> Finding {
    let own = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty());
    let result = own.map(|_| "processes by descriptor".to_owned()).map_err(|e| e.to_string());
    finding("pidfd", result, "use Linux 5.10 or later")
}

fn namespaces() -> Finding {
    let missing: Vec<&str> = ["mnt", "pid", "net", "ipc", "uts", "cgroup"]
        .into_iter()
        .filter(|name| !std::path::Path::new("/proc/self/ns").join(name).exists())
        .collect();
    let result = match missing.is_empty() {
        true => Ok("mount, pid, net, ipc, uts, cgroup".to_owned()),
        false => Err(format!("missing {}", missing.join(", "))),
    };
    finding("namespaces", result, "use a kernel with CONFIG_NAMESPACES and all of its kinds")
}

fn cgroups() -> Finding {
    let result = Cgroups::find().map(str::to_owned).map_err(|e| e.to_string());
    finding("cgroups", result, "mount cgroup2 on /sys/fs/cgroup with the controllers cpu, memory and pids")
}
