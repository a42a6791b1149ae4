//! What the daemon, its spawners and a sandbox's init say to each other.
use std::net::IpAddr;

use garth_spec::AgentConfig;
use serde::{Deserialize, Serialize};

use crate::Access;

/// From the daemon to a spawner; each gets one [`Reply`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// First, once: leave the host's mounts and build the base, with these directories below `/sys/fs/cgroup`.
    Base {
        /// One per cgroup hierarchy; none on v2, where `/sys/fs/cgroup` is the hierarchy.
        cgroups: Vec<String>,
        /// `(name, target)` links beside them (`cpu` to `cpu,cpuacct`).
        links: Vec<(String, String)>,
    },
    /// Fork a spawner for a slot, which serves the channel that comes along.
    Slot,
    /// Show these cgroups (one detached mount each comes along) below `/sys/fs/cgroup`, in the order of `Base`.
    Cgroups,
    /// Clone an init: its channel and its listener come along, and the cgroup of the v2 tree to make it in, where there is one.
    Init,
    /// Clone a keeper, which serves the channel that comes along.
    Keeper,
}

/// From the daemon to a keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum KeeperRequest {
    /// First: make everything ready. The init's channel and listener come along, and the directories of the cgroup.
    Prepare {
        /// The user on the host that the sandbox's root is.
        owner: u32,
        /// Which directories come along.
        cgroup: CgroupDirs,
    },
    /// The keeper's users are mapped.
    Mapped,
    /// First, instead: go on in place of a keeper that died. What that held comes along, the outer user namespace, the
    /// network namespace, the claim on the ids, and the directories of the cgroup.
    Resume {
        /// As before.
        owner: u32,
        /// As before.
        cgroup: CgroupDirs,
        /// What the sandbox was told.
        identity: Identity,
    },
}

/// What a sandbox's virtual files tell of it besides numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Identity {
    /// The machine's, as it seems.
    pub uuid: [u8; 16],
    /// What the host's CLOCK_BOOTTIME was when it began, in seconds and nanoseconds.
    pub zero: (u64, u32),
}

/// Descriptors of a process, by their numbers there: of the FUSE connection, of the filter's calls, and of the mount of
/// the virtual files.
pub type HeldNumbers = [i32; 3];

/// Which directories of a cgroup come with a message, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CgroupDirs {
    /// memory, cpu, cpuacct.
    V1,
    /// The one.
    V2,
}

/// From a keeper to the daemon.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KeeperReport {
    /// It has a user namespace, whose users the daemon is to map.
    Unmapped,
    /// Ready. The porter's pidfd, the user namespace and the network namespace come along.
    Ready {
        /// The porter's id on the host.
        porter: i32,
        /// What a keeper in its place would need.
        held: HeldNumbers,
    },
    /// Goes on.
    Resumed {
        /// As in `Ready`.
        held: HeldNumbers,
    },
    /// It did not work; the keeper ends.
    Failed(Failure),
}

/// Exit statuses of a keeper from this on tell which signal ended the sandbox's init, as a shell would.
pub(crate) const ENDED_BY: i32 = 128;

/// From the porter or the init to the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToKeeper {
    /// The filter is installed; the descriptor on which its calls are answered comes along.
    Listener,
    /// The init is made.
    Born {
        /// Its id on the host.
        pid: i32,
        /// What its sandbox is told.
        identity: Identity,
    },
    /// Put the mounts together. The disk's root comes along, what is on `/usr`, and the volumes.
    Assemble(Parts),
    /// They are copied.
    Copied,
}

/// What a sandbox's mounts are put together from, besides what all have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Parts {
    pub(crate) usr: bool,
    pub(crate) access: Access,
    /// Where each volume goes.
    pub(crate) volumes: Vec<String>,
    /// What the sandbox may use, in bytes.
    pub(crate) memory: u64,
}

/// From the keeper.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromKeeper {
    /// The porter's users are mapped.
    Mapped,
    /// The mounts are there. What the init is to hold comes along.
    Assembled,
    /// They are not.
    Failed(Failure),
}

/// From a spawner.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    /// Done.
    Done,
    /// A child was made; a pidfd of it comes along.
    Child {
        /// Its id on the host.
        pid: i32,
    },
    /// It did not work.
    Failed(Failure),
}

/// From the daemon to a waiting init: become this sandbox. Its network namespace comes along.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) machine: [u8; 16],
    pub(crate) hostname: String,
    pub(crate) usr: bool,
    /// Where each volume goes.
    pub(crate) volumes: Vec<String>,
    pub(crate) access: Access,
    /// What the sandbox may use, in bytes.
    pub(crate) memory: u64,
    /// Those of the level when absent.
    pub(crate) capabilities: Option<u64>,
    pub(crate) resolv_conf: Option<String>,
    pub(crate) hosts: Vec<(IpAddr, String)>,
    pub(crate) agent: AgentConfig,
}

impl Order {
    pub(crate) fn of(plan: &crate::SandboxPlan) -> Self {
        Self {
            machine: plan.machine,
            hostname: plan.hostname.clone(),
            usr: plan.usr.is_some(),
            volumes: plan.volumes.iter().map(|volume| volume.at.clone()).collect(),
            access: plan.access,
            memory: plan.limits.memory.bytes(),
            capabilities: plan.capabilities,
            resolv_conf: plan.resolv_conf.clone(),
            hosts: plan.hosts.clone(),
            agent: plan.agent.clone(),
        }
    }

    pub(crate) fn parts(&self) -> Parts {
        Parts { usr: self.usr, access: self.access, volumes: self.volumes.clone(), memory: self.memory }
    }
}

/// Then, as soon as it is mounted: the disk. The root, the state directory, when the order says so what is on `/usr`, and
/// the volumes come along.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Disk;

/// From an init to the daemon.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Ready for an order.
    Warm,
    /// Where users are mapped: the init is made, and its pidfd comes along.
    Born {
        /// Its id on the host.
        pid: i32,
        /// What the host's CLOCK_BOOTTIME was then.
        zero: (u64, u32),
    },
    /// The order is carried out; the agent serves from now on.
    Entered {
        /// Where users are mapped: what the init holds for a keeper to come.
        held: Option<HeldNumbers>,
    },
    /// It did not work; the init ends.
    Failed(Failure),
}

/// From the daemon to a holder, a process that keeps namespaces for a container.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum HolderRequest {
    /// Its users are mapped. The claim on their ids comes along.
    Mapped,
    /// Stay until the process ends whose pidfd comes along.
    Stay,
}

/// From a holder.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HolderReport {
    /// It has a user namespace, whose users the daemon is to map.
    Unmapped,
    /// It has the network namespace too.
    Ready,
    /// It did not work; it ends.
    Failed(Failure),
}

/// A step that failed in another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    pub(crate) step: String,
    pub(crate) errno: i32,
}

impl Failure {
    pub(crate) fn into_kind(self) -> crate::ErrorKind {
        crate::ErrorKind::Step { step: self.step, source: std::io::Error::from_raw_os_error(self.errno) }
    }
}
