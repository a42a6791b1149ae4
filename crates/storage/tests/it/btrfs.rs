//! What only the btrfs driver promises: hard limits, and a pool that grows and shrinks.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use garth_kernel::btrfs as kernel;
use garth_spec::{ByteSize, ImageId};
use garth_storage::{Disk, DriverChoice, ErrorKind, PoolOptions, Root};

use crate::support::{Fixture, IMAGE, LIMIT, names, project, wait_for};

pub fn options() -> PoolOptions {
    PoolOptions { driver: DriverChoice::Btrfs, reserve: Some(ByteSize::mib(64)), headroom: Some(ByteSize::mib(512)) }
}

fn root(disk: &Disk) -> PathBuf {
    match &disk.root().root {
        Root::Directory(path) => path.clone(),
        other => panic!("{other:?}"),
    }
}

/// Writes until the filesystem says no, or `most` bytes; how many were taken.
fn fill(path: &Path, most: u64) -> u64 {
    let mut file = File::create(path).unwrap();
    let block = vec![0x5a; 1 << 20];
    let mut written = 0;
    while written < most {
        match file.write(&block) {
            Ok(count) => written += count as u64,
            Err(_) => break,
        }
    }
    let _ = file.sync_all();
    written
}

fn on_host(fixture: &Fixture) -> u64 {
    fs::metadata(fixture.dir.path().join("pool.img")).unwrap().blocks() * 512
}

macro_rules! fixture_or_skip {
    ($test:literal) => {
        match Fixture::with_image(&options()) {
            Ok(fixture) => fixture,
            Err(error) => {
                println!("SKIP {}: {error}", $test);
                return;
            }
        }
    };
}

#[test]
fn a_writer_stops_at_the_limit_and_can_delete_again() {
    let f = fixture_or_skip!("a_writer_stops_at_the_limit_and_can_delete_again");
    let disk = f.pool.create_disk(project(1), IMAGE, LIMIT).unwrap();
    let big = root(&disk).join("big");
    let written = fill(&big, 300 << 20);
    assert!(written <= LIMIT.bytes() && written > LIMIT.bytes() * 9 / 10, "{written}");
    assert!(fs::write(disk.state_dir().join("log"), vec![1; 1 << 20]).is_err(), "the state directory counts too");
    assert!(on_host(&f) < 150 << 20, "the host's file grew beyond the limit: {}", on_host(&f));
    fs::remove_file(&big).unwrap();
    wait_for("space after the deletion", || {
        kernel::sync(File::open(disk.state_dir()).unwrap().as_fd()).unwrap();
        disk.usage().unwrap().used < 1 << 20
    });
    fs::write(&big, "again").unwrap();
}

#[test]
fn a_full_disk_leaves_its_neighbour_room() {
    let f = fixture_or_skip!("a_full_disk_leaves_its_neighbour_room");
    let one = f.pool.create_disk(project(1), IMAGE, LIMIT).unwrap();
    let two = f.pool.create_disk(project(2), IMAGE, LIMIT).unwrap();
    fill(&root(&one).join("big"), 300 << 20);
    assert_eq!(fill(&root(&two).join("big"), 32 << 20), 32 << 20);
}

#[test]
fn small_files_count_against_the_limit() {
    let f = fixture_or_skip!("small_files_count_against_the_limit");
    let disk = f.pool.create_disk(project(1), IMAGE, ByteSize::mib(16)).unwrap();
    let made = (0..200_000).take_while(|n| fs::write(root(&disk).join(n.to_string()), [7; 900]).is_ok()).count();
    assert!(made < 200_000, "files without end");
    assert!(disk.usage().unwrap().used <= 16 << 20);
}

