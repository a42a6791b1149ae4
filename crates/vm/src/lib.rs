//! MicroVMs: what a guest boots from, and the programs that run it.
//!
//! ```text
//!  distribution's kernel package --> vmlinux, modules --\
//!                    garth-agent --> /init ------------- +--> guest::Artifacts { vmlinux, initrd.img }
//!                                                                      |
//!                                      Machine { memory, drives, … } <-/
//!  Vmm::find --> Vmm::launch(machine) --> Launch { program, arguments, what it sees }   (run in a jail by others)
//!            \-> Vmm::control         --> Control: start, pause, resume, save, load …
//! ```
//!
//! It installs nothing on the host, loads nothing into the host's kernel, starts no machine itself, and never talks to
//! an agent.
#![forbid(unsafe_code)]

mod channel;
pub mod cloud_hypervisor;
mod error;
pub mod firecracker;
pub mod guest;
pub mod host;
mod http;
mod inside;
mod machine;
#[cfg(test)]
mod mock;
mod program;
pub mod qemu;
mod snapshot;
mod socket;
mod template;
mod virtiofs;
mod vmm;

pub use channel::{AGENT_PORT, ChannelAddress};
pub use error::{Error, ErrorKind, SnapshotFault};

pub use machine::{Accelerator, Begin, Drive, DriveAccess, DriveRate, Machine, Nic};
pub use snapshot::{Saved, Snapshot};
pub use template::Template;
pub use virtiofs::VirtioFs;
pub use vmm::{Access, Capabilities, Control, Descriptor, Launch, Place, Shown, Vmm};
