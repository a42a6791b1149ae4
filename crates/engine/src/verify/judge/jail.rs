//! What the host sees of a hypervisor in its jail: what a guest that has taken it over could do.

use garth_verify::Verdict;
use garth_verify::judge::{bytes_of, capability_set, field};

use super::Evidence;
use super::mounts::{Mount, mount};

/// No set holds a capability, nor can one be gained by executing a file.
pub(in crate::verify) fn powerless(evidence: &Evidence<'_>) -> Verdict {
    let status = &evidence.facts.host.status;
    for name in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        match capability_set(status, name) {
            Some(0) => {}
            Some(set) => return Err(format!("the hypervisor has {name} {set:#x}")),
            None => return Err(format!("{name} of the hypervisor cannot be read")),
        }
    }
    match field(status, "NoNewPrivs") {
        Some("1") => Ok("no capability in any set, and NoNewPrivs is 1".to_owned()),
        _ => Err("NoNewPrivs of the hypervisor is not 1".to_owned()),
    }
}

/// Users of a host, and `nobody`, are below.
const USERS: u64 = 65_536;

/// A user and a group that nobody else is, and no way back to another.
pub(in crate::verify) fn jailed_user(evidence: &Evidence<'_>) -> Verdict {
    let status = &evidence.facts.host.status;
    let mut own = Vec::new();
    for name in ["Uid", "Gid"] {
        let ids = field(status, name).unwrap_or_default();
        let four: Vec<u64> = ids.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        match four[..] {
            [real, effective, saved, files] if [effective, saved, files] == [real; 3] && real >= USERS => {
                own.push(real)
            }
            _ => return Err(format!("{name} of the hypervisor is {ids:?}: not one of its own")),
        }
    }
    match field(status, "Groups") {
        Some("") => Ok(format!("user {} and group {}, no further groups", own[0], own[1])),
        Some(groups) => Err(format!("the hypervisor is in the groups {groups}")),
        None => Err("the groups of the hypervisor cannot be read".to_owned()),
    }
}

/// Where programs, their libraries and firmware are; a whole directory of these is never shown.
const PROGRAMS: [&str; 10] = [
    "/usr/bin/",
    "/usr/libexec/",
    "/usr/lib/",
    "/usr/lib64/",
    "/usr/share/",
    "/usr/local/",
    "/opt/",
    "/bin/",
    "/lib/",
    "/lib64/",
];
/// What a guest is started from.
const GUEST: [&str; 3] = ["/guest/vmlinux", "/guest/initrd.img", "/disks/usr"];
/// Nodes that it may open; what they do is bounded.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/urandom", "/dev/kvm", "/dev/net/tun"];
const DISK: &str = "/disks/root";
const OWN: &str = "/own";
/// What it went on from, if it was paused or began from a template.
const MEMORY: &str = "/snapshot/";
const TEMPLATES: &str = "templates";
/// Sockets of those that serve it directories.
const SHARES: &str = "/shares/";
/// File systems that show something of the kernel or of other processes.
const KERNELS: [&str; 10] =
    ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "securityfs", "debugfs", "tracefs"];

/// An empty root that is read-only, and on it only what the hypervisor opens.
pub(in crate::verify) fn shown(evidence: &Evidence<'_>) -> Verdict {
    let lines: Option<Vec<Mount<'_>>> = evidence.facts.host.mountinfo.lines().map(mount).collect();
    let mounts = lines.ok_or_else(|| "the mounts cannot be read".to_owned())?;
    for needed in ["/", DISK, OWN] {
        match mounts.iter().filter(|mount| mount.at == needed).count() {
            1 => {}
            count => return Err(format!("{count} mounts at {needed}")),
        }
    }
    for mount in &mounts {
        fits(mount, &evidence.facts.subject.disk).map_err(|wrong| {
            format!("{} of a {} is at {} ({}): {wrong}", mount.root, mount.kind, mount.at, mount.options)
        })?;
    }
    let writable = mounts.iter().filter(|mount| !has(mount, "ro") && !DEVICES.contains(&mount.at)).count();
    Ok(format!("{} mounts, {writable} of them writable: the project's disk and its own directory", mounts.len()))
}

fn has(mount: &Mount<'_>, option: &str) -> bool {
    mount.options.split(',').any(|one| one == option)
}

