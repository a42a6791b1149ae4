//! The checks of a level: for each its name, what has to be so, what is tried inside, and who judges.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use garth_spec::{Network, ProbeCall, Try};

use super::Subject;
use super::judge::{self, Evidence, Verdict};
use super::level::{Expect, Users};
use super::machine;

/// One check.
#[derive(Debug, Clone)]
pub(super) struct Check {
    pub(super) id: &'static str,
    pub(super) what: &'static str,
    /// None where the host sees it by itself.
    pub(super) tries: Vec<Try>,
    pub(super) judge: fn(&Evidence<'_>) -> Verdict,
}

/// Up to these limits a sandbox is made to meet them; above, taking that much would hurt whoever works in it.
const MEMORY_TRIED: u64 = 512 << 20;
const PIDS_TRIED: u32 = 512;

/// Every check of the subject's level, in the order in which they are made and shown.
pub(super) fn of(subject: &Subject) -> Vec<Check> {
    if subject.guest.is_some() {
        return machine::of(subject);
    }
    let mut checks = kernel(subject);
    checks.extend(identity(subject));
    checks.extend(files(subject));
    checks.extend(processes(subject));
    checks.extend(network(subject));
    checks.extend(limits(subject));
    checks
}

pub(super) fn check(
    id: &'static str,
    what: &'static str,
    tries: Vec<Try>,
    judge: fn(&Evidence<'_>) -> Verdict,
) -> Check {
    Check { id, what, tries, judge }
}

pub(super) fn paths(of: fn(String) -> Try, paths: &[&str]) -> Vec<Try> {
    paths.iter().map(|path| of((*path).to_owned())).collect()
}

fn calls(calls: &[ProbeCall]) -> Vec<Try> {
    calls.iter().copied().map(Try::Call).collect()
}

fn kernel(subject: &Subject) -> Vec<Check> {
    let settings = [
        "/proc/sys/kernel/panic",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
    ];
    let mut log = paths(Try::Read, &["/proc/kmsg", "/dev/kmsg"]);
    log.extend(calls(&[ProbeCall::Syslog]));
    vec![
        check(
            "kernel-memory",
            "the kernel's memory cannot be read",
            paths(Try::Read, &["/proc/kcore", "/dev/mem", "/dev/port"]),
            judge::refused_or_empty,
        ),
        check(
            "kernel-addresses",
            "the kernel's addresses are hidden",
            paths(Try::Read, &["/proc/kallsyms"]),
            judge::no_addresses,
        ),
        check("kernel-log", "the kernel's log cannot be read", log, judge::refused_or_empty),
        check(
            "kernel-settings",
            "the machine's settings cannot be written",
            paths(Try::OpenForWrite, &settings),
            judge::refused,
        ),
        check("kernel-modules", "no module can be loaded", calls(&[ProbeCall::InitModule]), judge::refused),
        check("system-calls", "risky system calls are refused", calls(subject.level.refused), judge::refused),
        check("filter", "a filter decides about system calls", Vec::new(), judge::filtered),
    ]
}

fn identity(subject: &Subject) -> Vec<Check> {
    let status = || paths(Try::Read, &["/proc/self/status"]);
    let users = match subject.level.users {
        Users::Hosts => "user ids are mapped as the level has it: the host's",
        Users::Own { .. } => "user ids are mapped as the level has it: a range that is nobody's on the host",
    };
    let mut checks = vec![
        check("capabilities", "nobody in it has more capabilities than the level", status(), judge::capabilities),
        check("users", users, Vec::new(), judge::users),
        check("namespaces", "its namespaces are not the host's", Vec::new(), judge::namespaces),
        check(
            "user-namespaces",
            "making a user namespace is as the level has it",
            calls(&[ProbeCall::UnshareUser]),
            judge::user_namespace,
        ),
    ];
    if subject.no_new_privs {
        checks.push(check("no-new-privs", "set-user-id programs gain nothing", status(), judge::no_new_privs));
    }
    checks
}

fn files(subject: &Subject) -> Vec<Check> {
    let root = subject.read_only.then_some("/");
    let read_only: Vec<&str> = subject.level.read_only.iter().copied().chain(root).collect();
    vec![
        check("mounts", "nothing of the host is mounted", Vec::new(), judge::mounts),
        check("mounting", "mounting is as the level has it", vec![Try::Mount("tmpfs".to_owned())], judge::mounting),
        check("read-only", "what is read-only stays so", paths(Try::RemountWritable, &read_only), judge::refused),
        check("root", "nothing is above the root", paths(Try::Identity, &["/", "/.."]), judge::top),
        check("devices", "/dev has harmless devices only", paths(Try::Devices, &["/dev"]), judge::devices),
        check(
            "raw-devices",
            "memory, disks and virtualisation are not in /dev",
            paths(Try::Identity, &["/dev/mem", "/dev/kvm", "/dev/sda", "/dev/vda", "/dev/loop-control"]),
            judge::absent,
        ),
        check(
            "device-nodes",
            "no node of a disk can be made and opened",
            [8, 7, 254].map(|major| Try::BlockDevice { major, minor: 0 }).to_vec(),
            judge::refused,
        ),
    ]
}

fn processes(subject: &Subject) -> Vec<Check> {
    let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    let mut hosts = paths(Try::Entries, &["/proc"]);
    hosts.extend([own, subject.pid].map(Try::Signal));
    // The numbers of its descriptors can be listed, what they are cannot.
    let mut init = paths(Try::Link, &["/proc/1/root", "/proc/1/cwd", "/proc/1/exe", "/proc/1/fd/0", "/proc/1/ns/mnt"]);
    init.extend(paths(Try::Entries, &["/proc/1/root/", "/proc/1/map_files"]));
    init.extend(paths(Try::Read, &["/proc/1/environ", "/proc/1/mem"]));
    init.extend(paths(Try::OpenForWrite, &["/proc/1/exe", "/proc/1/mem"]));
    let mut checks = vec![check("processes", "only its own processes are seen and signalled", hosts, judge::processes)];
    if subject.level.init == Expect::Refused {
        checks.push(check("init", "its init cannot be looked into or changed", init, judge::refused_or_empty));
    }
    let descriptors = paths(Try::Entries, &["/proc/self/fd"]);
    checks.push(check("descriptors", "no descriptor of the host is open", descriptors, judge::descriptors));
    checks
}

/// The metadata services of clouds.
const METADATA: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254))];

