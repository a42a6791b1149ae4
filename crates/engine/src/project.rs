//! A project as the store keeps it and as readers see it.

use std::collections::BTreeMap;

use garth_spec::{
    Accelerator, Capabilities, Handler, ImageConfig, ImageId, Network, ProjectId, ProjectName, ProjectSpec,
    ProjectState, Runtime, SandboxId, Transition, Volume,
};
use garth_verify::Verified;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::local::{Addresses, LeaseRecord, PausedRecord, SandboxRecord};
use crate::store::Durability;

/// Everything that the daemon knows of a project; what a restarted daemon begins from.
#[derive(Debug, Clone, PartialEq)]
pub struct Project {
    /// Its id for its whole life.
    pub id: ProjectId,
    /// What users call it.
    pub name: ProjectName,
    /// Where it stands.
    pub state: ProjectState,
    /// Whether it goes with its last hold.
    pub ephemeral: bool,
    /// What was asked of it.
    pub spec: ProjectSpec,
    /// The image content that its disk began as.
    pub image: Option<ImageId>,
    /// What that image says of processes; kept here so that the image may go.
    pub image_config: ImageConfig,
    /// When it was made.
    pub created_at: Timestamp,
    /// When its sandbox last started.
    pub started_at: Option<Timestamp>,
    /// How its last sandbox ended.
    pub ended: Option<Ended>,
    /// How the last check of its boundary ended.
    pub verified: Option<Verified>,
    /// Its sandbox, from the moment that a start is decided until nothing of it is left.
    pub sandbox: Option<SandboxEntry>,
}

/// A sandbox as the store keeps it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SandboxEntry {
    /// Its id.
    pub id: SandboxId,
    /// The runtime that it was really started with.
    pub runtime: Runtime,
    /// What carries it out.
    pub handler: Handler,
    /// The network that it was really started with.
    pub network: Network,
    /// How the kernel's part of it is found again; absent until it runs.
    pub(crate) record: Option<SandboxRecord>,
    /// How its addresses are found again; absent without network.
    pub(crate) lease: Option<LeaseRecord>,
    /// Where it is reached.
    pub addresses: Option<Addresses>,
    /// Whether it was really started with a read-only root.
    #[serde(default)]
    pub read_only: bool,
    /// Whether an init of the image's own is really its process 1.
    #[serde(default)]
    pub has_init: bool,
    /// Which of its level's capabilities it was really started with.
    #[serde(default, skip_serializing_if = "Capabilities::are_the_levels")]
    pub capabilities: Capabilities,
    /// The directories of the host that it was really started with.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Volume>,
    /// How it is woken; absent unless it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) paused: Option<PausedRecord>,
}

impl SandboxEntry {
    /// Its init, as the host numbers it.
    pub fn pid(&self) -> Option<i32> {
        if self.paused == Some(PausedRecord::Saved) {
            return None;
        }
        match self.record.as_ref()? {
            SandboxRecord::Host(record) => Some(record.pid),
            SandboxRecord::Container(record) => Some(record.pid),
            SandboxRecord::Machine(record) => Some(record.sandbox.pid),
            #[cfg(any(test, feature = "fake"))]
            SandboxRecord::Fake(_) => None,
        }
    }

    /// What runs the instructions of a microVM; none of another sandbox, or of one that does not run.
    pub fn accelerator(&self) -> Option<Accelerator> {
        let Some(SandboxRecord::Machine(record)) = &self.record else { return None };
        Some(if record.translated { Accelerator::Tcg } else { Accelerator::Kvm })
    }
}

/// How a sandbox ended, or why it did not start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: EndedReason,
    /// More of it, for people.
    pub detail: Option<String>,
}

/// Why a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedReason {
    /// Someone stopped it.
    Stopped,
    /// Its agent ended by itself or was killed.
    Died,
    /// A process in it restarted it: it is started again.
    Rebooted,
    /// A process in it restarted it too often, each time soon after its start.
    RebootLoop,
    /// A process in it switched it off.
    PoweredOff,
    /// It was gone when the daemon came back.
    Lost,
    /// It could not be started.
    StartFailed,
}

impl Project {
    /// Moves along the table of states, or says that the table has no such move.
    pub(crate) fn step(&mut self, transition: Transition) -> Result<(), Error> {
        self.state = self.state.after(transition)?;
        Ok(())
    }

    /// What its making, changing and removing must survive: a project that no one keeps needs no sync.
    pub(crate) fn durability(&self) -> Durability {
        if self.ephemeral { Durability::Crash } else { Durability::PowerCut }
    }

    /// Notes that the sandbox is gone.
    pub(crate) fn end(&mut self, reason: EndedReason, detail: Option<String>) {
        self.sandbox = None;
        self.ended = Some(Ended { at: Timestamp::now(), reason, detail });
    }
}

/// 64 bits that no one can guess, for ids that are never reused.
pub(crate) fn random_bits() -> u64 {
    getrandom::u64().expect("getrandom(2) does not fail once the kernel has booted")
}

/// A new project's id. Its last bit says whether the project stays, so that a disk whose row is lost
/// tells by its name alone whether it may go.
pub(crate) fn new_id(lasting: Lasting) -> ProjectId {
    ProjectId::from_bits(match lasting {
        Lasting::Kept => random_bits() & !1,
        Lasting::Ephemeral => random_bits() | 1,
    })
}

/// Whether the project with this id stays until someone removes it.
pub(crate) fn lasting(id: ProjectId) -> Lasting {
    match id.to_string().as_bytes().last() {
        Some(b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f') => Lasting::Ephemeral,
        _ => Lasting::Kept,
    }
}

/// Whether a project stays until someone removes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lasting {
    /// Only `rm` deletes it.
    Kept,
    /// It goes with its last hold.
    Ephemeral,
}
