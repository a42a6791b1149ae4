//! How fast a sandbox reads and writes its disk, sends and receives: what can be held to here, and by whom.
//!
//! | | disk | network |
//! | --- | --- | --- |
//! | default, sysbox | the kernel, by cgroup v2 | the host's end of the wire |
//! | microvm | the program that runs the guest | the host's end of the wire |

use garth_spec::{ByteSize, Handler, Limits, Runtime, SandboxId};
use garth_vm::DriveRate;

use super::Host;
use super::failure::Explain as _;
use crate::error::{Error, ErrorKind};

impl Host {
    /// Whether this handler holds a sandbox to these rates here: what cannot be held is not taken.
    pub(super) fn check_rates(&self, handler: Handler, limits: &Limits) -> Result<(), Error> {
        if handler.runtime() == Runtime::Microvm {
            return Ok(());
        }
        let (what, limit) = match (limits.disk_rate, limits.disk_iops) {
            (Some(rate), _) => ("disk rate", format!("{rate}/s")),
            (None, Some(iops)) => ("disk iops", iops.to_string()),
            (None, None) => return Ok(()),
        };
        // What the pool is on is known once it is open.
        self.pool()?;
        self.sandboxes()?.check_disk_rate().map_err(|error| {
            Error::because(ErrorKind::LimitRefused { what, limit }, error).hint(
                "the runtime microvm holds a disk to a rate on every host; the others where cgroup v2 is the only one",
            )
        })
    }

    /// Holds the network of a sandbox that has one to a rate.
    pub(in crate::local) fn limit_network(&self, id: SandboxId, rate: Option<ByteSize>) -> Result<(), Error> {
        self.network.limit(id, rate).explain().map_err(|error| error.step("limit the network"))
    }
}

pub(super) fn of_drive(limits: &Limits) -> DriveRate {
    DriveRate { bytes: limits.disk_rate.map(ByteSize::bytes), operations: limits.disk_iops.map(u64::from) }
}
