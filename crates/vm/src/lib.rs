//! MicroVMs: what a guest boots from, and the programs that run it.
//!
//! ```text
//!  distribution's kernel package --> vmlinux, modules --\
//!                    garth-agent --> /init ------------- +--> guest::Artifacts { vmlinux, initrd.img }
//! ```
//!
//! It installs nothing on the host and loads nothing into the host's kernel.
#![forbid(unsafe_code)]

pub mod guest;
pub mod host;
