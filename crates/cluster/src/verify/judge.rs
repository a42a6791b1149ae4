//! From what was seen to pass or fail, with the evidence in words. Pure.

use garth_spec::{Observed, pod as inside};
use garth_verify::judge::{self, another_kernel, bytes_of, capability_set, each, field, name, outcome, ranges, text};
use garth_verify::tries::{DEVICES, MORE_DEVICES};
use garth_verify::{Evidence, Verdict};
use k8s_openapi::api::core::v1::{Container, PodSpec, Volume};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::Facts;
use crate::quantity;
use crate::render::SANDBOX;
use crate::resources::User;

type Seen<'a> = Evidence<'a, Facts>;

fn spec<'a>(seen: &Seen<'a>) -> Result<&'a PodSpec, String> {
    seen.facts.pod.spec.as_ref().ok_or_else(|| "the API server says nothing of its Pod".to_owned())
}

/// The containers that Garth asks for.
const CONTAINERS: [&str; 2] = ["agent", SANDBOX];

/// Neither a namespace nor a directory of the node, no privilege, and no container that whoever changes Pods on their way in
/// has put beside it: that one would share its network.
pub(super) fn pod(seen: &Seen<'_>) -> Verdict {
    let spec = spec(seen)?;
    let shared = [
        (spec.host_network, "the node's network"),
        (spec.host_pid, "the node's processes"),
        (spec.host_ipc, "the node's IPC"),
        (spec.share_process_namespace, "one PID namespace for its containers"),
    ];
    let mut wrong: Vec<String> = shared
        .into_iter()
        .filter(|(shares, _)| *shares == Some(true))
        .map(|(_, what)| format!("it has {what}"))
        .collect();
    let directories = spec.volumes.iter().flatten().filter(|volume| volume.host_path.is_some());
    wrong.extend(directories.map(|volume| format!("volume {} is a directory of the node", volume.name)));
    let ephemeral = spec.ephemeral_containers.iter().flatten().map(|one| format!("container {} was added", one.name));
    wrong.extend(ephemeral);
    for container in spec.init_containers.iter().flatten().chain(&spec.containers) {
        wrong.extend(of_container(container));
    }
    match wrong.is_empty() {
        true => Ok("two containers and no privilege, nothing of the node".to_owned()),
        false => Err(wrong.join("; ")),
    }
}

fn of_container(container: &Container) -> Vec<String> {
    let own = &container.name;
    if !CONTAINERS.contains(&own.as_str()) {
        return vec![format!("container {own} is not Garth's")];
    }
    let security = container.security_context.as_ref();
    let mut wrong = Vec::new();
    if security.is_some_and(|security| security.privileged == Some(true)) {
        wrong.push(format!("container {own} is privileged"));
    }
    let added = security.and_then(|security| security.capabilities.as_ref()?.add.clone()).unwrap_or_default();
    if !added.is_empty() {
        wrong.push(format!("container {own} has {}", added.join(", ")));
    }
    if container.ports.iter().flatten().any(|port| port.host_port.is_some()) {
        wrong.push(format!("container {own} has a port of the node"));
    }
    wrong
}

/// The one that its class names, and a user namespace where it does.
pub(super) fn runtime_class(seen: &Seen<'_>) -> Verdict {
    let (spec, made) = (spec(seen)?, &seen.facts.made);
    let said = |class: Option<&str>| class.map_or_else(|| "none".to_owned(), |class| format!("{class:?}"));
    let (has, wanted) = (spec.runtime_class_name.as_deref(), made.runtime_class.as_deref());
    if wanted.is_some() && has != wanted {
        return Err(format!("it is {}, not {}", said(has), said(wanted)));
    }
    if made.user_namespace && spec.host_users != Some(false) {
        return Err("its Pod has the node's users, and was to have its own".to_owned());
    }
    Ok(format!("it is {}", said(has)))
}

/// No token of any account, in any volume or place.
pub(super) fn service_account(seen: &Seen<'_>) -> Verdict {
    let has_token = |volume: &&Volume| {
        let projected = volume.projected.iter().flat_map(|projected| projected.sources.iter().flatten());
        projected.into_iter().any(|source| source.service_account_token.is_some())
    };
    if let Some(volume) = spec(seen)?.volumes.iter().flatten().find(has_token) {
        return Err(format!("volume {} is a token", volume.name));
    }
    judge::refused(seen)
}

