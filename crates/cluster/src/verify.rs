//! The checks of a sandbox on a cluster: what is tried inside, and what the cluster itself says of its Pod and its node. Pure.
//!
//! There is no host to look from. What is trusted is the API server's word and the gateway's own port; the rest is an ordinary
//! process's, inside ([`garth_verify`]).

mod judge;

use std::net::{IpAddr, SocketAddr};

use garth_spec::{ByteSize, CpuCount, ProbeCall, Runtime, Try, pod as inside};
use garth_verify::judge::{descriptors, no_new_privs, refused, works};
use garth_verify::tries::{self, METADATA, PRIVATE, boot, calls, device_nodes, paths, raw_devices, web};
use garth_verify::{Check, check};
use k8s_openapi::api::core::v1::Pod;

use crate::resources::User;

/// What is known of a sandbox, from outside.
#[derive(Debug)]
pub(crate) struct Facts {
    /// What it was made to be.
    pub(crate) made: Made,
    /// Its Pod, as the API server has it.
    pub(crate) pod: Pod,
    /// Its node, or why that cannot be said.
    pub(crate) node: Result<Machine, String>,
    /// Addresses of other projects' sandboxes.
    pub(crate) neighbours: Vec<IpAddr>,
    /// The API server, as Pods reach it; none for a gateway outside the cluster.
    pub(crate) api_server: Option<SocketAddr>,
    /// Where the gateway listens for the time of the check.
    pub(crate) gateway: SocketAddr,
    /// Who connected there.
    pub(crate) arrived: Vec<SocketAddr>,
    /// Whether the disk that it sees is no larger than its limit; none when it does not say.
    pub(crate) disk_held: Option<bool>,
}

/// What a sandbox was made to be.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) runtime: Runtime,
    pub(crate) user: User,
    /// Whether its root is nobody on the node.
    pub(crate) user_namespace: bool,
    pub(crate) runtime_class: Option<String>,
    pub(crate) memory: Option<ByteSize>,
    pub(crate) cpus: Option<CpuCount>,
    /// Where the project's disk is mounted.
    pub(crate) disk: String,
}

/// A node, as the kubelet describes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Machine {
    pub(crate) boot_id: String,
    pub(crate) kernel: String,
    pub(crate) addresses: Vec<IpAddr>,
}

/// Where kubelets listen.
const KUBELET: u16 = 10250;

/// Every check, in the order in which they are made and shown. The facts need not be whole yet.
pub(crate) fn checks(facts: &Facts) -> Vec<Check<Facts>> {
    let Made { runtime, user, .. } = facts.made;
    let mut checks = pod();
    match (runtime, user) {
        (Runtime::Microvm, _) => checks.push(check("kernel", "its kernel is not the node's", boot(), judge::kernel)),
        (_, user) => checks.extend(shared_kernel(user)),
    }
    if user == User::Unprivileged {
        checks.extend(unprivileged());
    }
    checks.extend(network(facts));
    checks.extend(limits(facts));
    checks
}

fn pod() -> Vec<Check<Facts>> {
    let token = paths(Try::Read, &["/var/run/secrets/kubernetes.io/serviceaccount/token"]);
    vec![
        check("pod", "its Pod is the one that was asked for, and shares nothing with its node", Vec::new(), judge::pod),
        check("runtime-class", "its RuntimeClass is its runtime's", Vec::new(), judge::runtime_class),
        check("service-account", "it has no account at the API server", token, judge::service_account),
    ]
}

fn shared_kernel(user: User) -> Vec<Check<Facts>> {
    // Root of a user namespace is asked for with systemd and Docker in mind, and has no filter of ours.
    let risky: &[ProbeCall] = match user {
        User::Unprivileged => &[
            ProbeCall::Bpf,
            ProbeCall::PerfEventOpen,
            ProbeCall::Keyctl,
            ProbeCall::IoUringSetup,
            ProbeCall::OpenByHandleAt,
            ProbeCall::Userfaultfd,
        ],
        User::Root => &[ProbeCall::Bpf, ProbeCall::OpenByHandleAt],
    };
    let users = paths(Try::Read, &["/proc/self/status", "/proc/self/uid_map", "/proc/self/gid_map"]);
    // The kernel's own threads are in no PID namespace but the node's.
    let processes = paths(Try::Read, &["/proc/2/stat"]);
    let mut checks = tries::kernel(risky);
    checks.extend([
        check("users", "its user ids are the node's, or nobody's there, as its class has it", users, judge::users),
        check("processes", "no process of the node is seen", processes, judge::processes),
        check("devices", "/dev has harmless devices only", paths(Try::Devices, &["/dev"]), judge::devices),
        raw_devices(),
        device_nodes(),
    ]);
    checks
}

