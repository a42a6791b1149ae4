use super::*;
use crate::mock;

fn machine(accelerator: Accelerator) -> Machine {
    Machine { accelerator, ..mock::machine() }
}

#[test]
fn a_restored_machine_differs_from_a_booted_one_in_what_it_waits_for_alone() {
    let machine = machine(Accelerator::Tcg);
    let mut booted = arguments(&machine, Begin::Boot, 4);
    let directory = tempfile::tempdir().expect("directory");
    let snapshot = mock::snapshot(directory.path(), &[]);
    let restored = arguments(&machine, Begin::Restore(&snapshot), 4);
    let at = booted.iter().position(|word| word == "-sandbox").expect("a sandbox");
    booted.splice(at..at, ["-incoming".to_owned(), "defer".to_owned()]);
    assert_eq!(booted, restored);
}

#[test]
fn paths_of_the_host_are_shown_and_never_named() {
    let machine = machine(Accelerator::Kvm);
    let words = arguments(&machine, Begin::Boot, 4);
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
    assert!(!arguments(&machine, Begin::Boot, 4).iter().any(|word| word.contains("kvm")));
}

#[test]
fn a_share_has_a_socket_of_its_own_and_memory_that_is_shared() {
    let machine = Machine { shares: vec!["volume0".to_owned(), "volume1".to_owned()], ..mock::machine() };
    let words = arguments(&machine, Begin::Boot, 4);
    assert!(words.contains(&"socket,id=volume1,fd=%fd5%".to_owned()), "{words:?}");
    assert!(words.contains(&"vhost-user-fs-device,chardev=volume1,tag=volume1".to_owned()), "{words:?}");
    assert!(words.contains(&"memory-backend-memfd,id=memory,size=256M,share=on".to_owned()), "{words:?}");
    let alone = arguments(&Machine { shares: Vec::new(), ..machine }, Begin::Boot, 4);
    assert!(!alone.iter().any(|word| word.contains("memory-backend")), "{alone:?}");
}
