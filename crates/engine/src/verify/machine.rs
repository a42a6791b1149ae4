//! The checks of a sandbox with a kernel of its own.
//!
//! Inside, root may do to its kernel what it likes: nothing there has to be refused. What counts is that the kernel is
//! another one, what it reaches by network, and that the hypervisor, which a guest may take over, has nothing to take.

use garth_spec::{ByteSize, Try};
use garth_verify::check;
use garth_verify::judge::no_new_privs;
use garth_verify::tries::{boot, paths};

use super::Subject;
use super::checks::{Check, network};
use super::judge;

/// What the machine was started with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guest {
    pub(super) memory: ByteSize,
    /// Whether QEMU translates its instructions, instead of the processor running them.
    pub(super) translated: bool,
}

/// The host's processes that a guest must not see: this daemon and its hypervisor.
pub(super) fn of_ours(subject: &Subject) -> [String; 2] {
    let own = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
    [own, subject.pid].map(|pid| format!("/proc/{pid}/stat"))
}

/// Every check, in the order in which they are made and shown.
pub(super) fn of(subject: &Subject) -> Vec<Check> {
    let mut checks = inside(subject);
    checks.extend(jail());
    checks.extend(network(subject));
    checks.extend(limits());
    checks
}

fn inside(subject: &Subject) -> Vec<Check> {
    let mut processes = paths(Try::Entries, &["/proc"]);
    processes.extend(of_ours(subject).map(Try::Read));
    let mut checks = vec![
        check("kernel", "its kernel is not the host's", boot(), judge::kernel),
        check("accelerator", "what keeps its kernel apart is what was chosen", Vec::new(), judge::accelerator),
        check("processes", "no process of the host is seen", processes, judge::own_processes),
    ];
    if subject.no_new_privs {
        let status = paths(Try::Read, &["/proc/self/status"]);
        checks.push(check("no-new-privs", "set-user-id programs gain nothing", status, no_new_privs));
    }
    checks
}

fn jail() -> Vec<Check> {
    vec![
        check("users", "the hypervisor is a user of its own", Vec::new(), judge::jailed_user),
        check("capabilities", "the hypervisor has no capability and gains none", Vec::new(), judge::powerless),
        check("filter", "a filter decides about the hypervisor's system calls", Vec::new(), judge::filtered),
        check("namespaces", "the hypervisor's namespaces are not the host's", Vec::new(), judge::namespaces),
        check("mounts", "the hypervisor sees only what it opens", Vec::new(), judge::shown),
        check("descriptors", "the hypervisor has nothing else open", Vec::new(), judge::open),
    ]
}

fn limits() -> Vec<Check> {
    let size = paths(Try::Read, &["/proc/meminfo", "/sys/devices/system/cpu/online"]);
    vec![
        check("numbers", "it has no more memory than its limit", size, judge::size),
        check("pids-limit", "the limit on the hypervisor's threads is in force", Vec::new(), judge::threads),
        check("cpu-limit", "the limit on processor time is in force", Vec::new(), judge::cpus),
        check("disk-limit", "the limit on the disk is in force", Vec::new(), judge::disk),
        check("memory-limit", "the limit on memory is in force", Vec::new(), judge::machine_memory),
    ]
}
