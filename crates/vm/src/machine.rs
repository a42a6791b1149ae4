//! What a guest is made of, whichever program runs it.

use std::path::PathBuf;

use garth_spec::ByteSize;

pub use garth_spec::Accelerator;

use crate::snapshot::Snapshot;

/// A machine. Paths are the host's and trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Virtual processors, one at least.
    pub vcpus: u32,
    /// Its memory, in whole MiB.
    pub memory: ByteSize,
    /// An ELF kernel.
    pub kernel: PathBuf,
    /// The first root filesystem.
    pub initrd: PathBuf,
    /// Its disks; the guest tells them by serial, not by order.
    pub drives: Vec<Drive>,
    /// Its network interface.
    pub nic: Option<Nic>,
    /// Directories of the host that it can mount, each served by a program of its own: their tags.
    pub shares: Vec<String>,
    /// What runs its instructions.
    pub accelerator: Accelerator,
}

/// A disk, in raw form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drive {
    /// Up to 20 letters and digits: all that a virtio disk can tell (VIRTIO 1.2, 5.2.6).
    pub serial: String,
    /// The file.
    pub file: PathBuf,
    /// Whether the guest may write.
    pub access: DriveAccess,
    /// How fast the guest may read and write.
    pub rate: DriveRate,
}

/// What a guest may read of a disk in a second, and as much that it may write; as fast as it goes where nothing is said.
/// Firecracker and Cloud Hypervisor count both together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DriveRate {
    /// Bytes.
    pub bytes: Option<u64>,
    /// Requests.
    pub operations: Option<u64>,
}

/// Whether a guest may write to a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DriveAccess {
    /// Many guests may have it.
    ReadOnly,
    /// This guest alone has it. What it discards is given back to the host.
    ReadWrite,
}

/// A network interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nic {
    /// Its hardware address.
    pub mac: [u8; 6],
}

/// How a machine begins.
#[derive(Debug, Clone, Copy)]
pub enum Begin<'a> {
    /// Its kernel starts.
    Boot,
    /// Its kernel starts, and it is to become a template: its network interface leads nowhere.
    Template,
    /// It waits for this snapshot: some programs must see its files.
    Restore(&'a Snapshot),
}

impl Nic {
    /// `02:00:00:00:00:01`.
    pub(crate) fn mac_text(self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

impl Machine {
    /// Its memory, as programs take it.
    pub(crate) fn memory_mib(&self) -> u64 {
        self.memory.bytes() >> 20
    }

    /// What the kernel is told.
    pub(crate) fn command_line(&self) -> String {
        // `quiet` alone saves a tenth of the boot; a guest that panics ends the machine, and with it the sandbox.
        let mut words = "console=ttyS0 quiet reboot=t panic=-1 i8042.noaux i8042.nokbd 8250.nr_uarts=1".to_owned();
        if self.accelerator == Accelerator::Tcg {
            // Without a PIT there is nothing to calibrate against: the kernel would hang now and then.
            let khz = garth_kernel::tsc::khz();
            words += &format!(" mitigations=off no_timer_check tsc=reliable tsc_early_khz={khz} lpj={}", khz * 4);
            // QEMU 7.2 leaves the flags after cmpxchg16b to chance: an interrupt right after one, and the kernel dies of a double
            // fault. The kernel, which has its memory by it, does without; programs still see it, as x86-64-v2 has to have it.
            words += " clearcpuid=cx16";
        }
        words
    }
}