#[test]
fn subvolumes_made_in_a_sandbox_do_not_escape_the_limit_and_go_with_the_disk() {
    let f = fixture_or_skip!("subvolumes_made_in_a_sandbox_do_not_escape_the_limit_and_go_with_the_disk");
    let disk = f.pool.create_disk(project(1), IMAGE, LIMIT).unwrap();
    let mut at: std::os::fd::OwnedFd = File::open(root(&disk)).unwrap().into();
    // Deeper than a path can be long, with a subvolume on every hundredth level.
    let name = "d".repeat(200);
    for level in 0..400 {
        if level % 100 == 99 {
            kernel::create_subvolume(at.as_fd(), OsStr::new(&name)).unwrap();
        } else {
            rustix::fs::mkdirat(&at, name.as_str(), rustix::fs::Mode::RWXU).unwrap();
        }
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        at = rustix::fs::openat(&at, name.as_str(), flags, rustix::fs::Mode::empty()).unwrap();
    }
    let inner = PathBuf::from(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&at)));
    let written = fill(&inner.join("big"), 300 << 20);
    assert!(written <= LIMIT.bytes(), "{written} bytes in a nested subvolume");
    drop(at);
    f.pool.remove_disk(project(1)).unwrap();
    assert!(names(&f.dir.path().join("pool/drafts")).is_empty());
    assert!(names(&f.dir.path().join("pool/disks")).is_empty());
}

#[test]
fn a_larger_limit_gives_room_at_once() {
    let f = fixture_or_skip!("a_larger_limit_gives_room_at_once");
    let disk = f.pool.create_disk(project(1), IMAGE, ByteSize::mib(16)).unwrap();
    assert!(fill(&root(&disk).join("a"), 32 << 20) < 16 << 20);
    disk.set_limit(ByteSize::mib(64)).unwrap();
    assert_eq!(fill(&root(&disk).join("b"), 32 << 20), 32 << 20);
    assert_eq!(disk.usage().unwrap().limit, Some(ByteSize::mib(64)));
}

#[test]
fn an_image_cannot_be_changed_once_it_is_visible() {
    let f = fixture_or_skip!("an_image_cannot_be_changed_once_it_is_visible");
    let image = f.pool.image(IMAGE).unwrap().unwrap();
    assert!(fs::write(image.rootfs().join("etc/os"), "other").is_err());
    let disk = f.pool.create_disk(project(1), IMAGE, LIMIT).unwrap();
    fs::write(root(&disk).join("etc/os"), "other").unwrap();
    assert_eq!(fs::read_to_string(image.rootfs().join("etc/os")).unwrap(), "garth");
    f.pool.remove_image(IMAGE).unwrap();
    assert_eq!(fs::read_to_string(root(&disk).join("etc/os")).unwrap(), "other");
}

#[test]
fn the_pool_grows_on_demand() {
    let f = fixture_or_skip!("the_pool_grows_on_demand");
    let disk = f.pool.create_disk(project(1), IMAGE, ByteSize::mib(2048)).unwrap();
    let before = f.pool.usage().unwrap().size;
    assert_eq!(before, 512 << 20);
    assert_eq!(fill(&root(&disk).join("a"), 380 << 20), 380 << 20);
    let maintained = f.pool.maintain().unwrap();
    assert!(maintained.grown >= 256 << 20, "{maintained:?}");
    assert_eq!(fill(&root(&disk).join("b"), 400 << 20), 400 << 20);
}

#[test]
fn deleted_files_give_their_space_back_to_the_host() {
    let f = fixture_or_skip!("deleted_files_give_their_space_back_to_the_host");
    let disk = f.pool.create_disk(project(1), IMAGE, ByteSize::mib(2048)).unwrap();
    fill(&root(&disk).join("a"), 380 << 20);
    let before = on_host(&f);
    assert!(before > 380 << 20);
    f.pool.remove_disk(project(1)).unwrap();
    let dir = File::open(f.dir.path().join("pool")).unwrap();
    wait_for("the file to shrink", || {
        kernel::sync(dir.as_fd()).unwrap();
        f.pool.maintain().unwrap();
        on_host(&f) < before / 2
    });
    drop(dir);
}

