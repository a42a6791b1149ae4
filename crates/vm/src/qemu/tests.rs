use super::*;
use crate::mock;

fn machine(accelerator: Accelerator) -> Machine {
    Machine { accelerator, ..mock::machine() }
}

#[test]
fn a_restored_machine_differs_from_a_booted_one_in_what_it_waits_for_alone() {
    let machine = machine(Accelerator::Tcg);
    let mut booted = arguments(&machine, Begin::Boot);
    let directory = tempfile::tempdir().expect("directory");
    let snapshot = mock::snapshot(directory.path(), &[]);
    let restored = arguments(&machine, Begin::Restore(&snapshot));
    let at = booted.iter().position(|word| word == "-sandbox").expect("a sandbox");
    booted.splice(at..at, ["-incoming".to_owned(), "defer".to_owned()]);
    assert_eq!(booted, restored);
}

#[test]
fn paths_of_the_host_are_shown_and_never_named() {
    let machine = machine(Accelerator::Kvm);
    let words = arguments(&machine, Begin::Boot);
    assert!(!words.iter().any(|word| word.contains("/pool/") || word.contains("/dev/null")), "{words:?}");
    let qemu = Qemu(Program::at("/bin/true".into()).expect("a program with a version"));
    let launch = qemu.launch(&machine, Begin::Boot);
    let access = |at: &str| launch.shown.iter().find(|shown| shown.at == Path::new(at)).map(|shown| shown.access);
    assert_eq!(access("/disks/root"), Some(Access::Write));
    assert_eq!(access("/disks/usr"), Some(Access::Read));
    assert_eq!(access("/dev/kvm"), Some(Access::Device));
    assert_eq!(launch.descriptors.len(), 4);
}

#[test]
fn a_translated_machine_is_told_its_clock_and_gets_no_device_of_the_host() {
    let machine = machine(Accelerator::Tcg);
    assert!(machine.command_line().contains("tsc_early_khz="));
    assert!(!arguments(&machine, Begin::Boot).iter().any(|word| word.contains("kvm")));
}
