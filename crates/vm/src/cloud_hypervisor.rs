//! Cloud Hypervisor: orders by its API (cloud-hypervisor.yaml of its sources). It runs guests by KVM alone.
//!
//! A guest that reboots, or panics and so reboots, is started again by it from its kernel, and no option of it changes
//! that. So its directory is closed to it once the guest runs: to start a guest it makes a socket there, and where it
//! cannot it ends, as the other programs do.

mod config;
mod control;

use crate::error::Error;
use crate::inside;
use crate::machine::{Begin, Machine};
use crate::program::Program;
use crate::vmm::{Capabilities, Descriptor, Launch};

pub(crate) use control::Control;

/// Names its file, where it is not in the path.
const VARIABLE: &str = "GARTH_CLOUD_HYPERVISOR";

/// It could have guests share a snapshot's memory by userfaultfd(2), which a program without privileges is not given.
pub(crate) const CAPABILITIES: Capabilities =
    Capabilities { emulates: false, vmgenid: false, shared_memory: false, virtiofs: true, templates: true };

/// What it writes for a snapshot.
const CONFIG: &str = "config.json";
const FILES: [&str; 3] = [CONFIG, "memory-ranges", "state.json"];

/// An installed Cloud Hypervisor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudHypervisor(Program);

impl CloudHypervisor {
    pub(crate) fn find() -> Result<Self, Error> {
        let install = "see github.com/cloud-hypervisor/cloud-hypervisor/releases";
        Program::named(VARIABLE, "cloud-hypervisor", install)?.saying("cloud-hypervisor v").map(Self)
    }

    #[cfg(test)]
    pub(crate) fn of(program: Program) -> Self {
        Self(program)
    }

    pub(crate) fn version(&self) -> &str {
        &self.0.version
    }

    pub(crate) fn launch(&self, machine: &Machine, begin: Begin<'_>) -> Launch {
        let mut shown: Vec<_> = self.0.shown().chain(inside::devices(machine)).chain(inside::files(machine)).collect();
        shown.push(inside::device(inside::RANDOM));
        if let Begin::Restore(snapshot) = begin {
            shown.extend(inside::snapshot(snapshot, &FILES));
        }
        Launch {
            program: self.0.path.display().to_string(),
            arguments: ["--api-socket", "fd=%fd0%", "--seccomp", "true"].map(str::to_owned).into(),
            shown,
            descriptors: vec![Descriptor::Control, Descriptor::Output],
            tap: machine.nic.map(|_| inside::TAP),
            sockets: machine.shares.iter().map(|tag| inside::share(tag).into()).collect(),
        }
    }
}

/// With the disks' rates, which stay as they are once the machine is made.
pub(crate) fn told(machine: &Machine) -> String {
    config::of(machine).to_string()
}

#[cfg(test)]
mod tests;
