//! What the host of a virtual machine tells the agent in it, before and besides the agent's own protocol.

mod text;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

pub use text::{Hex, InvalidText, MacAddress, Prefixed};

use crate::AgentConfig;

/// Begins a guest: `POST /garth/guest/begin`. Until then it serves nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestBegin {
    /// Counts what is begun from the same memory; a later one is larger.
    pub generation: u64,
    /// For the kernel's random numbers: two guests from one snapshot would have the same.
    pub entropy: Hex<64>,
    /// The wall clock, nanoseconds since 1970.
    pub realtime_ns: u64,
    /// Its name.
    pub hostname: String,
    /// For /etc/machine-id.
    pub machine_id: Hex<16>,
    /// More lines of /etc/hosts.
    pub hosts: Vec<(IpAddr, String)>,
    /// All of /etc/resolv.conf; what is on the disk when absent.
    pub resolv_conf: Option<String>,
    /// Absent: only the loopback interface.
    pub network: Option<GuestNetwork>,
    /// The project's disk.
    pub root: GuestDisk,
    /// A file system that goes read-only below the project's own /usr.
    pub usr: Option<GuestDisk>,
    /// Where that file system is to be seen alone, too: for who compares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usr_alone_at: Option<String>,
    /// The root, and that file system on it, cannot be written; `/tmp` is in memory.
    #[serde(default)]
    pub read_only: bool,
    /// What processes may use together.
    pub limits: GuestLimits,
    /// Directories of the host.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<GuestVolume>,
    /// The capabilities that processes can have, by their bits; all when absent. Less than all keeps a program from
    /// mistakes: root of a machine of its own finds ways back to the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<u64>,
    /// For the agent itself.
    pub agent: AgentConfig,
}

/// A directory of the host that the machine can mount (virtiofs).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestVolume {
    /// What the machine calls it.
    pub tag: String,
    /// Where it is to be; made when it is missing.
    pub at: String,
    /// The host takes no writes anyway.
    pub read_only: bool,
}

/// What the processes of a guest may use together, the agent's included: `POST /garth/guest/limits` changes it. Memory
/// above what the machine has limits nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestLimits {
    /// Memory in bytes.
    pub memory: u64,
    /// Processes and threads.
    pub pids: u32,
}

/// Makes a guest ready to be saved as a template, before it begins: `POST /garth/guest/prepare`. It knows nothing of whom
/// it will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestPrepare {
    /// As in [`GuestBegin`]: those that go on from the template have the same.
    pub usr: Option<GuestDisk>,
}

/// A file system on a disk of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestDisk {
    /// The disk's, as the host gave it: their order is chance.
    pub serial: String,
    /// What is on it.
    pub filesystem: GuestFilesystem,
}

/// What a guest mounts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestFilesystem {
    /// ext4(5).
    Ext4,
    /// EROFS, which is always read-only.
    Erofs,
}

impl GuestFilesystem {
    /// The kernel's name of it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Erofs => "erofs",
        }
    }
}

/// The one network interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestNetwork {
    /// What it is to have. A guest from a snapshot woke up with another's.
    pub mac: MacAddress,
    /// Its address.
    pub ipv4: Option<Prefixed<Ipv4Addr>>,
    /// The gateway's hardware address: it answers no question for it. What is asked for when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway_mac: Option<MacAddress>,
    /// The next hop to everywhere.
    pub gateway: Option<Ipv4Addr>,
    /// Its address.
    pub ipv6: Option<Prefixed<Ipv6Addr>>,
    /// The next hop to everywhere.
    pub gateway6: Option<Ipv6Addr>,
    /// The largest packet.
    pub mtu: Option<u32>,
}

/// Goes on after a restore: `POST /garth/guest/again`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestAgain {
    /// Larger than the last.
    pub generation: u64,
    /// As in [`GuestBegin`].
    pub entropy: Hex<64>,
    /// As in [`GuestBegin`].
    pub realtime_ns: u64,
    /// As in [`GuestBegin`]: what it had is forgotten.
    pub network: Option<GuestNetwork>,
    /// As in [`GuestBegin`].
    pub hostname: String,
    /// As in [`GuestBegin`].
    pub hosts: Vec<(IpAddr, String)>,
    /// As in [`GuestBegin`].
    pub resolv_conf: Option<String>,
}

/// Answers both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestBegun {
    /// SHA-256 of fresh random bytes: the same from two guests tells that they have the same random numbers.
    pub random: Hex<32>,
    /// The kernel's release.
    pub kernel: String,
}

/// Ends a guest: `POST /garth/guest/power`. There is no answer when it works: the machine is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GuestPower {
    /// Off.
    Off,
    /// Again from the start; off, where the VMM takes it for that.
    Reboot,
}

/// Answers `POST /garth/guest/freeze`, after which the disk holds all that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestFrozen {
    /// Bytes that the disk was told it need not keep; absent where it cannot be told.
    pub trimmed: Option<u64>,
}

/// What went wrong in a guest, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestError {
    /// The step.
    pub step: String,
    /// Why.
    pub error: String,
}
