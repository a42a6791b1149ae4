//! QEMU: its command line, and orders by QMP. Where KVM does not work it translates the guest's instructions.

mod control;
mod qmp;

use std::path::Path;

use crate::error::Error;
use crate::inside;
use crate::machine::{Accelerator, Begin, Drive, DriveAccess, Machine, Nic};
use crate::program::Program;
use crate::vmm::{Access, Capabilities, Descriptor, Launch, Shown};

pub use control::Control;

/// The name of the guest's channel, as the agent looks for it.
const CHANNEL: &str = "garth.agent";

pub(crate) const CAPABILITIES: Capabilities =
    Capabilities { emulates: true, vmgenid: false, shared_memory: true, virtiofs: true, templates: true };

/// Where firmware and modules are, in Debian and in what builds it by itself.
const DATA: [&str; 3] = ["/usr/share/qemu", "/usr/share/seabios", "/usr/local/share/qemu"];
const MODULES: [&str; 3] =
    ["/usr/lib/x86_64-linux-gnu/qemu", "/usr/lib64/qemu", "/usr/local/lib/x86_64-linux-gnu/qemu"];

/// QEMU's translator keeps translated code in so much memory; beyond 64 MiB nothing measured became faster.
const TRANSLATED: u32 = 64;

/// An installed QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu(Program);

impl Qemu {
    pub(crate) fn find() -> Result<Self, Error> {
        Program::find("qemu-system-x86_64", "apt-get install qemu-system-x86").map(Self)
    }

    #[cfg(test)]
    pub(crate) fn of(program: Program) -> Self {
        Self(program)
    }

    pub(crate) fn version(&self) -> &str {
        &self.0.version
    }

    pub(crate) fn launch(&self, machine: &Machine, begin: Begin<'_>) -> Launch {
        let mut descriptors = vec![Descriptor::Channel, Descriptor::Control, Descriptor::Console];
        if machine.nic.is_some() && !matches!(begin, Begin::Template) {
            descriptors.push(Descriptor::Tap);
        }
        let first_share = descriptors.len();
        descriptors.extend((0..machine.shares.len()).map(Descriptor::Share));
        Launch {
            program: self.0.path.display().to_string(),
            arguments: arguments(machine, begin, first_share),
            shown: self.shown(machine),
            descriptors,
            tap: None,
            sockets: Vec::new(),
        }
    }

    fn shown(&self, machine: &Machine) -> Vec<Shown> {
        let mut shown: Vec<Shown> = self.0.shown().collect();
        let there = |path: &&str| Path::new(path).is_dir();
        let same = |path: &str, access| Shown { from: path.into(), at: path.into(), access };
        shown.extend(DATA.iter().filter(|path| there(path)).map(|path| same(path, Access::Read)));
        shown.extend(MODULES.iter().filter(|path| there(path)).map(|path| same(path, Access::Run)));
        if machine.accelerator == Accelerator::Kvm {
            shown.push(inside::device(inside::KVM));
        }
        shown.push(inside::device(inside::RANDOM));
        shown.extend(inside::files(machine));
        shown
    }
}

/// The guest's devices must be the same for a snapshot and the machine that it is loaded into: they depend on what the
/// machine is and never on where it runs.
fn arguments(machine: &Machine, begin: Begin<'_>, first_share: usize) -> Vec<String> {
    let mut words = Words(Vec::new());
    words.add("-name", "garth");
    words.0.extend(["-no-user-config", "-nodefaults", "-no-reboot", "-S"].map(str::to_owned));
    words.add("-display", "none");
    // No PIT and no PIC: their stray interrupt ends a direct boot of the kernel in an oops now and then.
    let memory = if machine.shares.is_empty() { "" } else { ",memory-backend=memory" };
    words.add("-machine", format!("microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=on,usb=off{memory}"));
    match machine.accelerator {
        Accelerator::Kvm => {
            words.add("-accel", "kvm");
            words.add("-cpu", "host");
        }
        Accelerator::Tcg => {
            // One thread for all processors: with one each, a kernel that patches its own code while it boots is seen to
            // trip over a stale translation now and then (an oops by int3).
            words.add("-accel", format!("tcg,thread=single,tb-size={TRANSLATED}"));
            words.add("-cpu", "max");
        }
    }
    words.add("-m", format!("{}M", machine.memory_mib()));
    if !machine.shares.is_empty() {
        // Who serves a share reads and writes where the guest says.
        words.add("-object", format!("memory-backend-memfd,id=memory,size={}M,share=on", machine.memory_mib()));
    }
    words.add("-smp", machine.vcpus.to_string());
    words.add("-kernel", inside::KERNEL);
    words.add("-initrd", inside::INITRD);
    words.add("-append", machine.command_line());
    words.add("-global", "virtio-mmio.force-legacy=false");
    words.add("-chardev", "socket,id=channel,fd=%fd0%,server=on,wait=off");
    words.add("-device", "virtio-serial-device,max_ports=2");
    words.add("-device", format!("virtserialport,chardev=channel,name={CHANNEL}"));
    words.add("-chardev", "socket,id=control,fd=%fd1%,server=on,wait=off");
    words.add("-mon", "chardev=control,mode=control");
    words.add("-chardev", "socket,id=console,fd=%fd2%");
    words.add("-serial", "chardev:console");
    words.add("-object", format!("rng-random,id=random,filename={}", inside::RANDOM));
    words.add("-device", "virtio-rng-device,rng=random");
    words.add("-device", "virtio-balloon-device,id=balloon,free-page-reporting=on,deflate-on-oom=on");
    machine.drives.iter().for_each(|drive| words.drive(drive));
    if let Some(nic) = machine.nic {
        words.nic(nic, begin);
    }
    for (number, tag) in machine.shares.iter().enumerate() {
        words.add("-chardev", format!("socket,id={tag},fd=%fd{}%", first_share + number));
        words.add("-device", format!("vhost-user-fs-device,chardev={tag},tag={tag}"));
    }
    if matches!(begin, Begin::Restore(_)) {
        words.add("-incoming", "defer");
    }
    // Last, so that what is named above is open by then (qemu(1), "-sandbox").
    words.add("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny");
    words.0
}

struct Words(Vec<String>);

impl Words {
    fn add(&mut self, option: &str, value: impl Into<String>) {
        self.0.extend([option.to_owned(), value.into()]);
    }

    fn drive(&mut self, drive: &Drive) {
        let (serial, file) = (&drive.serial, inside::drive(drive));
        let access = match drive.access {
            DriveAccess::ReadOnly => "read-only=on",
            // A flush of the guest's is one of the host's, and a hole of the guest's is one of the host's.
            DriveAccess::ReadWrite => "read-only=off,discard=unmap,detect-zeroes=unmap",
        };
        self.add(
            "-blockdev",
            format!("driver=raw,node-name={serial},{access},file.driver=file,file.filename={file},file.locking=off"),
        );
        self.add("-device", format!("virtio-blk-device,id=disk-{serial},drive={serial},serial={serial}"));
    }

    fn nic(&mut self, nic: Nic, begin: Begin<'_>) {
        let mac = nic.mac_text();
        let wire = match begin {
            Begin::Template => "hubport,id=net,hubid=0",
            Begin::Boot | Begin::Restore(_) => "tap,id=net,fd=%fd3%",
        };
        self.add("-netdev", wire);
        self.add("-device", format!("virtio-net-device,netdev=net,mac={mac}"));
    }
}

#[cfg(test)]
mod tests;