fn fits(mount: &Mount<'_>, disk: &str) -> Result<(), &'static str> {
    let below = |places: &[&str]| places.iter().any(|place| mount.at.starts_with(place));
    let check = |right: bool, wrong| if right { Ok(()) } else { Err(wrong) };
    check(has(mount, "nosuid"), "set-user-id programs count")?;
    if DEVICES.contains(&mount.at) {
        let node = mount.root.rsplit('/').next() == mount.at.rsplit('/').next();
        return check(node && has(mount, "noexec"), "not that device");
    }
    check(has(mount, "nodev"), "device nodes count")?;
    match mount.at {
        "/" => check(mount.kind == "tmpfs" && has(mount, "ro"), "not an empty root that is read-only"),
        DISK => check(mount.root.split('/').any(|part| part == disk) && has(mount, "noexec"), "not the project's disk"),
        at if at.starts_with(MEMORY) => {
            let own = mount.root.split('/').any(|part| part == disk || part == TEMPLATES);
            check(own && has(mount, "noexec") && has(mount, "ro"), "neither the project's memory nor a template's")
        }
        at if at.starts_with(SHARES) => {
            let is_socket =
                mount.root.rsplit('/').next().is_some_and(|n| n.starts_with("share") && n.ends_with(".sock"));
            check(is_socket && has(mount, "noexec") && has(mount, "ro"), "not the socket of a volume")
        }
        OWN => check(mount.root.ends_with("/own") && has(mount, "noexec"), "not its own directory"),
        _ => {
            check(GUEST.contains(&mount.at) || below(&PROGRAMS), "nothing that it needs")?;
            check(has(mount, "ro"), "writable")?;
            check(!KERNELS.contains(&mount.kind), "of the kernel's")?;
            check(mount.root != "/", "a whole file system")
        }
    }
}

/// Made by the kernel for whoever asks, or given by the daemon: sockets, the wire's end, pipes, disks.
const OPEN: [&str; 9] =
    ["socket:[", "pipe:[", "anon_inode:", "/memfd:", "/dev/net/tun", "/disks/", "/guest/", "/own/", MEMORY];
/// What keeps its user its own as long as it lives.
const CLAIM: &str = "/ids.lock";

/// No descriptor leads out of the jail: an open directory of the host would, by `..`.
pub(in crate::verify) fn open(evidence: &Evidence<'_>) -> Verdict {
    let all = &evidence.facts.host.descriptors;
    let fine = |link: &&String| {
        OPEN.iter().any(|open| link.starts_with(open)) || DEVICES.contains(&link.as_str()) || link.ends_with(CLAIM)
    };
    match all.iter().find(|link| !fine(link)) {
        _ if all.is_empty() => Err("the descriptors of the hypervisor cannot be read".to_owned()),
        Some(link) => Err(format!("the hypervisor has {link} open")),
        None => Ok(format!("{} descriptors, each given or made by itself", all.len())),
    }
}

/// What the program may take beside the guest's memory, at most.
const BESIDE: u64 = 512 << 20;

/// The cgroup holds the guest's memory and a bounded rest.
pub(in crate::verify) fn machine_memory(evidence: &Evidence<'_>) -> Verdict {
    let limit = evidence.facts.subject.limits.memory;
    let guest = evidence.facts.subject.guest.ok_or_else(|| "it is no machine".to_owned())?.memory;
    let set = evidence.facts.host.memory.ok_or_else(|| "the limit cannot be read".to_owned())?;
    if guest > limit {
        return Err(format!("the guest was started with {guest}, the limit is {limit} since: restart it"));
    }
    match set.checked_sub(guest.bytes()) {
        Some(beside) if beside <= BESIDE => Ok(format!(
            "the limit is {}: {guest} of the guest's, {} of the hypervisor's",
            bytes_of(set),
            bytes_of(beside)
        )),
        _ => Err(format!("the limit is {}, the guest has {guest}", bytes_of(set))),
    }
}

/// More threads than any hypervisor needs.
const THREADS: u64 = 512;

/// The hypervisor can make no crowd. How many processes the guest has is its kernel's matter: none of them is the host's.
pub(in crate::verify) fn threads(evidence: &Evidence<'_>) -> Verdict {
    match evidence.facts.host.pids {
        Some(set) if set <= THREADS => Ok(format!("the limit is {set} threads of the hypervisor")),
        Some(set) => Err(format!("the limit is {set}, more than {THREADS}")),
        None => Err("the limit cannot be read, or there is none".to_owned()),
    }
}

/// Says what keeps the guest's instructions apart from the host's. The node of KVM is there if and only if it is that.
pub(in crate::verify) fn accelerator(evidence: &Evidence<'_>) -> Verdict {
    let guest = evidence.facts.subject.guest.ok_or_else(|| "it is no machine".to_owned())?;
    let kvm = evidence.facts.host.mountinfo.lines().filter_map(mount).any(|mount| mount.at == "/dev/kvm");
    match (guest.translated, kvm) {
        (false, true) => Ok("KVM: the boundary is the processor's".to_owned()),
        // https://www.qemu.org/docs/master/system/security.html, "Non-virtualization Use Case".
        (true, false) => Ok("TCG: the boundary is QEMU's translator and not the processor, and QEMU promises no \
                             isolation by it; what holds is the jail"
            .to_owned()),
        (false, false) => Err("it was started with KVM, but has no /dev/kvm".to_owned()),
        (true, true) => Err("it translates, but has /dev/kvm".to_owned()),
    }
}
