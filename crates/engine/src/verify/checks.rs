//! The checks of a level: for each its name, what has to be so, what is tried inside, and who judges.

use garth_spec::{Network, ProbeCall, Try};
use garth_verify::judge::{descriptors, no_new_privs, refused, refused_locally, refused_or_empty, top, works};
use garth_verify::tries::{METADATA, PRIVATE, PUBLIC, calls, device_nodes, paths, raw_devices, web};
use garth_verify::{check, tries};

use super::judge;
use super::level::{Expect, Users};
use super::{Facts, Subject, machine};

/// One check.
pub(super) type Check = garth_verify::Check<Facts>;

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

fn kernel(subject: &Subject) -> Vec<Check> {
    let mut checks = tries::kernel(subject.level.refused);
    checks.push(check("filter", "a filter decides about system calls", Vec::new(), judge::filtered));
    checks
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
        checks.push(check("no-new-privs", "set-user-id programs gain nothing", status(), no_new_privs));
    }
    checks
}

fn files(subject: &Subject) -> Vec<Check> {
    let root = subject.read_only.then_some("/");
    let read_only: Vec<&str> = subject.level.read_only.iter().copied().chain(root).collect();
    vec![
        check("mounts", "nothing of the host is mounted", Vec::new(), judge::mounts),
        check("mounting", "mounting is as the level has it", vec![Try::Mount("tmpfs".to_owned())], judge::mounting),
        check("read-only", "what is read-only stays so", paths(Try::RemountWritable, &read_only), refused),
        check("root", "nothing is above the root", paths(Try::Identity, &["/", "/.."]), top),
        check("devices", "/dev has harmless devices only", paths(Try::Devices, &["/dev"]), judge::devices),
        raw_devices(),
        device_nodes(),
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
        checks.push(check("init", "its init cannot be looked into or changed", init, refused_or_empty));
    }
    let open = paths(Try::Entries, &["/proc/self/fd"]);
    checks.push(check("descriptors", "no descriptor of the host is open", open, descriptors));
    checks
}

pub(super) fn network(subject: &Subject) -> Vec<Check> {
    let hosts = subject.host.iter().copied().map(Try::Connect).collect();
    let (metadata, private) = (web(&METADATA), web(&PRIVATE));
    let guest = subject.guest.is_some();
    let blocked = if guest { judge::refused_on_the_wire } else { refused_locally };
    let apart = if guest { judge::neighbours_on_the_wire } else { judge::unreachable };
    let mut checks = vec![
        check("host-addresses", "this host cannot be reached on any of its addresses", hosts, judge::host_unreachable),
        check("metadata", "cloud metadata services are refused at once", metadata, blocked),
        check("private-networks", "private networks are refused at once", private, blocked),
        check("neighbours", "other sandboxes cannot be reached", web(&subject.neighbours), apart),
        check("loopback", "it can reach itself", vec![Try::Loopback], works),
    ];
    if subject.network == Network::None {
        checks.push(check("no-network", "there is no way out", web(&[PUBLIC]), refused_locally));
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
        check("limits", "its limits cannot be changed from inside", paths(Try::OpenForWrite, &own), refused),
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
