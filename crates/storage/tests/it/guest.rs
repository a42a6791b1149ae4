//! Disks that a kernel of their own mounts.

use std::fs;
use std::path::Path;
use std::process::Command;

use garth_spec::ByteSize;
use garth_storage::{ErrorKind, GuestContents, GuestDraft, Root};

use crate::btrfs::options;
use crate::support::{Fixture, IMAGE, LIMIT, names, project};

/// What debugfs(8), which mounts nothing, says of a path in an ext4 file.
fn debugfs(file: &Path, request: &str) -> String {
    let output = Command::new("debugfs").args(["-R", request]).arg(file).output().expect("debugfs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn fixture(test: &str) -> Option<Fixture> {
    match Fixture::with_image(&options()) {
        Ok(fixture) => Some(fixture),
        Err(error) => {
            println!("SKIP {test}: {error}");
            None
        }
    }
}

#[test]
fn a_guest_disk_holds_what_the_tree_holds_and_costs_what_is_in_it() {
    let Some(fixture) = fixture("a_guest_disk_holds_what_the_tree_holds_and_costs_what_is_in_it") else { return };
    let pool = &fixture.pool;
    let disk = pool.create_disk(project(2), IMAGE, LIMIT).expect("disk");
    let Root::Directory(root) = &disk.root().root else { panic!("{:?}", disk.root()) };
    fs::write(root.join("etc/mine"), "written").expect("file");
    std::os::unix::fs::chown(root.join("etc/mine"), Some(1000), Some(1001)).expect("owner");
    assert!(pool.guest_disk(project(2)).is_none());
    let guest =
        pool.draft_guest_disk(&disk, LIMIT, GuestContents::Tree).and_then(GuestDraft::publish).expect("guest disk");
    assert_eq!(debugfs(&guest.file(), "cat /rootfs/etc/mine"), "written");
    assert!(debugfs(&guest.file(), "stat /rootfs/etc/mine").contains("User:  1000   Group:  1001"));
    assert!(debugfs(&guest.file(), "ls /").contains("state"));
    let usage = guest.usage().expect("usage");
    assert!(usage.limit == Some(LIMIT) && usage.used < LIMIT.bytes() / 2, "{usage:?}");
    assert_eq!(pool.guest_disk(project(2)), Some(guest));
    assert_eq!(pool.guest_disks().expect("list"), [project(2)]);
    pool.remove_guest_disk(project(2)).expect("remove");
    pool.remove_guest_disk(project(2)).expect("remove again");
    assert!(pool.guest_disk(project(2)).is_none());
    assert!(names(&fixture.dir.path().join("pool/drafts")).is_empty());
}

#[test]
fn an_empty_guest_disk_has_the_directories_alone_and_takes_an_older_ones_place() {
    let Some(fixture) = fixture("an_empty_guest_disk_has_the_directories_alone") else { return };
    let pool = &fixture.pool;
    let disk = pool.create_disk(project(4), IMAGE, LIMIT).expect("disk");
    pool.draft_guest_disk(&disk, LIMIT, GuestContents::Tree).and_then(GuestDraft::publish).expect("guest disk");
    let guest =
        pool.draft_guest_disk(&disk, LIMIT, GuestContents::Nothing).and_then(GuestDraft::publish).expect("guest disk");
    assert!(!debugfs(&guest.file(), "ls /rootfs").contains("etc"));
    assert!(debugfs(&guest.file(), "ls /usr").contains("upper"));
}

#[test]
fn a_guest_disk_grows_and_never_shrinks() {
    let Some(fixture) = fixture("a_guest_disk_grows_and_never_shrinks") else { return };
    let disk = fixture.pool.create_disk(project(6), IMAGE, LIMIT).expect("disk");
    let guest = fixture
        .pool
        .draft_guest_disk(&disk, LIMIT, GuestContents::Nothing)
        .and_then(GuestDraft::publish)
        .expect("guest disk");
    guest.grow(ByteSize::mib(128)).expect("grow");
    assert_eq!(guest.usage().expect("usage").limit, Some(ByteSize::mib(128)));
    let error = guest.grow(LIMIT).expect_err("shrunk");
    assert!(matches!(error.kind(), ErrorKind::LimitBelowUse { .. }), "{error}");
}

#[test]
fn more_than_fits_is_an_error_that_leaves_nothing() {
    let Some(fixture) = fixture("more_than_fits_is_an_error_that_leaves_nothing") else { return };
    let disk = fixture.pool.create_disk(project(8), IMAGE, LIMIT).expect("disk");
    let Root::Directory(root) = &disk.root().root else { panic!("{:?}", disk.root()) };
    fs::write(root.join("large"), vec![7; 40 << 20]).expect("file");
    let error = fixture.pool.draft_guest_disk(&disk, ByteSize::mib(32), GuestContents::Tree).expect_err("made");
    assert_eq!(*error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(fixture.pool.guest_disk(project(8)).is_none());
    assert!(names(&fixture.dir.path().join("pool/drafts")).is_empty());
}

#[test]
fn a_tree_is_emptied_in_one_step_and_keeps_its_limit() {
    let Some(fixture) = fixture("a_tree_is_emptied_in_one_step_and_keeps_its_limit") else { return };
    let disk = fixture.pool.create_disk(project(10), IMAGE, LIMIT).expect("disk");
    let empty = fixture.pool.empty_disk(&disk, LIMIT).expect("empty");
    let Root::Directory(root) = &empty.root().root else { panic!("{:?}", empty.root()) };
    assert!(names(root).is_empty());
    assert_eq!(empty.usage().expect("usage").limit, Some(LIMIT));
    assert_eq!(empty.image(), IMAGE);
    assert!(names(&fixture.dir.path().join("pool/drafts")).is_empty());
    fixture.pool.remove_disk(project(10)).expect("remove");
}
