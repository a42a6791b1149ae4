use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::machine::{Accelerator, DriveAccess, Machine};

/// Changes when files of an older version could not be loaded.
pub(super) const FORMAT: u64 = 1;

/// `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) format: u64,
    /// The program and its version, as it says them.
    pub(super) vmm: String,
    pub(super) machine: Shape,
    pub(super) files: BTreeMap<String, Recorded>,
}

/// A file as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recorded {
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// All of a machine that its snapshot depends on: what devices there are and not where their files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Shape {
    vcpus: u32,
    memory: u64,
    /// The sizes of the kernel and the initrd: programs hold them in what they save.
    kernel: u64,
    initrd: u64,
    /// Serials, and whether the guest may write.
    drives: Vec<(String, bool)>,
    mac: Option<[u8; 6]>,
    kvm: bool,
}

impl Shape {
    pub(super) fn of(machine: &Machine) -> Result<Self, Error> {
        let size = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.len());
        let size = |path: &Path| size(path).map_err(Error::io("look at the guest's kernel"));
        let drives = machine.drives.iter();
        Ok(Self {
            vcpus: machine.vcpus,
            memory: machine.memory.bytes(),
            kernel: size(&machine.kernel)?,
            initrd: size(&machine.initrd)?,
            drives: drives.map(|drive| (drive.serial.clone(), drive.access == DriveAccess::ReadWrite)).collect(),
            mac: machine.nic.map(|nic| nic.mac),
            kvm: machine.accelerator == Accelerator::Kvm,
        })
    }
}
