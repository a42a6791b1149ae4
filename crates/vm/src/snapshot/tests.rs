use std::os::unix::fs::PermissionsExt as _;

use garth_spec::ByteSize;

use super::*;
use crate::machine::DriveAccess;
use crate::mock::machine;
use crate::socket::Directory;

const VMM: &str = "Firecracker v1.16.1";

/// Saved, with a file `memory`.
fn saved() -> (tempfile::TempDir, Snapshot) {
    let directory = tempfile::tempdir().expect("directory");
    let saved = Saved::begin(directory.path(), VMM, &machine()).expect("an empty directory");
    fs::write(directory.path().join("memory"), "all of it").expect("memory");
    let snapshot = saved.record().expect("recorded");
    (directory, snapshot)
}

#[track_caller]
fn fault(result: Result<impl std::fmt::Debug, Error>) -> SnapshotFault {
    match result.expect_err("a fault").into_kind() {
        ErrorKind::Snapshot(fault) => fault,
        other => panic!("{other}"),
    }
}

#[test]
fn what_was_saved_is_loaded_into_the_same_machine_with_other_files() {
    let (directory, recorded) = saved();
    recorded.check(VMM, &machine()).expect("just written");
    let mut other = machine();
    other.drives[0].file = "/pool/b".into();
    Snapshot::open(directory.path()).expect("whole").check(VMM, &other).expect("the same machine");
}

#[test]
fn another_machine_is_refused() {
    let (_directory, snapshot) = saved();
    let changes: [fn(&mut Machine); 5] = [
        |machine| machine.vcpus = 3,
        |machine| machine.memory = ByteSize::mib(512),
        |machine| machine.drives[0].serial = "other".to_owned(),
        |machine| machine.drives[0].access = DriveAccess::ReadOnly,
        |machine| machine.kernel = "/etc/passwd".into(),
    ];
    for change in changes {
        let mut other = machine();
        change(&mut other);
        assert_eq!(fault(snapshot.check(VMM, &other)), SnapshotFault::OtherMachine, "{other:?}");
    }
}

#[test]
fn another_version_is_refused_by_name() {
    let (_directory, snapshot) = saved();
    let fault = fault(snapshot.check("Firecracker v1.17.0", &machine()));
    assert_eq!(fault.to_string(), "it was written by Firecracker v1.16.1, and Firecracker v1.17.0 is here");
}

#[test]
fn what_garth_did_not_write_is_foreign() {
    let directory = tempfile::tempdir().expect("directory");
    assert_eq!(fault(Snapshot::open(directory.path())), SnapshotFault::Foreign);
    fs::write(directory.path().join(MANIFEST), "{\"name\": \"app\"}").expect("manifest");
    assert_eq!(fault(Snapshot::open(directory.path())), SnapshotFault::Foreign);
    fs::write(directory.path().join(MANIFEST), "{\"format\": 99}").expect("manifest");
    assert_eq!(fault(Snapshot::open(directory.path())), SnapshotFault::OtherFormat(99));
}

#[test]
fn damage_is_found_before_a_program_sees_it() {
    let damages: [fn(&Path); 6] = [
        |memory| fs::write(memory, "all of").expect("cut"),
        |memory| fs::write(memory, "all of us").expect("change"),
        |memory| fs::remove_file(memory).expect("remove"),
        |memory| {
            fs::rename(memory, memory.with_extension("real")).expect("move");
            std::os::unix::fs::symlink(memory.with_extension("real"), memory).expect("link");
        },
        |memory| {
            fs::remove_file(memory).expect("remove");
            rustix::fs::mknodat(rustix::fs::CWD, memory, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
                .expect("pipe");
        },
        |memory| fs::write(memory.with_file_name(MANIFEST), "{\"format\": 1, \"vmm\"").expect("cut"),
    ];
    for (number, damage) in damages.into_iter().enumerate() {
        let (directory, _) = saved();
        damage(&directory.path().join("memory"));
        assert_eq!(fault(Snapshot::open(directory.path())), SnapshotFault::Damaged, "damage {number}");
    }
}

#[test]
fn a_file_that_changes_between_two_loads_is_noticed() {
    let (directory, _) = saved();
    let snapshot = Snapshot::open(directory.path()).expect("whole");
    snapshot.check(VMM, &machine()).expect("the first load");
    fs::write(directory.path().join("memory"), "all of us").expect("change");
    assert_eq!(fault(snapshot.check(VMM, &machine())), SnapshotFault::Damaged);
}

#[test]
fn what_is_not_recorded_goes_and_what_was_there_before_stays() {
    let (directory, _) = saved();
    Saved::begin(directory.path(), VMM, &machine()).expect_err("a snapshot is there");
    Snapshot::open(directory.path()).expect("it stays");
    let other = tempfile::tempdir().expect("directory");
    let saved = Saved::begin(other.path(), VMM, &machine()).expect("an empty directory");
    fs::write(other.path().join("memory"), "half").expect("memory");
    drop(saved);
    assert_eq!(fs::read_dir(other.path()).expect("list").count(), 0);
}

#[test]
fn a_program_cannot_have_a_file_of_the_hosts_taken() {
    let (own, into) = (tempfile::tempdir().expect("own"), tempfile::tempdir().expect("into"));
    let at = |name: &str| own.path().join(name);
    let secret = into.path().join("secret");
    fs::write(&secret, "secret").expect("secret");
    std::os::unix::fs::symlink(&secret, at("link")).expect("link");
    fs::hard_link(&secret, at("second")).expect("second name");
    fs::create_dir(at("directory")).expect("directory");
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .expect("pipe");
    let directory = Directory::open(own.path()).expect("open");
    for name in ["link", "second", "directory", "pipe", "absent"] {
        let error = take(&directory, name, into.path()).expect_err(name);
        assert!(matches!(error.kind(), ErrorKind::Nonsense { .. }), "{name}: {error}");
        assert!(!into.path().join(name).exists(), "{name}");
    }
    fs::write(at("memory"), "memory").expect("memory");
    take(&directory, "memory", into.path()).expect("a file");
    let mode = fs::metadata(into.path().join("memory")).expect("there").permissions().mode();
    assert_eq!((mode & 0o777, at("memory").exists()), (0o444, false));
}
