use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use garth_vm::guest::{Artifacts, ErrorKind, KernelSource, Source, Step};

use crate::world::{AGENT, data_dir, distribution, make, package};

/// An ELF header and a banner: all that tells a kernel.
fn kernel(directory: &Path, release: &str) -> PathBuf {
    let mut bytes = vec![0; 64];
    bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    (bytes[16], bytes[18], bytes[20], bytes[52]) = (2, 62, 1, 64);
    bytes.extend_from_slice(format!("Linux version {release} (someone)\0").as_bytes());
    let path = directory.join("vmlinux");
    fs::write(&path, bytes).expect("kernel");
    path
}

fn of_file(data_dir: &Path, kernel: PathBuf) -> Artifacts {
    make(data_dir, KernelSource::File { kernel, modules: None }, &mut Vec::new()).expect("files")
}

#[test]
fn what_was_made_is_found_by_the_agent_it_was_made_for() {
    let dir = tempfile::tempdir().expect("directory");
    assert_eq!(Artifacts::find(dir.path(), AGENT).expect("nothing"), None);
    let made = of_file(dir.path(), kernel(dir.path(), "6.1-mine"));
    assert_eq!(made.manifest().release, "6.1-mine");
    assert!(matches!(&made.manifest().source, Source::File(path, _) if path.ends_with("vmlinux")));
    assert_eq!(Artifacts::find(dir.path(), AGENT).expect("files"), Some(made.clone()));
    assert_eq!(Artifacts::find(dir.path(), b"another").expect("nothing"), None);
    made.verify().expect("as made");
}

#[test]
fn another_kernel_takes_its_place_and_the_old_files_stay() {
    let dir = tempfile::tempdir().expect("directory");
    let old = of_file(dir.path(), kernel(dir.path(), "6.1"));
    let new = of_file(dir.path(), kernel(dir.path(), "6.2"));
    assert_ne!(old.key(), new.key());
    assert_eq!(Artifacts::find(dir.path(), AGENT).expect("files"), Some(new));
    old.verify().expect("as made");
}

#[test]
fn a_changed_file_is_noticed_and_made_again() {
    let dir = tempfile::tempdir().expect("directory");
    let made = of_file(dir.path(), kernel(dir.path(), "6.1"));
    fs::write(made.initrd(), "other").expect("write");
    let error = Artifacts::find(dir.path(), AGENT).expect_err("changed");
    assert_eq!(*error.kind(), ErrorKind::Changed(made.initrd()));
    assert_eq!(error.hint(), Some("garth setup microvm"));
    let again = of_file(dir.path(), kernel(dir.path(), "6.1"));
    assert_eq!(again.key(), made.key());
    again.verify().expect("as made");
}

#[test]
fn a_change_that_keeps_size_and_time_is_found_by_reading_all() {
    let dir = tempfile::tempdir().expect("directory");
    let made = of_file(dir.path(), kernel(dir.path(), "6.1"));
    let before = fs::metadata(made.vmlinux()).expect("metadata");
    let mut bytes = fs::read(made.vmlinux()).expect("kernel");
    *bytes.last_mut().expect("a byte") ^= 1;
    fs::write(made.vmlinux(), bytes).expect("write");
    let file = fs::File::options().write(true).open(made.vmlinux()).expect("open");
    file.set_modified(before.modified().expect("time")).expect("time");
    assert_eq!(before.mtime_nsec(), fs::metadata(made.vmlinux()).expect("metadata").mtime_nsec());
    let found = Artifacts::find(dir.path(), AGENT).expect("looks the same").expect("files");
    assert_eq!(*found.verify().expect_err("changed").kind(), ErrorKind::Changed(made.vmlinux()));
}

#[test]
fn a_setup_that_fails_leaves_what_was_there_and_nothing_else() {
    let dir = tempfile::tempdir().expect("directory");
    let made = of_file(dir.path(), kernel(dir.path(), "6.1"));
    // What a killed daemon would leave.
    fs::create_dir(dir.path().join("guest/draft")).expect("draft");
    fs::write(dir.path().join("guest/draft/vmlinux"), "half").expect("half");
    let wrong = KernelSource::File { kernel: "/etc/passwd".into(), modules: None };
    let error = make(dir.path(), wrong, &mut Vec::new()).expect_err("no kernel");
    assert!(matches!(error.kind(), ErrorKind::NotAKernel { .. }), "{error}");
    assert_eq!(Artifacts::find(dir.path(), AGENT).expect("files"), Some(made.clone()));
    let entries = fs::read_dir(dir.path().join("guest")).expect("list").flatten();
    let names: BTreeSet<String> = entries.map(|entry| entry.file_name().into_string().expect("text")).collect();
    let expected = BTreeSet::from([made.key(), "current".into(), "packages".into()]);
    assert_eq!(names, expected);
}

#[test]
fn a_second_setup_downloads_and_builds_nothing() {
    let Some(first) = distribution("a_second_setup_downloads_and_builds_nothing") else { return };
    let mut said = Vec::new();
    let second = make(&data_dir(), KernelSource::Distribution, &mut said).expect("files");
    assert_eq!(&second, first);
    let steps: Vec<Step> = said.iter().map(|progress| progress.step).collect();
    assert_eq!(steps, [Step::Find]);
}

#[test]
fn modules_of_another_kernel_are_refused() {
    let Some(made) = distribution("modules_of_another_kernel_are_refused") else { return };
    let (dir, modules) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
    let unpacked = std::process::Command::new("dpkg-deb").arg("-x").arg(package()).arg(modules.path()).status();
    assert!(unpacked.expect("dpkg-deb").success());
    let take = |kernel: PathBuf| {
        let modules = Some(modules.path().to_owned());
        make(dir.path(), KernelSource::File { kernel, modules }, &mut Vec::new())
    };
    let error = take(kernel(dir.path(), "6.1-other")).expect_err("another release");
    assert!(matches!(error.kind(), ErrorKind::OtherModules { kernel, .. } if kernel == "6.1-other"), "{error}");
    let mine = take(made.vmlinux()).expect("the same kernel, given by hand");
    assert_eq!(mine.key(), made.key());
}
