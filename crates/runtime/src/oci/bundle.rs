//! What an OCI runtime is told (OCI runtime specification 1.0, config.md): from a plan to JSON, by a pure function.
//!
//! What Sysbox sees to by itself is left to it: it adds its cgroup and time namespaces, puts its own /proc, /sys, /dev
//! and cgroups in the place of those asked for here, and gives process 1 all capabilities. What is here is what the
//! specification needs to be complete, so that any runtime that can join a user namespace runs the same bundle.
use std::path::{Path, PathBuf};

use garth_spec::Limits;
use serde_json::{Value, json};

use crate::SandboxPlan;
use crate::ids::{FirstId, IDS};
use crate::steps::{INIT_OOM_SCORE_ADJ, shares_of_memory};

/// What a bundle is made from, besides the plan.
#[derive(Debug, Clone)]
pub(crate) struct Parts<'a> {
    pub(crate) plan: &'a SandboxPlan,
    /// Where the disk is mounted.
    pub(crate) rootfs: PathBuf,
    /// Parts of the disk that are mounts of their own: where each is in the sandbox, and where on the host.
    pub(crate) volumes: &'a [(&'static str, PathBuf)],
    /// The process whose user and network namespaces are joined.
    pub(crate) holder: i32,
    pub(crate) first: FirstId,
    /// Below the root of each cgroup hierarchy.
    pub(crate) cgroup: String,
    /// Nodes of /proc that are covered.
    pub(crate) masked: &'a [String],
    /// Devices of the host that exist besides those that every container has.
    pub(crate) devices: Vec<Device>,
}

/// A character device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) path: &'static str,
    pub(crate) number: (u32, u32),
}

/// What is kept in the user and network namespaces of who opens it.
pub(crate) const DEVICES: [Device; 2] =
    [Device { path: "/dev/fuse", number: (10, 229) }, Device { path: "/dev/net/tun", number: (10, 200) }];

/// Where Sysbox would put a volume of its own, that goes with the container; what is mounted there by us stays on the
/// project's disk.
pub(crate) const VOLUMES: [&str; 7] = [
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/lib/k0s",
    "/var/lib/rancher/k3s",
    "/var/lib/rancher/rke2",
    "/var/lib/buildkit",
    "/var/lib/containerd/io.containerd.snapshotter.v1.overlayfs",
];

/// How the agent is started: from its standard error, a sealed memory file.
const AGENT: [&str; 2] = ["/proc/self/fd/2", "container"];

/// `config.json`.
pub(crate) fn config(parts: &Parts<'_>) -> Value {
    let first = parts.first.get();
    let ids = json!([{ "containerID": 0, "hostID": first, "size": IDS }]);
    let masked = parts.masked.iter().map(|node| format!("/proc/{node}"));
    let masked: Vec<String> =
        masked.chain(["/sys/firmware", "/sys/devices/virtual/powercap"].map(str::to_owned)).collect();
    json!({
        "ociVersion": "1.0.2",
        "root": { "path": parts.rootfs, "readonly": false },
        "hostname": parts.plan.hostname,
        "process": process(),
        "mounts": mounts(parts.volumes, parts.plan.limits.memory.bytes()),
        "linux": {
            "namespaces": namespaces(parts.holder),
            "uidMappings": ids,
            "gidMappings": ids,
            "cgroupsPath": parts.cgroup,
            "resources": resources(&parts.plan.limits, &parts.devices),
            "devices": parts.devices.iter().map(device).collect::<Vec<_>>(),
            "rootfsPropagation": "private",
            "maskedPaths": masked,
            "readonlyPaths": [],
        },
    })
}

fn process() -> Value {
    let all: Vec<String> = CAPABILITIES.split(' ').map(|name| format!("CAP_{name}")).collect();
    json!({
        "terminal": false,
        "user": { "uid": 0, "gid": 0, "umask": 0o022 },
        "args": AGENT,
        "env": [],
        "cwd": "/",
        "capabilities": {
            "bounding": all, "effective": all, "permitted": all, "inheritable": [], "ambient": [],
        },
        // 1 and not 0: see `steps::base_steps`.
        "rlimits": [{ "type": "RLIMIT_CORE", "soft": 1, "hard": 1 }],
        "noNewPrivileges": false,
        "oomScoreAdj": INIT_OOM_SCORE_ADJ,
    })
}

/// All: they count in the sandbox's user namespace.
const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT \
SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP \
MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";

fn namespaces(holder: i32) -> Value {
    json!([
        { "type": "user", "path": format!("/proc/{holder}/ns/user") },
        { "type": "network", "path": format!("/proc/{holder}/ns/net") },
        { "type": "mount" },
        { "type": "pid" },
        { "type": "ipc" },
        { "type": "uts" },
        { "type": "cgroup" },
    ])
}

fn mounts(volumes: &[(&'static str, PathBuf)], memory: u64) -> Value {
    let [shm, run] = shares_of_memory(memory).map(|(_, bytes)| format!("size={bytes}"));
    let mount = |at: &str, kind: &str, options: &[&str]| json!({ "destination": at, "type": kind, "source": kind, "options": options });
    let mut mounts = vec![
        mount("/proc", "proc", &["nosuid", "noexec", "nodev"]),
        mount("/dev", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        mount(
            "/dev/pts",
            "devpts",
            &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5", "max=256"],
        ),
        mount("/dev/shm", "tmpfs", &["nosuid", "noexec", "nodev", "mode=1777", &shm]),
        mount("/dev/mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        mount("/sys", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        mount("/sys/fs/cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime"]),
        mount("/run", "tmpfs", &["nosuid", "nodev", "mode=755", &run]),
    ];
    mounts.extend(volumes.iter().map(|(at, from)| bind(at, from)));
    Value::Array(mounts)
}

fn bind(at: &str, from: &Path) -> Value {
    json!({ "destination": at, "type": "bind", "source": from, "options": ["rbind", "rprivate", "nodev"] })
}

/// The limits as an OCI runtime takes them, in `config.json` and for its `update`.
pub(crate) fn limits(limits: &Limits) -> Value {
    let memory = limits.memory.bytes();
    json!({
        // With swap: the same number, so that there is none.
        "memory": { "limit": memory, "swap": memory },
        "cpu": { "quota": u64::from(limits.cpus.millis()) * PERIOD / 1000, "period": PERIOD },
        "pids": { "limit": limits.pids },
    })
}

/// The kernel's default, in microseconds.
const PERIOD: u64 = 100_000;

fn resources(asked: &Limits, devices: &[Device]) -> Value {
    let rule = |device: &Device| {
        let (major, minor) = device.number;
        json!({ "allow": true, "type": "c", "major": major, "minor": minor, "access": "rwm" })
    };
    let mut rules = vec![json!({ "allow": false, "access": "rwm" })];
    rules.extend(devices.iter().map(rule));
    let mut resources = limits(asked);
    resources["devices"] = Value::Array(rules);
    resources
}

fn device(device: &Device) -> Value {
    let (major, minor) = device.number;
    json!({ "path": device.path, "type": "c", "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0 })
}

#[cfg(test)]
mod tests;
