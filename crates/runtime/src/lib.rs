//! Makes sandboxes of the runtime `default/native`: namespaces, mounts, limits and filters on the shared kernel.
//!
//! ```text
//!  daemon (threads)                     spawner (one thread, no host mounts)          init of a sandbox
//!  Sandboxes::open  --exec sealed-->    base mounts, filter compiled
//!    warm slot      --Request-->        clone3: mount, pid, ipc, uts namespaces -->   warm steps: /proc /dev /run …
//!  Sandboxes::start --Order + fds------------------------------------------------->  enter steps: network, disk,
//!                   <-Report-------------------------------------------------------   pivot_root, filter, capabilities;
//!  Sandbox::destroy --SIGKILL by pidfd-------------------------------------------->  then it *is* the agent
//! ```
//!
//! A plan becomes a list of [`steps::Step`]s by a pure function; a short loop carries them out, and an error names the
//! step. Everything slow is done ahead in warm *slots*: a cgroup set, a spawner process that lives in it (cgroup v1
//! lets a child inherit its cgroups; moving a process costs milliseconds there) and an init that waits for its order.
//! The disk reaches the init as detached mounts on descriptors: no mount namespace of a sandbox ever holds a mount of
//! the host.
//!
//! This crate does not know projects, images or addresses, keeps no store, and never talks to an agent.
#![forbid(unsafe_code)]

mod agent_binary;
mod cgroups;
mod channel;
mod disk;
mod error;
mod handshake;
mod ids;
pub mod inside;
pub mod jail;
mod keeper;
mod keepers;
pub mod oci;
mod plan;
mod policy;
mod porter;
mod prepared;
mod probe;
mod recycler;
mod sandbox;
mod sandboxes;
mod slots;
pub mod spawner;
pub mod steps;

pub use agent_binary::AgentBinary;
pub use cgroups::{BlockDevice, Usage};
pub use disk::check_volume;
pub use error::{Error, ErrorKind};
pub use ids::{FirstId, IDS};
pub use jail::{Jail, JailPlan};
pub use oci::{Container, ContainerRecord, OciRuntime, PreparedContainer};
pub use plan::{Access, Durability, InvalidPlan, Overlay, Root, SandboxPlan, Volume};
pub use policy::{Level, Nodes, Policy};
pub use prepared::Prepared;
pub use probe::{Finding, probe};
pub use sandbox::{MappedRecord, Sandbox, SandboxRecord};
pub use sandboxes::{Sandboxes, SandboxesConfig, Swept};
pub use slots::Ending;