/// Another boot than the node's.
pub(super) fn kernel(seen: &Seen<'_>) -> Verdict {
    let node = seen.facts.node.as_ref()?;
    another_kernel(seen, "node", &node.boot_id, &node.kernel)
}

/// Ids of the lowest range that user namespaces of Pods may get (KEP-127).
const OWN_IDS: u64 = 65_536;

/// The node's, or from a range that is nobody's there.
pub(super) fn users(seen: &Seen<'_>) -> Verdict {
    let status = text(seen, 0)?;
    let user = field(status, "Uid").and_then(|ids| ids.split_whitespace().next()?.parse::<u64>().ok());
    let user = user.ok_or_else(|| "the user of a process cannot be read".to_owned())?;
    for (at, what) in [(1, "uids"), (2, "gids")] {
        let ranges = ranges(text(seen, at)?).ok_or_else(|| format!("the map of {what} cannot be read"))?;
        if seen.facts.made.user_namespace && ranges.iter().any(|(_, outside, _)| *outside < OWN_IDS) {
            return Err(format!("{what} are mapped {ranges:?}: they are someone's on the node"));
        }
    }
    match (seen.facts.made.user_namespace, user) {
        (true, user) => Ok(format!("uid {user}, in a range of its own")),
        (false, 0) => Err("it is uid 0, and that of the node".to_owned()),
        (false, user) => Ok(format!("uid {user}, and that on the node")),
    }
}

/// Process 2 is no thread of a kernel's.
pub(super) fn processes(seen: &Seen<'_>) -> Verdict {
    match seen.tried {
        [(_, Observed::Text(second))] if second.contains("(kthreadd)") => {
            Err("the kernel's own threads are seen: these are the node's processes".to_owned())
        }
        [(_, Observed::Text(_) | Observed::Errno(judge::errno::NOENT))] => Ok("no thread of the kernel's".to_owned()),
        _ => each(seen, |_, _| false),
    }
}

/// Only device nodes that do no harm.
pub(super) fn devices(seen: &Seen<'_>) -> Verdict {
    judge::devices(seen, if seen.facts.made.user == User::Root { MORE_DEVICES } else { DEVICES })
}

/// No set of a process holds one.
pub(super) fn capabilities(seen: &Seen<'_>) -> Verdict {
    let status = text(seen, 0)?;
    for set in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        match capability_set(status, set) {
            Some(0) => {}
            Some(found) => return Err(format!("a process has {set} {found:#x}")),
            None => return Err(format!("{set} of a process cannot be read")),
        }
    }
    Ok("no capability in any set".to_owned())
}

/// A filter decides about system calls.
pub(super) fn filtered(seen: &Seen<'_>) -> Verdict {
    match field(text(seen, 0)?, "Seccomp") {
        Some("2") => Ok("a process has one".to_owned()),
        Some(mode) => Err(format!("seccomp mode of a process is {mode}, not 2")),
        None => Err("the seccomp mode of a process cannot be read".to_owned()),
    }
}

