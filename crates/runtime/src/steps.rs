//! What makes a sandbox, as a list: pure functions from what is wanted to [`Step`]s.
//!
//! ```text
//!  base_steps   once per spawner       leave the host's mounts, show the allowed parts of /sys
//!  warm_steps   once per init, ahead   /proc with its masks, /dev, /run, bounding set
//!  network_steps, enter_steps          at the start: network, disk, pivot_root, filter, capabilities
//!  mapped::*                           the same where users are mapped, by three processes
//! ```
//!
//! Paths without a leading `/` are in the *base*: a small tmpfs that is the root of the spawner's mount namespace and
//! holds no mount of the host, with what is being made in `stage/` and the disk on `root/`.
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use rustix::mount::MountFlags;

use crate::handshake::{Order, Parts};
use crate::policy::Nodes;
use crate::{Access, Level, Policy};

mod apply;
mod leaf;
pub mod mapped;
pub(crate) use apply::{Fds, apply, open_proc};
pub use apply::{bound_capabilities, volume};

/// One thing to do. Carried out in order; the first that fails ends the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A mount namespace of its own, from which no mount spreads to the host's.
    LeaveHostMounts,
    /// A cgroup namespace: the cgroup it is in becomes `/`.
    HideCgroups,
    /// Where the sandbox has controllers to divide: goes into a leaf and enables them, as a cgroup that has processes can
    /// divide nothing (`cgroups(7)`, "no internal processes").
    LeaveCgroupRoot,
    /// Mounts a new file system.
    Mount {
        /// Its type.
        fs: &'static str,
        /// Where.
        at: String,
        /// How.
        flags: MountFlags,
        /// Its options.
        options: &'static str,
    },
    /// Lets a file system in memory, mounted so, hold no more than this.
    Hold {
        /// Where.
        at: String,
        /// How it is mounted.
        flags: MountFlags,
        /// How much.
        bytes: u64,
    },
    /// Goes to a directory.
    Enter(&'static str),
    /// Makes a directory.
    Directory(String),
    /// Gives a file to a user and the group of the same number.
    Give {
        /// Which.
        at: String,
        /// To whom.
        id: u32,
    },
    /// A mount namespace of its own; when the user namespace is another, with all that is mounted locked.
    OwnMounts,
    /// Makes a file.
    File {
        /// The new name.
        at: &'static str,
        /// Its content.
        text: &'static str,
    },
    /// Makes a symbolic link.
    Link {
        /// The new name.
        at: String,
        /// What it says.
        to: String,
    },
    /// Makes a character device node, mode 0666.
    Device {
        /// The new name.
        at: String,
        /// Its number.
        major: u32,
        /// Its number.
        minor: u32,
    },
    /// Shows a directory of the host or the base at another place, read-only; nothing when it does not exist.
    Show {
        /// What.
        from: String,
        /// Where.
        at: String,
    },
    /// Shows a directory of a read-only mount at another place.
    Bind {
        /// What.
        from: String,
        /// Where.
        at: String,
    },
    /// Makes a mount of the disk read-only.
    Protect(&'static str),
    /// Makes a whole file system read-only.
    Seal(String),
    /// Covers a node of `stage/proc`, with nothing or with `/dev/null`; nothing when it does not exist.
    Mask(String),
    /// Makes a node of `stage/proc` read-only; nothing when it does not exist.
    ReadOnly(String),
    /// Makes the directory the root of the mount namespace, and drops what was.
    BecomeRoot(&'static str),
    /// A session keyring that shares no key with the host's.
    OwnKeyring,
    /// A session and process group of its own, and the file mode mask 022.
    OwnSession,
    /// Children are waited for.
    WaitForChildren,
    /// A network namespace with nothing in it.
    OwnNetwork,
    /// Shows a file or directory of the host at another place.
    Expose {
        /// What.
        from: PathBuf,
        /// Where; its directory is there.
        at: String,
        /// How.
        flags: MountFlags,
    },
    /// Makes a node of a device of the host, which one user alone may open, whoever may open the host's.
    OwnDevice {
        /// The host's node.
        from: PathBuf,
        /// Where; its directory is there.
        at: String,
        /// Who may open it.
        user: u32,
        /// How.
        flags: MountFlags,
    },
    /// Becomes this user and the group of the same number, without any other; with that, without capabilities.
    BecomeUser(u32),
    /// Puts the served directory at a place.
    Serve(&'static str),
    /// Goes into the user namespace that came along: all capabilities in it, none outside.
    JoinUsers,
    /// As many open files as whoever started this may have.
    OpenFiles,
    /// No program started from here gets more than this process has.
    NoNewPrivileges,
    /// A limit that neither the init nor its children can raise.
    CoreLimit(u64),
    /// The agent answers, and ends what runs away, whatever its sandbox is busy with.
    ComeFirst,
    /// Writes into a file of a kernel file system.
    Write {
        /// Which.
        at: &'static str,
        /// What.
        text: String,
    },
    /// This null device as standard input, output and error.
    NoStdio(&'static str),
    /// Takes all capabilities but the policy's out of reach of every future program.
    BoundCapabilities,
    /// Nobody without CAP_SYS_PTRACE can look into this process or dump its memory.
    Undumpable,
    /// Joins the network namespace that came with the order.
    JoinNetwork,
    /// Puts a detached mount from the order at a place, without devices.
    Attach {
        /// Which.
        mount: Detached,
        /// Where.
        at: &'static str,
    },
    /// Moves a finished tree of mounts from `stage/` onto a directory of the disk, which is made when it is missing.
    MoveToDisk(&'static str),
    /// The same with a copy: what is locked cannot be moved.
    CopyToDisk(&'static str),
    /// Puts a volume at a place of the disk, which is made when it is missing; links there lead nowhere but into the disk.
    Volume {
        /// Which of those that came.
        number: usize,
        /// Where, from the disk's root.
        at: String,
    },
    /// Mounts the proc of the init's pid namespace on `stage/proc`.
    ProcOfInit,
    /// Puts the virtual files over those of `stage/proc`.
    ShowViews,
    /// Mounts a copy of a tree of mounts over it: the copy's root is not locked, what is on it stays so.
    Loosen(&'static str),
    /// The host name.
    Hostname(String),
    /// A file of `/etc` of the disk, which need not be mounted; of this process's root where no disk came.
    Etc(Etc),
    /// The system call filter, but for what making sandboxes needs.
    EarlyFilter,
    /// The rest of the system call filter; of a jail, all of it.
    LateFilter,
    /// Takes all capabilities but these, and the policy's, out of reach of every future program.
    BoundTo(u64),
    /// Drops all capabilities but those of these that are the policy's.
    DropCapabilities(u64),
    /// Closes all descriptors but the agent's.
    CloseOthers,
}

/// The mounts that come with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detached {
    /// The disk.
    Root,
    /// The overlay over `/usr`.
    Usr,
}

/// A file below `/etc` that a start keeps right. A disk that is full, or has no `/etc`, does not stop the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Etc {
    /// Has this content.
    Content {
        /// Its name.
        name: &'static str,
        /// All of it.
        content: String,
    },
    /// Has a line for each name; what the user wrote stays.
    Hosts(Vec<(String, String)>),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount { fs, at, .. } => write!(f, "mount {fs} at {at}"),
            Self::Show { from, at } | Self::Bind { from, at } => write!(f, "show {from} at {at}"),
            Self::Expose { from, at, .. } => write!(f, "show {} at {at}", from.display()),
            Self::OwnDevice { from, at, .. } => write!(f, "make {} at {at}", from.display()),
            Self::Attach { mount, at } => write!(f, "attach {mount:?} at {at}"),
            Self::MoveToDisk(dir) | Self::CopyToDisk(dir) => write!(f, "mount /{dir}"),
            Self::Volume { at, .. } => write!(f, "mount the volume at {at}"),
            Self::Mask(node) => write!(f, "mask /proc/{node}"),
            Self::ReadOnly(node) => write!(f, "make /proc/{node} read-only"),
            Self::Etc(Etc::Content { name, .. }) => write!(f, "write /etc/{name}"),
            Self::Etc(Etc::Hosts(_)) => f.write_str("write /etc/hosts"),
            other => write!(f, "{other:?}"),
        }
    }
}

/// No set-user-id programs, no devices, no programs.
pub(crate) const INERT: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);

fn mount(fs: &'static str, at: &str, flags: MountFlags, options: &'static str) -> Step {
    Step::Mount { fs, at: at.to_owned(), flags, options }
}

fn directories(paths: &[&str]) -> impl Iterator<Item = Step> {
    paths.iter().map(|path| Step::Directory((*path).to_owned()))
}

/// A spawner leaves the host's mounts behind. `cgroups` are directories wanted below `/sys/fs/cgroup`.
pub fn base_steps(policy: &Policy, cgroups: &[String], links: &[(String, String)]) -> Vec<Step> {
    // The base goes on /proc: a directory that every host has and that nothing here needs any more.
    let mut steps =
        // 1 and not 0: fs/coredump.c runs a crash handler of the host (core_pattern "|…") for any limit but 1.
        vec![Step::CoreLimit(1), Step::ComeFirst, Step::LeaveHostMounts, mount("tmpfs", "/proc", INERT, "mode=755,size=1m"), Step::Enter("/proc")];
    steps.extend(directories(&[
        "root",
        "stage",
        "stage/proc",
        "stage/dev",
        "stage/run",
        "stage/net",
        "stage/empty",
        "stage/tmp",
    ]));
    steps.push(Step::Directory("stage/sys".to_owned()));
    steps.push(mount("tmpfs", "stage/empty", INERT | MountFlags::RDONLY, "mode=555,size=4k"));
    steps.push(mount("tmpfs", "stage/sys", INERT, "mode=755,size=1m"));
    let sys = policy.shown.iter().chain(&policy.shown_of_network).map(String::as_str).chain(["fs/cgroup"]);
    for path in sys {
        steps.extend(parents(path).map(|dir| Step::Directory(format!("stage/sys/{dir}"))));
    }
    for path in &policy.shown {
        steps.push(Step::Show { from: format!("/sys/{path}"), at: format!("stage/sys/{path}") });
    }
    for name in cgroups {
        steps.push(Step::Directory(format!("stage/sys/fs/cgroup/{name}")));
    }
    for (name, target) in links {
        steps.push(Step::Link { at: format!("stage/sys/fs/cgroup/{name}"), to: target.clone() });
    }
    if policy.level == Level::Sysbox {
        steps.extend(mapped::base_steps(policy));
    }
    steps.push(Step::Seal("stage/sys".to_owned()));
    if policy.nodes == Nodes::Shown {
        steps.push(Step::Directory(MACHINES_NODES.to_owned()));
        steps.extend(DEVICES.iter().map(|(name, _)| shown_node("/dev", MACHINES_NODES, name)));
    }
    steps.push(Step::BecomeRoot("."));
    if policy.level == Level::Default {
        steps.push(Step::EarlyFilter);
    }
    steps
}

/// `a/b/c` as `a`, `a/b`, `a/b/c`.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).chain([path])
}

const NULL: (u32, u32) = (1, 3);
pub(crate) const DEVICES: [(&str, (u32, u32)); 6] =
    [("null", NULL), ("zero", (1, 5)), ("full", (1, 7)), ("random", (1, 8)), ("urandom", (1, 9)), ("tty", (5, 0))];

/// Where the machine's own nodes are kept for the sandboxes, when they are shown.
const MACHINES_NODES: &str = "stage/nodes";

fn shown_node(from: &str, at: &str, name: &str) -> Step {
    Step::Expose { from: format!("{from}/{name}").into(), at: format!("{at}/{name}"), flags: NO_PROGRAMS }
}

const DEVICE_LINKS: [(&str, &str); 5] = [
    ("ptmx", "pts/ptmx"),
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
];

/// All that an init can do before it knows which sandbox it will be.
pub fn warm_steps(policy: &Policy) -> Vec<Step> {
    let mut steps = vec![
        Step::WaitForChildren,
        Step::Undumpable,
        Step::HideCgroups,
        Step::OwnSession,
        Step::OwnKeyring,
        mount("proc", "stage/proc", INERT, ""),
        Step::Write { at: "stage/proc/self/oom_score_adj", text: INIT_OOM_SCORE_ADJ.to_string() },
    ];
    steps.extend(devices(policy.nodes));
    steps.push(mount("tmpfs", "stage/run", MountFlags::NOSUID | MountFlags::NODEV, "mode=755"));
    steps.extend(policy.masked.iter().cloned().map(Step::Mask));
    steps.extend(policy.read_only.iter().cloned().map(Step::ReadOnly));
    steps.extend([Step::NoStdio("stage/dev/null"), Step::BoundCapabilities]);
    steps
}

/// Above everything of the host, below the processes the agent starts.
pub(crate) const INIT_OOM_SCORE_ADJ: i32 = 200;

fn devices(nodes: Nodes) -> Vec<Step> {
    let mut steps = device_nodes(nodes);
    steps.extend(terminals());
    steps.push(mount("mqueue", "stage/dev/mqueue", INERT, ""));
    steps
}

const NO_PROGRAMS: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);

