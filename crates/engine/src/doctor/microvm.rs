//! What microVMs need from this machine.

use std::path::Path;

use garth_vm::guest::Artifacts;
use garth_vm::host::{self, Verdict};

use super::Finding;

const SETUP: &str = "garth setup microvm";

/// Tries KVM, and looks at what is installed and made; without a data directory, not at the latter.
pub(super) fn findings(agent: &[u8], data_dir: Option<&Path>) -> Vec<Finding> {
    let guest = data_dir.map(|data_dir| guest(data_dir, agent));
    [handler(), kvm(&host::kvm(agent)), qemu()].into_iter().chain(guest).collect()
}

/// What carries a microVM out.
pub(super) fn handler() -> Finding {
    let detail = "this version of garth has no microvm handler (qemu, firecracker, cloud-hypervisor)";
    lacking("handler", detail.to_owned(), None)
}

fn lacking(name: &str, detail: String, fix: Option<&str>) -> Finding {
    Finding { name: name.to_owned(), ok: false, detail, fix: fix.map(str::to_owned) }
}

fn kvm(verdict: &Verdict) -> Finding {
    const OTHER: &str = "use a machine whose processor virtualizes; in a cloud, one with nested virtualization";
    let (detail, fix) = match verdict {
        Verdict::KvmOk => return Finding::fine("kvm", "guests run at the processor's speed"),
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
    lacking("kvm", detail, Some(fix))
}

fn qemu() -> Finding {
    match host::qemu() {
        Some(qemu) => Finding::fine("qemu", format!("{} ({})", qemu.version, qemu.path.display())),
        None => lacking("qemu", "not installed".to_owned(), Some("apt-get install qemu-system-x86")),
    }
}

fn guest(data_dir: &Path, agent: &[u8]) -> Finding {
    match Artifacts::find(data_dir, agent) {
        Ok(Some(found)) => Finding::fine("guest", format!("Linux {}", found.manifest().release)),
        Ok(None) => lacking("guest", "there is no kernel for guests of this version".to_owned(), Some(SETUP)),
        Err(error) => lacking("guest", error.to_string(), Some(error.hint().unwrap_or(SETUP))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kvm_that_runs_guests_is_fine_and_all_else_has_a_remedy() {
        assert!(kvm(&Verdict::KvmOk).ok);
        let broken = Verdict::KvmBroken("KVM_RUN: EIO".to_owned());
        for verdict in [Verdict::KvmEmulated { mips: 1.4 }, broken, Verdict::NoKvm, Verdict::NoPermission] {
            let finding = kvm(&verdict);
            assert!(!finding.ok && finding.fix.is_some(), "{finding:?}");
        }
    }

    #[test]
    fn a_directory_without_a_guest_says_how_to_make_one() {
        let dir = tempfile::tempdir().expect("dir");
        assert_eq!(guest(dir.path(), b"agent").fix.as_deref(), Some(SETUP));
    }
}
