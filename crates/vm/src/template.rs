//! Templates: a machine that was saved when its agent had come up and nobody had told it yet what it is. Any machine of
//! the same shape can go on from there instead of booting.
//!
//! The disks that a guest writes were empty files, which no driver has when it is saved; those that are shared it may have
//! mounted. Its network interface led nowhere.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::error::Error;
use crate::guest::digest;
use crate::machine::{DriveAccess, Machine, Nic};
use crate::vmm::Vmm;

/// Changes when templates of an older version must not be used.
const FORMAT: u32 = 1;
/// What every template's interface is called: those that go on from it set their own.
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Tells one boot of the host from the next.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// What the kernel is told of the host's clock is measured anew for each machine.
const MEASURED: &str = "tsc_early_khz";

/// The template that a machine could go on from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    key: String,
    machine: Machine,
}

impl Template {
    /// `None` when the program has no use for one.
    ///
    /// It is of this boot of the host: a guest has taken over what the processor is and how fast its clock runs.
    pub fn of(vmm: &Vmm, machine: &Machine) -> Result<Option<Self>, Error> {
        // Who serves a share knows what its guest has open there, and no two guests may have one.
        if !vmm.capabilities().templates || !machine.shares.is_empty() {
            return Ok(None);
        }
        let boot = std::fs::read_to_string(BOOT).map_err(Error::io("tell this boot of the host"))?;
        let machine = Machine { nic: machine.nic.map(|_| Nic { mac: MAC }), ..machine.clone() };
        let mut hash = Sha256::new();
        let mut add = |text: &str| hash.update(format!("{}:{text}", text.len()));
        add(&FORMAT.to_string());
        add(boot.trim());
        add(vmm.version());
        add(&machine.kernel.to_string_lossy());
        add(&machine.initrd.to_string_lossy());
        let shared = machine.drives.iter().filter(|drive| drive.access == DriveAccess::ReadOnly);
        shared.for_each(|drive| add(&identity(&drive.file)));
        vmm.told(&machine).iter().filter(|word| !word.contains(MEASURED)).for_each(|word| add(word));
        let key = digest::hexadecimal(&hash.finalize()[..16]);
        Ok(Some(Self { key, machine }))
    }

    /// Names it: 32 letters and digits. Whatever a template depends on is in it.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What to load it as.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What to save: the same with other files for the disks that it writes, in this directory, each named by its disk's
    /// serial.
    pub fn machine_with(&self, disks: &Path) -> Machine {
        let mut machine = self.machine.clone();
        let own = machine.drives.iter_mut().filter(|drive| drive.access == DriveAccess::ReadWrite);
        own.for_each(|drive| drive.file = disks.join(&drive.serial));
        machine
    }
}

/// What tells a shared disk from what was there before. One that is missing fails later, where it is opened.
fn identity(file: &Path) -> String {
    let found = std::fs::metadata(file).ok();
    format!("{:?}", found.map(|found| (found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud_hypervisor::CloudHypervisor;
    use crate::firecracker::Firecracker;
    use crate::machine::{Begin, DriveRate};
    use crate::mock;
    use crate::program::Program;
    use crate::qemu::Qemu;
    use garth_spec::ByteSize;

    fn program() -> Program {
        Program::at("/bin/true".into()).expect("a program with a version")
    }

    fn qemu() -> Vmm {
        Vmm::Qemu(Qemu::of(program()))
    }

    fn firecracker() -> Vmm {
        Vmm::Firecracker(Firecracker::of(program()))
    }

    fn cloud_hypervisor() -> Vmm {
        Vmm::CloudHypervisor(CloudHypervisor::of(program()))
    }

    fn key(vmm: &Vmm, machine: &Machine) -> String {
        Template::of(vmm, machine).expect("a key").expect("a template").key
    }

    #[test]
    fn a_rate_that_cannot_be_set_later_is_the_templates() {
        let mut other = mock::machine();
        other.drives[0].rate = DriveRate { bytes: Some(7), operations: Some(7) };
        let has_own = |vmm: &Vmm| key(vmm, &mock::machine()) != key(vmm, &other);
        assert_eq!([qemu(), firecracker(), cloud_hypervisor()].each_ref().map(has_own), [false, false, true]);
    }

    #[test]
    fn projects_of_one_shape_share_a_template_and_others_do_not() {
        for vmm in [qemu(), firecracker(), cloud_hypervisor()] {
            shapes(|machine| key(&vmm, machine));
        }
    }

    fn shapes(key: impl Fn(&Machine) -> String) {
        let machine = mock::machine();
        let mut other = machine.clone();
        other.nic = Some(Nic { mac: [2, 0, 0, 0, 0, 9] });
        other.drives[0].file = "/pool/other".into();
        assert_eq!(key(&machine), key(&other));
        let mut keys = vec![key(&machine)];
        let without = |at: usize| {
            let mut machine = mock::machine();
            machine.drives.remove(at);
            machine
        };
        let mut shared = mock::machine();
        shared.drives[1].file = "/dev/zero".into();
        keys.push(key(&shared));
        keys.push(key(&without(0)));
        keys.push(key(&without(1)));
        keys.push(key(&Machine { nic: None, ..mock::machine() }));
        keys.push(key(&Machine { vcpus: 3, ..mock::machine() }));
        keys.push(key(&Machine { memory: ByteSize::mib(512), ..mock::machine() }));
        keys.push(key(&Machine { kernel: "/dev/zero".into(), ..mock::machine() }));
        keys.push(key(&Machine { accelerator: crate::machine::Accelerator::Tcg, ..mock::machine() }));
        let count = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), count, "{keys:?}");
    }

    #[test]
    fn a_machine_with_a_share_has_no_template() {
        let machine = Machine { shares: vec!["volume0".to_owned()], ..mock::machine() };
        assert_eq!(Template::of(&qemu(), &machine).expect("an answer"), None);
    }

    #[test]
    fn a_template_is_made_without_a_file_or_an_address_of_a_project() {
        let (machine, vmm) = (mock::machine(), qemu());
        let template = Template::of(&vmm, &Machine { nic: Some(Nic { mac: [2, 7, 7, 7, 7, 7] }), ..machine });
        let template = template.expect("a key").expect("a template");
        let launch = vmm.launch(&template.machine_with(Path::new("/empty")), Begin::Template);
        let of_a_project = |path: &Path| path == Path::new("/pool/root");
        assert!(!launch.shown.iter().any(|shown| of_a_project(&shown.from)), "{launch:?}");
        assert!(launch.shown.iter().any(|shown| shown.from == Path::new("/empty/root")), "{launch:?}");
        assert!(!launch.arguments.iter().any(|word| word.contains("07:07")), "{launch:?}");
        assert!(!launch.descriptors.contains(&crate::vmm::Descriptor::Tap));
    }
}
