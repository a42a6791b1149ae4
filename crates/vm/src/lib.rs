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

mod error;
pub mod guest;
pub mod host;
mod machine;
mod program;
pub mod qemu;
mod vmm;

pub use error::{Error, ErrorKind, SnapshotFault};
pub use machine::{Accelerator, Begin, Drive, DriveAccess, Machine, Nic};
pub use vmm::{AGENT_PORT, Access, Capabilities, ChannelAddress, Control, Descriptor, Launch, Place, Shown, Vmm};