fn unprivileged() -> Vec<Check<Facts>> {
    let status = || paths(Try::Read, &["/proc/self/status"]);
    let open = paths(Try::Entries, &["/proc/self/fd"]);
    vec![
        check("capabilities", "nobody in it has a capability", status(), judge::capabilities),
        check("no-new-privs", "set-user-id programs gain nothing", status(), no_new_privs),
        check("filter", "a filter decides about system calls", status(), judge::filtered),
        check("mounting", "nothing can be mounted", vec![Try::Mount("tmpfs".to_owned())], refused),
        check("mounts", "nothing is mounted but the project's disk and its own", mounts(), judge::mounts),
        check("user-namespaces", "no user namespace can be made", calls(&[ProbeCall::UnshareUser]), refused),
        check("descriptors", "no descriptor of the node is open", open, descriptors),
    ]
}

fn mounts() -> Vec<Try> {
    paths(Try::Read, &["/proc/self/mountinfo"])
}

fn network(facts: &Facts) -> Vec<Check<Facts>> {
    let to = |port: u16, addresses: &[IpAddr]| -> Vec<Try> {
        addresses.iter().map(|address| Try::Connect(SocketAddr::new(*address, port))).collect()
    };
    let nodes = facts.node.as_ref().map(|node| to(KUBELET, &node.addresses)).unwrap_or_default();
    let neighbours = to(inside::PORT, &facts.neighbours);
    let api_server = facts.api_server.map(Try::Connect);
    let mut checks = vec![
        // Somebody listens there for certain: that a policy is there proves nothing of who carries it out.
        check(
            "network-policy",
            "its network policy is carried out: the gateway cannot be reached from inside",
            vec![Try::Connect(facts.gateway)],
            judge::policy,
        ),
        check("neighbours", "other sandboxes cannot be reached", neighbours, judge::neighbours),
        check("node", "its node cannot be reached", nodes, judge::node),
        check("metadata", "cloud metadata services cannot be reached", web(&METADATA), judge::unanswered),
        check("private-networks", "private networks cannot be reached", web(&PRIVATE), judge::unanswered),
    ];
    // A gateway that runs outside the cluster is not told where that is.
    checks.extend(
        api_server.map(|one| check("api-server", "the API server cannot be reached", vec![one], judge::unanswered)),
    );
    checks.push(check("loopback", "it can reach itself", vec![Try::Loopback], works));
    checks
}

fn limits(facts: &Facts) -> Vec<Check<Facts>> {
    // Who has a kernel or users of its own may divide its cgroup below the limits, which are the Pod's.
    let own = facts.made.runtime != Runtime::Microvm && facts.made.user == User::Unprivileged;
    let tried = |files: &[&str]| if own { paths(Try::Read, files) } else { Vec::new() };
    let memory = tried(&["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]);
    let cpus = tried(&[
        "/sys/fs/cgroup/cpu.max",
        "/sys/fs/cgroup/cpu/cpu.cfs_quota_us",
        "/sys/fs/cgroup/cpu/cpu.cfs_period_us",
    ]);
    let mut checks = Vec::new();
    if own {
        let files = [
            "/sys/fs/cgroup/memory.max",
            "/sys/fs/cgroup/cgroup.procs",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/cgroup.procs",
        ];
        checks.push(check(
            "limits",
            "its limits cannot be changed from inside",
            paths(Try::OpenForWrite, &files),
            refused,
        ));
    }
    checks.extend([
        check("memory-limit", "the limit on memory is in force", memory, judge::memory),
        check("cpu-limit", "the limit on processor time is in force", cpus, judge::cpus),
        check("disk-limit", "the limit on the disk is in force", Vec::new(), judge::disk),
    ]);
    checks
}

#[cfg(test)]
mod tests;
