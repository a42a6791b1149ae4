//! Firecracker: orders by its API (firecracker.yaml of its sources). It runs guests by KVM alone.

mod control;
mod requests;

use crate::error::Error;
use crate::http::Request;
use crate::inside;
use crate::machine::{Begin, DriveRate, Machine};
use crate::program::Program;
use crate::vmm::{Capabilities, Descriptor, Launch};

pub(crate) use control::Control;

/// Names its file, where it is not in the path.
const VARIABLE: &str = "GARTH_FIRECRACKER";

pub(crate) const CAPABILITIES: Capabilities =
    Capabilities { emulates: false, vmgenid: true, shared_memory: true, virtiofs: false, templates: true };

/// In the program's own directory.
const API: &str = "api.sock";
/// In a snapshot, and in the program's own directory until it is moved there.
const STATE: &str = "state";
const MEMORY: &str = "memory";

/// An installed Firecracker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firecracker(Program);

impl Firecracker {
    pub(crate) fn find() -> Result<Self, Error> {
        let install = "see github.com/firecracker-microvm/firecracker/releases";
        Program::named(VARIABLE, "firecracker", install)?.saying("Firecracker v").map(Self)
    }

    #[cfg(test)]
    pub(crate) fn of(program: Program) -> Self {
        Self(program)
    }

    pub(crate) fn version(&self) -> &str {
        &self.0.version
    }

    /// It takes no socket that listens already, so it makes one in its own directory. Its own filters of system calls
    /// are on unless it is told otherwise.
    pub(crate) fn launch(&self, machine: &Machine, begin: Begin<'_>) -> Launch {
        let mut shown: Vec<_> = self.0.shown().chain(inside::devices(machine)).chain(inside::files(machine)).collect();
        if let Begin::Restore(snapshot) = begin {
            shown.extend(inside::snapshot(snapshot, &[STATE, MEMORY]));
        }
        let words = ["--api-sock", &format!("{}/{API}", inside::OWN), "--level", "Error"].map(str::to_owned);
        Launch {
            program: self.0.path.display().to_string(),
            arguments: words.into(),
            shown,
            descriptors: vec![Descriptor::Output],
            tap: machine.nic.map(|_| inside::TAP),
            sockets: Vec::new(),
        }
    }
}

/// A disk's rate is set after a machine was loaded.
pub(crate) fn told(machine: &Machine) -> Vec<String> {
    let mut machine = machine.clone();
    machine.drives.iter_mut().for_each(|drive| drive.rate = DriveRate::default());
    requests::boot(&machine).iter().map(Request::text).collect()
}

#[cfg(test)]
mod tests;
