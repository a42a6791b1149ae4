//! What microVMs need from this machine.

use std::sync::OnceLock;

use garth_spec::{Accel, Handler};
use garth_vm::guest::Artifacts;
use garth_vm::host::{self, Verdict};
use garth_vm::{Accelerator, Vmm};

use super::{Finding, Here};
use crate::error::{Error, ErrorKind};

const SETUP: &str = "garth setup microvm";

/// Looks at the program, tries KVM, and looks at what guests start from.
pub(super) fn findings(handler: Handler, here: &Here<'_>) -> Vec<Finding> {
    vec![program(handler), kvm(handler, verdict(here.agent), here.guests.accel), guest(here)]
}

/// What runs the instructions of a handler's guests here.
pub(crate) fn accelerator(handler: Handler, here: &Here<'_>) -> Result<Accelerator, Error> {
    let verdict = verdict(here.agent);
    match (here.guests.accel, verdict) {
        (Accel::Auto | Accel::Kvm, Verdict::KvmOk) => Ok(Accelerator::Kvm),
        (Accel::Auto | Accel::Tcg, _) if handler == Handler::MicrovmQemu => Ok(Accelerator::Tcg),
        _ => {
            let missing = kvm(handler, verdict, here.guests.accel).detail;
            Err(ErrorKind::RuntimeUnavailable { runtime: handler.into(), missing }.into())
        }
    }
}

/// KVM is tried once in the daemon's life: where it does not work, that takes a quarter of a second.
fn verdict(agent: &[u8]) -> &'static Verdict {
    static VERDICT: OnceLock<Verdict> = OnceLock::new();
    VERDICT.get_or_init(|| host::kvm(agent))
}

fn lacking(name: &str, detail: String, fix: Option<&str>) -> Finding {
    Finding { name: name.to_owned(), ok: false, detail, fix: fix.map(str::to_owned) }
}

fn program(handler: Handler) -> Finding {
    match Vmm::find(handler) {
        Ok(vmm) => Finding::fine("vmm", vmm.version()),
        Err(error) => lacking("vmm", error.to_string(), error.hint()),
    }
}

fn kvm(handler: Handler, verdict: &Verdict, accel: Accel) -> Finding {
    let (detail, fix) = explain(verdict);
    let translated = "guests run in QEMU's translator (TCG): 10 to 50 times slower, and the boundary is a program's, not the processor's";
    match (verdict, accel, handler) {
        (Verdict::KvmOk, Accel::Auto | Accel::Kvm, _) => Finding::fine("kvm", detail),
        (_, Accel::Tcg, Handler::MicrovmQemu) => Finding::fine("kvm", format!("not used: {translated}")),
        (_, Accel::Auto, Handler::MicrovmQemu) => Finding::fine("kvm", format!("{detail}: {translated}")),
        (_, Accel::Tcg, _) => lacking(
            "kvm",
            "this one needs KVM, and the daemon is told not to use it".to_owned(),
            Some("garth serve --accel auto"),
        ),
        _ => lacking("kvm", detail, fix),
    }
}

fn explain(verdict: &Verdict) -> (String, Option<&'static str>) {
    const OTHER: &str = "use a machine whose processor virtualizes; in a cloud, one with nested virtualization";
    let (detail, fix) = match verdict {
        Verdict::KvmOk => return ("guests run at the processor's speed".to_owned(), None),
        Verdict::KvmEmulated { mips } => (
            format!(
                "/dev/kvm is there, but emulates every instruction ({mips} million a second, thousandfold too slow)"
            ),
            OTHER,
        ),
        Verdict::KvmBroken(why) => (format!("/dev/kvm is there and runs no guest: {why}"), OTHER),
        Verdict::NoKvm => (
            "there is no /dev/kvm".to_owned(),
            "turn virtualization on in the firmware and modprobe kvm_intel or kvm_amd; in a cloud, use a machine with \
             nested virtualization",
        ),
        Verdict::NoPermission => {
            ("the daemon may not open /dev/kvm".to_owned(), "run the daemon as root, with /dev/kvm in its container")
        }
    };
    (detail, Some(fix))
}

/// What is not made yet or is damaged, the next start makes.
fn guest(here: &Here<'_>) -> Finding {
    match Artifacts::find(&here.guests.cache_dir, here.agent) {
        Ok(Some(found)) => Finding::fine("guest", format!("Linux {}", found.manifest().release)),
        Ok(None) => Finding::fine("guest", format!("not made yet: `{SETUP}` or the first start fetches a kernel")),
        Err(error) => Finding::fine("guest", format!("{error}: the next start makes it again")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_kvm_only_qemu_works_and_says_so_and_every_fault_has_a_remedy() {
        let broken = Verdict::KvmBroken("KVM_RUN: EIO".to_owned());
        for verdict in [Verdict::KvmEmulated { mips: 1.4 }, broken, Verdict::NoKvm, Verdict::NoPermission] {
            let qemu = kvm(Handler::MicrovmQemu, &verdict, Accel::Auto);
            assert!(qemu.ok && qemu.detail.contains("TCG"), "{qemu:?}");
            for (handler, accel) in [(Handler::MicrovmQemu, Accel::Kvm), (Handler::MicrovmFirecracker, Accel::Auto)] {
                let finding = kvm(handler, &verdict, accel);
                assert!(!finding.ok && finding.fix.is_some(), "{finding:?}");
            }
        }
        assert!(kvm(Handler::MicrovmFirecracker, &Verdict::KvmOk, Accel::Auto).ok);
        assert!(!kvm(Handler::MicrovmFirecracker, &Verdict::KvmOk, Accel::Tcg).ok);
    }
}