/// One address of each private or shared range.
const PRIVATE: [IpAddr; 7] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(100, 64, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(172, 16, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2002, 0x0a00, 1, 0, 0, 0, 0, 1)),
];

const HTTP: u16 = 80;

pub(super) fn network(subject: &Subject) -> Vec<Check> {
    let port = |address: &IpAddr| Try::Connect(SocketAddr::new(*address, HTTP));
    let hosts = subject.host.iter().copied().map(Try::Connect).collect();
    let (metadata, private) = (METADATA.iter().map(port).collect(), PRIVATE.iter().map(port).collect());
    let guest = subject.guest.is_some();
    let blocked = if guest { judge::refused_on_the_wire } else { judge::refused_locally };
    let apart = if guest { judge::neighbours_on_the_wire } else { judge::unreachable };
    let neighbours: Vec<Try> = subject.neighbours.iter().map(port).collect();
    let mut checks = vec![
        check("host-addresses", "this host cannot be reached on any of its addresses", hosts, judge::host_unreachable),
        check("metadata", "cloud metadata services are refused at once", metadata, blocked),
        check("private-networks", "private networks are refused at once", private, blocked),
        check("neighbours", "other sandboxes cannot be reached", neighbours, apart),
        check("loopback", "it can reach itself", vec![Try::Loopback], judge::works),
    ];
    if subject.network == Network::None {
        let public = Try::Connect(SocketAddr::new(Ipv4Addr::new(192, 0, 2, 1).into(), HTTP));
        checks.push(check("no-network", "there is no way out", vec![public], judge::refused_locally));
    }
    checks
}

fn limits(subject: &Subject) -> Vec<Check> {
    let (memory, pids) = (subject.limits.memory.bytes(), subject.limits.pids);
    let hog = (memory <= MEMORY_TRIED).then_some(Try::Allocate(memory + (32 << 20)));
    let crowd = (pids <= PIDS_TRIED).then_some(Try::Threads(pids + 8));
    let mut own = vec![
        "/sys/fs/cgroup/memory.max",
        "/sys/fs/cgroup/pids.max",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes",
        "/sys/fs/cgroup/pids/pids.max",
    ];
    if subject.level.users == Users::Hosts {
        // With users of its own, a sandbox may divide its cgroup, below the limits.
        own.extend(["/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/cgroup.procs"]);
    }
    let mut checks = vec![
        check("limits", "its limits cannot be changed from inside", paths(Try::OpenForWrite, &own), judge::refused),
        check("pids-limit", "the limit on processes is in force", crowd.into_iter().collect(), judge::pids),
        check("cpu-limit", "the limit on processor time is in force", Vec::new(), judge::cpus),
        check("disk-limit", "the limit on the disk is in force", Vec::new(), judge::disk),
    ];
    if subject.level.own_numbers {
        let files = ["/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/sys/devices/system/cpu/online", "/proc/uptime"];
        checks.push(check(
            "numbers",
            "it sees its own limits, not the machine's",
            paths(Try::Read, &files),
            judge::numbers,
        ));
    }
    // Last: it is the one that takes from whoever works in the sandbox.
    checks.push(check("memory-limit", "the limit on memory is in force", hog.into_iter().collect(), judge::memory));
    checks
}
