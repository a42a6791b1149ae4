use std::path::Path;
use std::process::Command;

use garth_kernel::kvm::Verdict;

fn probe() -> Verdict {
    let output = Command::new(env!("CARGO_BIN_EXE_garth-agent")).arg("kvm-probe").output().expect("the probe runs");
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).expect("one line of JSON")
}

#[test]
fn a_machine_without_the_device_has_no_kvm() {
    if Path::new("/dev/kvm").exists() {
        println!("SKIP a_machine_without_the_device_has_no_kvm: a machine without /dev/kvm");
        return;
    }
    assert_eq!(probe(), Verdict::NoKvm);
}

/// `kvm_pvm` opens, makes machines and runs them, all without an error, and emulates each instruction.
#[test]
fn a_device_that_emulates_every_instruction_is_not_taken_for_kvm() {
    if !Path::new("/sys/module/kvm_pvm").exists() || !Path::new("/dev/kvm").exists() {
        println!("SKIP a_device_that_emulates_every_instruction_is_not_taken_for_kvm: a KVM that emulates (kvm_pvm)");
        return;
    }
    let verdict = probe();
    let is_unusable = matches!(verdict, Verdict::KvmEmulated { .. } | Verdict::KvmBroken(_) | Verdict::NoPermission);
    assert!(is_unusable, "{verdict:?}");
}
