//! The steps where users are mapped (`sysbox/native`). Three processes carry them out:
//!
//! ```text
//!  keeper   as the host's root   device_steps           nodes that only the host's root can make
//!           in user namespace 1  keeper_steps           a mount namespace that it owns, all in it locked
//!                                assemble_steps         at the start: disk, proc and its virtual files
//!  porter   in user namespace 2  porter_steps           ahead; clones the init at the start
//!  init     in user namespace 2  enter_steps            its own mount namespace: a copy, locked as a whole
//! ```
//!
//! The kernel locks every mount that is copied into a mount namespace of another user namespace (`mount_namespaces(7)`,
//! "Restrictions"): the sandbox's root can mount over what it was given, and take off only what it put there.
use rustix::mount::MountFlags;

use super::{Detached, INERT, Step, device_nodes, last_mounts, mount, network_views, of_agent, parents, terminals};
use crate::Policy;
use crate::handshake::{Order, Parts};
use crate::policy::Nodes;

/// Where the host's own /proc is, for the keeper and the porter alone.
pub(crate) const HOST_PROC: &str = "stage/host/proc";

/// A directory of /sys that the host may lack and the sandbox has: a virtual one goes there.
const DMI: &str = "devices/virtual/dmi/id";

/// Of the spawner: what the keeper needs, and nothing of it reaches a sandbox. A mount namespace of a user namespace may
/// mount proc and sysfs only where an uncovered one is to be seen (fs/namespace.c, `mount_too_revealing`).
pub(super) fn base_steps(policy: &Policy) -> Vec<Step> {
    let made = ["stage/host", HOST_PROC, "stage/host/sys", "stage/view", "stage/inner"];
    let mut steps: Vec<Step> = made.iter().map(|path| Step::Directory((*path).to_owned())).collect();
    steps.push(mount("proc", HOST_PROC, INERT, ""));
    steps.push(mount("sysfs", "stage/host/sys", INERT, ""));
    for path in policy.empty.iter().map(String::as_str).chain([DMI, "class/dmi"]) {
        steps.extend(parents(path).map(|dir| Step::Directory(format!("stage/sys/{dir}"))));
    }
    // Mounted, so that systemd takes what it would mount there for mounted.
    steps.extend(
        policy.empty.iter().map(|path| Step::Bind { from: "stage/empty".to_owned(), at: format!("stage/sys/{path}") }),
    );
    steps.push(Step::Link { at: "stage/sys/class/dmi/id".to_owned(), to: format!("../../{DMI}") });
    steps
}

/// Nodes that are for this level alone: FUSE, TUN.
const MORE_DEVICES: [(&str, (u32, u32)); 2] = [("fuse", (10, 229)), ("net/tun", (10, 200))];

/// Devices, owned by the sandbox's root: it could not make them.
pub(crate) fn device_steps(owner: u32) -> Vec<Step> {
    let mut steps = device_nodes(Nodes::Made);
    steps.push(Step::Directory("stage/dev/net".to_owned()));
    let node = |(name, (major, minor))| Step::Device { at: format!("stage/dev/{name}"), major, minor };
    steps.extend(MORE_DEVICES.map(node));
    let made = steps.iter().filter_map(|step| match step {
        Step::Device { at, .. } | Step::Link { at, .. } | Step::Directory(at) | Step::Mount { at, .. } => {
            Some(at.clone())
        }
        _ => None,
    });
    let given: Vec<Step> = made.map(|at| Step::Give { at, id: owner }).collect();
    steps.extend(given);
    steps
}

/// Once the keeper is root of its user namespace.
pub(crate) fn keeper_steps() -> Vec<Step> {
    let mut steps = vec![Step::OwnMounts];
    steps.extend(terminals());
    steps.push(mount("tmpfs", "stage/run", MountFlags::NOSUID | MountFlags::NODEV, "mode=755"));
    steps
}

/// Once the keeper is in the sandbox's network namespace.
pub(crate) fn keeper_network_steps(policy: &Policy) -> Vec<Step> {
    network_views(policy, "stage/net")
}

/// Of a helper of the keeper, in the network namespace of who mounts a sysfs: at another place, because the kernel
/// mounts one file system at one place once.
pub(crate) fn helper_network_steps(policy: &Policy) -> Vec<Step> {
    network_views(policy, "stage/inner")
}

/// Of the process that will clone the init.
pub(crate) fn porter_steps() -> Vec<Step> {
    let score = super::INIT_OOM_SCORE_ADJ.to_string();
    vec![
        Step::WaitForChildren,
        Step::OwnSession,
        Step::OwnKeyring,
        Step::Write { at: "stage/host/proc/self/oom_score_adj", text: score },
        Step::NoStdio("stage/dev/null"),
    ]
}

/// The keeper puts together what the init copies.
pub(crate) fn assemble_steps(policy: &Policy, parts: &Parts) -> Vec<Step> {
    let mut steps = vec![Step::Attach { mount: Detached::Root, at: "root" }];
    if parts.usr {
        steps.push(Step::Attach { mount: Detached::Usr, at: "root/usr" });
    }
    steps.push(Step::ProcOfInit);
    steps.extend(policy.masked.iter().cloned().map(Step::Mask));
    steps.push(Step::ShowViews);
    steps.push(Step::MoveToDisk("proc"));
    steps.extend(super::bound_memory(parts.memory));
    steps.extend(["sys", "dev", "run"].map(Step::CopyToDisk));
    steps.extend(last_mounts(parts));
    steps
}

/// The init, in a mount namespace of its own, becomes the sandbox of this order.
pub(crate) fn enter_steps(order: &Order) -> Vec<Step> {
    let mut steps = vec![Step::HideCgroups, Step::Loosen("root"), Step::Hostname(order.hostname.clone())];
    steps.extend([Step::BecomeRoot("root"), Step::LeaveCgroupRoot]);
    steps.push(mount("mqueue", "/dev/mqueue", INERT, ""));
    if let Some(capabilities) = order.capabilities {
        steps.extend([Step::BoundTo(capabilities), Step::DropCapabilities(of_agent(capabilities))]);
    }
    steps.extend([Step::Undumpable, Step::CloseOthers]);
    steps
}
