//! Firecracker and Cloud Hypervisor for real: booted, saved, loaded twice. `GARTH_TEST_FIRECRACKER` and
//! `GARTH_TEST_CLOUD_HYPERVISOR` name their files.
//!
//! ```text
//!  this program --> QEMU without KVM, with a processor that has SVM --> Debian's kernel with kvm-amd
//!                     `-- the same program --> the VMM, in a root of its own, as a user without privileges
//!                                                `-- Debian's kernel with a script that prints
//! ```
//!
//! So it needs no KVM on the host.

mod inside;
mod jail;
mod outside;
#[path = "../it/world.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod world;
