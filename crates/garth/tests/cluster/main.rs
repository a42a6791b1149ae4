//! Garth on a real Kubernetes: its API server, scheduler, kubelet and containerd, with the rights of its own manifests.
//!
//! One cluster for all tests, one operator, and for each test a namespace with a gateway of its own.

#[path = "../support/yard.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod yard;

#[path = "../support/terminal.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod terminal;

#[path = "../support/authority.rs"]
mod authority;

mod access;
mod doctor;
mod faults;
mod idle;
mod installed;
mod pools;
mod projects;
mod refused;
mod runtimes;
mod stage;
mod verify;
mod wiretap;