/// What the kubelet and Garth mount.
const MOUNTS: [&str; 8] = [
    "/",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/garth/bin",
    "/garth/token",
    inside::STATE_DIR,
    "/dev/termination-log",
];
/// The kernel's, with mounts below them.
const KERNELS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Nothing is mounted anywhere else.
pub(super) fn mounts(seen: &Seen<'_>) -> Verdict {
    let list = text(seen, 0)?;
    // proc_pid_mountinfo(5): the fifth field is where.
    let places: Option<Vec<&str>> = list.lines().map(|line| line.split(' ').nth(4)).collect();
    let places = places.filter(|places| places.contains(&"/")).ok_or("the mounts cannot be read")?;
    let is_below =
        |at: &str, place| at.strip_prefix(place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_known = |at: &str| {
        MOUNTS.contains(&at) || at == seen.facts.made.disk || KERNELS.iter().any(|place| is_below(at, *place))
    };
    match places.iter().find(|at| !is_known(at)) {
        Some(at) => Err(format!("something is mounted at {at}")),
        None => Ok(format!("{} mounts, and of disks only the project's own", places.len())),
    }
}

/// Nobody arrived at the gateway's port, where somebody listens for certain.
pub(super) fn policy(seen: &Seen<'_>) -> Verdict {
    const REMEDY: &str = "no network plugin of this cluster carries NetworkPolicies out for it";
    if let Some(peer) = seen.facts.arrived.first() {
        return Err(format!("{REMEDY}: the gateway was reached from {peer}"));
    }
    unanswered(seen).map_err(|seen| format!("{REMEDY}: {seen}"))
}

/// Nobody answered, whatever was in the way.
pub(super) fn unanswered(seen: &Seen<'_>) -> Verdict {
    each(seen, |_, observed| matches!(observed, Observed::Errno(_)))
}

/// Their agents listen for certain.
pub(super) fn neighbours(seen: &Seen<'_>) -> Verdict {
    match seen.tried.is_empty() {
        true => Ok("no other sandbox runs now".to_owned()),
        false => unanswered(seen),
    }
}

/// Its kubelet does not answer.
pub(super) fn node(seen: &Seen<'_>) -> Verdict {
    let node = seen.facts.node.as_ref()?;
    match node.addresses.is_empty() {
        true => Err("the node has no address to try".to_owned()),
        false => unanswered(seen),
    }
}

/// The first of these files that there is.
fn first<'a>(seen: &Seen<'a>, from: usize) -> Result<(usize, &'a str), String> {
    let found = (from..seen.tried.len()).find_map(|at| Some((at, text(seen, at).ok()?)));
    found.ok_or_else(|| {
        let tried = seen.tried.iter().map(|(one, observed)| format!("{}: {}", name(one), outcome(observed)));
        tried.collect::<Vec<_>>().join("; ")
    })
}

/// What the Pod's own container is held to, as the API server has it.
fn limit(seen: &Seen<'_>, what: &str) -> Option<String> {
    let spec = seen.facts.pod.spec.as_ref()?;
    let own = spec.containers.iter().find(|container| container.name == SANDBOX)?;
    let Quantity(limit) = own.resources.as_ref()?.limits.as_ref()?.get(what)?;
    Some(limit.clone())
}

/// The cgroup has the limit; of a sandbox that may divide its cgroup, its Pod has it.
pub(super) fn memory(seen: &Seen<'_>) -> Verdict {
    const PAGE: u64 = 4096;
    let wanted = seen.facts.made.memory.ok_or("the project's own limit cannot be read")?.bytes();
    let (set, whose) = match seen.tried.is_empty() {
        true => (limit(seen, "memory").and_then(|text| quantity::bytes(&text)).map(|size| size.bytes()), " of its Pod"),
        false => (first(seen, 0)?.1.parse().ok(), ""),
    };
    match set {
        // The kernel counts in pages.
        Some(set) if set / PAGE == wanted / PAGE => Ok(format!("the limit{whose} is {}", bytes_of(set))),
        Some(set) => Err(format!("the limit{whose} is {}, not {}", bytes_of(set), bytes_of(wanted))),
        None => Err(format!("there is no limit{whose}")),
    }
}

/// The same of processors.
pub(super) fn cpus(seen: &Seen<'_>) -> Verdict {
    let wanted = u64::from(seen.facts.made.cpus.ok_or("the project's own limit cannot be read")?.millis());
    let set = match seen.tried.is_empty() {
        true => limit(seen, "cpu").and_then(|text| quantity::cpus(&text)).map(|cpus| u64::from(cpus.millis())),
        false => {
            let (at, quota) = first(seen, 0)?;
            // cgroup v2 has both on one line.
            let both = if at == 0 { quota.split_once(' ') } else { Some((quota, text(seen, 2)?)) };
            both.and_then(|(quota, period)| Some((quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?)))
                .and_then(|(quota, period)| (quota * 1000).checked_div(period))
        }
    };
    let words = |millis: u64| format!("{}.{:03}", millis / 1000, millis % 1000);
    match set {
        Some(set) if set == wanted => Ok(format!("the limit is {} processors", words(set))),
        Some(set) => Err(format!("the limit is {} processors, not {}", words(set), words(wanted))),
        None => Err("there is no limit".to_owned()),
    }
}

/// What it sees of its disk is no larger than that.
pub(super) fn disk(seen: &Seen<'_>) -> Verdict {
    match seen.facts.disk_held {
        Some(true) => Ok("the disk is no larger than the limit".to_owned()),
        Some(false) => Err("the disk is larger than the limit: its storage class holds nobody to it".to_owned()),
        None => Err("the sandbox does not say how large its disk is".to_owned()),
    }
}