#[test]
fn cycles_leave_no_quota_groups() {
    let f = fixture_or_skip!("cycles_leave_no_quota_groups");
    let dir = File::open(f.dir.path().join("pool")).unwrap();
    let fs_id = kernel::fs_id(dir.as_fd()).unwrap();
    f.pool.sweep().unwrap();
    let before = kernel::qgroups(fs_id).unwrap().len();
    for n in 0..50 {
        let disk = if n % 2 == 0 {
            f.pool.create_disk(project(n), IMAGE, LIMIT).unwrap()
        } else {
            f.pool.create_scratch_disk(project(n), IMAGE, LIMIT).unwrap()
        };
        assert_eq!(disk.usage().unwrap().limit, Some(LIMIT));
        fs::write(root(&disk).join("file"), vec![1; 100_000]).unwrap();
        f.pool.remove_disk(project(n)).unwrap();
    }
    wait_for("the groups to go", || {
        kernel::sync(dir.as_fd()).unwrap();
        f.pool.sweep().unwrap();
        f.pool.maintain().unwrap();
        kernel::qgroups(fs_id).unwrap().len() == before
    });
    drop(dir);
}

#[test]
fn disks_of_several_images_made_at_once_are_each_their_own() {
    let f = fixture_or_skip!("disks_of_several_images_made_at_once_are_each_their_own");
    let other = ImageId::from_bits(6);
    let draft = f.pool.new_image(other).unwrap();
    fs::write(draft.path().join("other"), "x").unwrap();
    draft.commit(garth_storage::ImageMeta::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let pool = &f.pool;
            scope.spawn(move || {
                for n in 0..10 {
                    let image = if (thread + n) % 3 == 0 { other } else { IMAGE };
                    let disk = pool.create_scratch_disk(project(thread * 100 + n), image, LIMIT).unwrap();
                    assert_eq!(root(&disk).join("other").exists(), image == other);
                    assert_eq!(disk.image(), image);
                    assert_eq!(disk.usage().unwrap().limit, Some(LIMIT));
                }
            });
        }
    });
    assert_eq!(f.pool.disks().unwrap().len(), 80);
    f.pool.remove_image(other).unwrap();
    f.pool.create_disk(project(9999), IMAGE, LIMIT).unwrap();
}

#[test]
fn making_a_disk_does_not_depend_on_the_image_s_size() {
    let f = fixture_or_skip!("making_a_disk_does_not_depend_on_the_image_s_size");
    let id = ImageId::from_bits(5);
    let draft = f.pool.new_image(id).unwrap();
    fill(&draft.path().join("big"), 200 << 20);
    draft.commit(garth_storage::ImageMeta::default()).unwrap();
    let disk = f.pool.create_disk(project(1), id, ByteSize::mib(16)).unwrap();
    assert_eq!(fs::metadata(root(&disk).join("big")).unwrap().len(), 200 << 20);
    assert!(disk.usage().unwrap().used < 1 << 20, "the image's files count for nobody");
}

#[test]
fn closing_leaves_no_mount_and_no_loop_device() {
    let f = fixture_or_skip!("closing_leaves_no_mount_and_no_loop_device");
    let file = File::open(f.dir.path().join("pool.img")).unwrap();
    assert!(garth_kernel::loopdev::LoopDevice::find(file.as_fd()).unwrap().is_some());
    let held = File::open(f.dir.path().join("pool/disks")).unwrap();
    assert_eq!(*f.pool.close().unwrap_err().kind(), ErrorKind::Busy);
    drop(held);
    f.pool.close().unwrap();
    f.pool.close().unwrap();
    wait_for("the loop device to let go", || garth_kernel::loopdev::LoopDevice::find(file.as_fd()).unwrap().is_none());
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(f.dir.path().to_str().unwrap()));
}

#[test]
fn the_loop_device_bypasses_the_page_cache() {
    let f = fixture_or_skip!("the_loop_device_bypasses_the_page_cache");
    let file = File::open(f.dir.path().join("pool.img")).unwrap();
    let device = garth_kernel::loopdev::LoopDevice::find(file.as_fd()).unwrap().unwrap();
    assert!(device.has_direct_io().unwrap());
}
