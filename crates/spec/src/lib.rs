//! The words of Garth as types, for every other crate.
//!
//! ```text
//! command line / HTTP  --parse-->  ProjectSpec, Limits, …  --used by-->  engine, runtime, storage, network
//! ```
//!
//! Everything that comes from outside becomes one of these types once, at the edge; whoever holds a
//! [`ProjectName`] or a [`Limits`] need not check it again. This crate does no I/O and knows no
//! other crate of ours.
#![forbid(unsafe_code)]

mod agent;
mod capability;
mod guest;
mod id;
mod limits;
mod name;
mod network;
pub mod pod;
mod probe;
mod project;
mod runtime;
mod size;
mod state;
mod volume;

pub use agent::AgentConfig;
pub use capability::{Capabilities, Capability, UnknownCapability};
pub use guest::{
    GuestAgain, GuestBegin, GuestBegun, GuestDisk, GuestError, GuestFilesystem, GuestFrozen, GuestLimits, GuestNetwork,
    GuestPower, GuestPrepare, GuestVolume, Hex, InvalidText, MacAddress, Prefixed,
};
pub use id::{ImageId, InvalidId, ProjectId, SandboxId};
pub use limits::{InvalidLimit, Limits};
pub use name::{ImageName, InvalidName, ProjectName};
pub use network::{Network, UnknownNetwork};
pub use probe::{Observed, ProbeCall, ProbeReport, ProbeRequest, Try};
pub use project::{ImageConfig, InvalidSpec, ProjectSpec};
pub use runtime::{Accel, Accelerator, Handler, Runtime, RuntimeChoice, UnknownChoice, UnknownRuntime};
pub use size::{ByteSize, CpuCount, InvalidSize};
pub use state::{ProjectState, StartPolicy, Transition, TransitionRefused};
pub use volume::Volume;
