//! MicroVMs: what a guest boots from, and what the machine has to run it.
//!
//! ```text
//!  distribution's kernel package --> vmlinux, modules --\
//!                    garth-agent --> /init -------------- +--> guest::Artifacts { vmlinux, initrd.img }
//!
//!  garth-agent kvm-probe, PATH --> host::{kvm, qemu}
//! ```
//!
//! It installs nothing on the host and loads nothing into the host's kernel.
#![forbid(unsafe_code)]

pub mod guest;
pub mod host;