fn device_nodes(nodes: Nodes) -> Vec<Step> {
    // Not nodev, as it holds the devices; CAP_MKNOD is in nobody's reach, so it holds no others.
    let mut steps = vec![mount("tmpfs", "stage/dev", NO_PROGRAMS, "mode=755,size=4m,nr_inodes=4096")];
    steps.extend(DEVICES.iter().map(|(name, (major, minor))| match nodes {
        Nodes::Made => Step::Device { at: format!("stage/dev/{name}"), major: *major, minor: *minor },
        Nodes::Shown => shown_node(MACHINES_NODES, "stage/dev", name),
    }));
    steps.extend(
        DEVICE_LINKS.iter().map(|(name, to)| Step::Link { at: format!("stage/dev/{name}"), to: (*to).to_owned() }),
    );
    steps.extend(directories(&["stage/dev/pts", "stage/dev/shm", "stage/dev/mqueue"]));
    steps
}

fn terminals() -> Vec<Step> {
    // Terminals come out of one pot of the whole machine (sysctl kernel.pty.max); `max` leaves some to the others.
    let pts = "newinstance,ptmxmode=0666,mode=0620,gid=5,max=256";
    vec![mount("devpts", "stage/dev/pts", NO_PROGRAMS, pts), mount("tmpfs", "stage/dev/shm", INERT, "mode=1777")]
}

