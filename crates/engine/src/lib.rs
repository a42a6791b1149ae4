//! What becomes of a project: its life from create to remove, on this host, for the server.
//!
//! ```text
//!            ┌─ store (SQLite): what must survive the daemon
//! Engine ────┼─ registry: name -> queue, view          (readers never wait for a change)
//!            │     └─ one task per project: queue -> lifecycle steps -> view
//!            └─ local: storage, image, network, runtime (or a fake, in tests)
//!
//! start of the daemon:  lock -> store -> reconcile(store, kernel) -> tasks
//! ```
//!
//! Every change of a project goes through its queue and along the table of
//! [`garth_spec::ProjectState::after`]. Each step is written down before it is done, so a daemon
//! that is killed between two steps knows at its next start what to finish or undo ([`FAULT_POINTS`]
//! lists the steps; tests die at each).
//!
//! The engine names no status code, parses no request, and opens nothing that a sandbox names.
#![forbid(unsafe_code)]

mod agent;
mod data_dir;
mod doctor;
mod engine;
mod error;
mod fault;
mod guest;
mod holds;
mod images;
mod lifecycle;
mod local;
mod names;
mod project;
mod queue;
mod reboots;
mod reconcile;
mod registry;
mod shutdown;
mod store;
mod upkeep;
mod verify;

#[cfg(test)]
mod tests;

pub use agent::{Body, Link};
pub use data_dir::DataDir;
pub use doctor::{Finding, Findings, Here, probe};
pub use engine::{Changed, Engine, EngineConfig, Inspection, NewProject};
pub use error::{Cause, Error, ErrorKind};
pub use fault::FAULT_POINTS;
pub use guest::{GuestConfig, GuestReport, KernelSource, Progress, Step};
pub use holds::Hold;
pub use images::{ImageEntry, ImageFormat, ImageSource};
pub use local::{Addresses, DiskUse, Usage};
pub use names::made_up as made_up_name;
pub use project::{Ended, EndedReason, Project, SandboxEntry};