/// An init joins its network: while the daemon still mounts the disk.
pub fn network_steps(policy: &Policy) -> Vec<Step> {
    let mut steps = vec![Step::JoinNetwork];
    steps.extend(network_views(policy, "stage/net"));
    steps
}

/// Mounts the sysfs of this network namespace at a place, and shows its parts.
fn network_views(policy: &Policy, at: &str) -> Vec<Step> {
    let mut steps = vec![mount("sysfs", at, INERT | MountFlags::RDONLY, "")];
    for path in &policy.shown_of_network {
        steps.push(Step::Bind { from: format!("{at}/{path}"), at: format!("stage/sys/{path}") });
    }
    steps
}

/// An init becomes the sandbox of this order.
pub(crate) fn enter_steps(order: &Order) -> Vec<Step> {
    let mut steps = Vec::new();
    steps.push(Step::Attach { mount: Detached::Root, at: "root" });
    if order.usr {
        steps.push(Step::Attach { mount: Detached::Usr, at: "root/usr" });
    }
    steps.extend(etc_steps(order));
    steps.extend(bound_memory(order.memory));
    steps.extend(["proc", "sys", "dev", "run"].map(Step::MoveToDisk));
    steps.extend(last_mounts(&order.parts()));
    steps.push(Step::Hostname(order.hostname.clone()));
    steps.push(Step::BecomeRoot("root"));
    steps.extend(order.capabilities.map(Step::BoundTo));
    steps.push(Step::LateFilter);
    steps.push(Step::DropCapabilities(order.capabilities.map_or(u64::MAX, of_agent)));
    steps.extend([Step::Undumpable, Step::CloseOthers]);
    steps
}

/// Files of the disk itself, whatever will be mounted on it.
pub(crate) fn etc_steps(order: &Order) -> Vec<Step> {
    let files = etc_files(&order.hostname, order.resolv_conf.as_deref(), &order.hosts);
    files.into_iter().map(Step::Etc).collect()
}

/// What files in memory may take of a sandbox's: all full, as much is left as removing them needs. Nothing else frees
/// what they hold, and without any memory nothing can be started.
pub fn shares_of_memory(memory: u64) -> [(&'static str, u64); 2] {
    [("dev/shm", memory / 2), ("run", memory / 8)]
}

fn bound_memory(memory: u64) -> impl Iterator<Item = Step> {
    let flags = |at| if at == "run" { MountFlags::NOSUID | MountFlags::NODEV } else { INERT };
    shares_of_memory(memory).into_iter().map(move |(at, bytes)| hold(&format!("stage/{at}"), flags(at), bytes))
}

fn hold(at: &str, flags: MountFlags, bytes: u64) -> Step {
    Step::Hold { at: at.to_owned(), flags, bytes }
}

/// What is mounted when all else is: what can still be written of a read-only root, then the volumes.
fn last_mounts(parts: &Parts) -> Vec<Step> {
    let mut steps = Vec::new();
    if parts.access == Access::Read {
        steps.push(mount("tmpfs", "stage/tmp", MountFlags::NOSUID | MountFlags::NODEV, "mode=1777"));
        steps.push(hold("stage/tmp", MountFlags::NOSUID | MountFlags::NODEV, parts.memory / 4));
        steps.push(Step::MoveToDisk("tmp"));
    }
    steps.extend(parts.volumes.iter().enumerate().map(|(number, at)| Step::Volume { number, at: at.clone() }));
    if parts.access == Access::Read {
        // After the places of mounts, that may have to be made.
        steps.extend(parts.usr.then_some(Step::Protect("root/usr")));
        steps.push(Step::Protect("root"));
    }
    steps
}

/// CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETFCAP: without these the agent could not start processes as
/// another user, end them, or put files where and whose it is told to. No process can take them from it: what it starts
/// is another program, which is bound, and it cannot be traced.
const AGENT: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 31;

/// The agent's own, when processes can have these.
fn of_agent(capabilities: u64) -> u64 {
    capabilities | AGENT
}

/// Process 1 of a container that an OCI runtime made becomes the agent.
pub(crate) fn container_steps(order: &Order) -> Vec<Step> {
    let mut steps = vec![Step::WaitForChildren, Step::NoStdio("/dev/null")];
    steps.extend(etc_steps(order));
    steps.extend([Step::EarlyFilter, Step::Undumpable, Step::CloseOthers]);
    steps
}

/// What a start keeps right in `/etc`, at every level; [`Etc::keep`] does it.
pub fn etc_files(hostname: &str, resolv_conf: Option<&str>, hosts: &[(IpAddr, String)]) -> Vec<Etc> {
    let mut files = vec![Etc::Content { name: "hostname", content: format!("{hostname}\n") }];
    if let Some(content) = resolv_conf {
        files.push(Etc::Content { name: "resolv.conf", content: content.to_owned() });
    }
    let localhost = [("127.0.0.1", "localhost"), ("::1", "localhost"), ("127.0.1.1", hostname)];
    let own = localhost.into_iter().map(|(address, name)| (address.to_owned(), name.to_owned()));
    let asked = hosts.iter().map(|(address, name)| (address.to_string(), name.clone()));
    files.push(Etc::Hosts(own.chain(asked).collect()));
    files
}

#[cfg(test)]
mod tests;
