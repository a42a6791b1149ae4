//! What a crash, a reboot, a full host and a damaged file leave, and what the next open makes of it.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use garth_kernel::loopdev::LoopDevice;
use garth_spec::{ByteSize, ImageId};
use garth_storage::{Driver, DriverChoice, ErrorKind, Pool, PoolOptions};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::btrfs::options;
use crate::support::{Fixture, IMAGE, LIMIT, make_image, names, project, wait_for};

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

fn loop_devices_of(path: &Path) -> usize {
    let attached = |entry: &fs::DirEntry| {
        fs::read_to_string(entry.path().join("loop/backing_file")).is_ok_and(|file| Path::new(file.trim()) == path)
    };
    fs::read_dir("/sys/block").unwrap().flatten().filter(attached).count()
}

#[test]
fn a_daemon_after_a_killed_one_finds_the_mount() {
    let f = fixture_or_skip!("a_daemon_after_a_killed_one_finds_the_mount");
    let disk = f.pool.create_disk(project(1), IMAGE, LIMIT).unwrap();
    fs::write(disk.state_dir().join("kept"), "x").unwrap();
    // Nothing of the first pool is closed: as after kill -9.
    let again = Pool::open(f.dir.path(), &options()).unwrap();
    assert!(again.disk(project(1)).unwrap().unwrap().state_dir().join("kept").exists());
    assert_eq!(loop_devices_of(&f.dir.path().join("pool.img")), 1);
    assert_eq!(again.images().unwrap().len(), 1);
}

#[test]
fn a_daemon_after_a_reboot_finds_every_file() {
    let f = fixture_or_skip!("a_daemon_after_a_reboot_finds_every_file");
    let disk = f.pool.create_disk(project(1), IMAGE, LIMIT).unwrap();
    let kept = disk.state_dir().join("kept");
    fs::write(&kept, "x").unwrap();
    File::open(&kept).unwrap().sync_all().unwrap();
    let file = File::open(f.dir.path().join("pool.img")).unwrap();
    unmount(f.dir.path().join("pool"), UnmountFlags::DETACH).unwrap();
    if let Some(device) = LoopDevice::find(file.as_fd()).unwrap() {
        device.detach().unwrap();
    }
    wait_for("the loop device to let go", || LoopDevice::find(file.as_fd()).unwrap().is_none());
    let again = Pool::open(f.dir.path(), &PoolOptions::default()).unwrap();
    assert_eq!(again.driver(), Driver::Btrfs);
    assert_eq!(fs::read_to_string(&kept).unwrap(), "x");
    let usage = again.disk(project(1)).unwrap().unwrap().usage().unwrap();
    assert_eq!(usage.limit, Some(LIMIT), "the limit holds after a reboot");
}

#[test]
fn a_device_that_lost_its_mount_is_used_again() {
    let f = fixture_or_skip!("a_device_that_lost_its_mount_is_used_again");
    f.pool.close().unwrap();
    let path = f.dir.path().join("pool.img");
    let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let device = LoopDevice::attach(file.as_fd()).unwrap();
    let again = Pool::open(f.dir.path(), &options()).unwrap();
    wait_for("the device of before to go", || loop_devices_of(&path) == 1);
    drop(device);
    assert!(again.image(IMAGE).unwrap().is_some());
}

#[test]
fn half_made_and_half_removed_disks_are_swept_with_their_groups() {
    let f = fixture_or_skip!("half_made_and_half_removed_disks_are_swept_with_their_groups");
    let pool = f.dir.path().join("pool");
    f.pool.create_disk(project(1), IMAGE, LIMIT).unwrap();
    f.pool.create_disk(project(2), IMAGE, LIMIT).unwrap();
    let dir = File::open(&pool).unwrap();
    let fs_id = garth_kernel::btrfs::fs_id(dir.as_fd()).unwrap();
    let ours = || garth_kernel::btrfs::qgroups(fs_id).unwrap().iter().filter(|group| group.level() > 0).count();
    // A removal that stopped after its first step, and a creation that stopped before its last.
    fs::rename(pool.join("disks").join(project(1).to_string()), pool.join("drafts/gone-disk-0000000000000001"))
        .unwrap();
    garth_kernel::btrfs::create_qgroup(dir.as_fd(), garth_kernel::btrfs::QgroupId::new(103, 77)).unwrap();
    std::mem::forget(f.pool.new_image(ImageId::from_bits(9)).unwrap());
    assert!(ours() >= 3);
    let again = Pool::open(f.dir.path(), &options()).unwrap();
    again.sweep().unwrap();
    wait_for("the groups to go", || {
        garth_kernel::btrfs::sync(dir.as_fd()).unwrap();
        again.sweep().unwrap();
        ours() == 1
    });
    assert!(names(&pool.join("drafts")).is_empty());
    assert_eq!(again.disks().unwrap(), [project(2)]);
    assert_eq!(again.disk(project(2)).unwrap().unwrap().usage().unwrap().limit, Some(LIMIT));
}

#[test]
fn a_growth_that_a_crash_cut_short_is_finished() {
    let f = fixture_or_skip!("a_growth_that_a_crash_cut_short_is_finished");
    let file = OpenOptions::new().write(true).open(f.dir.path().join("pool.img")).unwrap();
    file.set_len(1 << 30).unwrap();
    let again = Pool::open(f.dir.path(), &options()).unwrap();
    assert_eq!(again.usage().unwrap().size, 1 << 30);
}

#[test]
fn a_damaged_pool_is_refused_and_kept() {
    let f = fixture_or_skip!("a_damaged_pool_is_refused_and_kept");
    f.pool.close().unwrap();
    let path = f.dir.path().join("pool.img");
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for copy in [64 << 10, 64 << 20] {
        file.write_all_at(&[0; 4096], copy).unwrap();
    }
    for driver in [DriverChoice::Auto, DriverChoice::Btrfs] {
        let error = Pool::open(f.dir.path(), &PoolOptions { driver, ..options() }).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.hint().unwrap().contains("pool.img"));
    }
    assert!(path.exists());
    // Programs that other tests start have, for a moment, copies of its descriptor.
    wait_for("its device to go", || loop_devices_of(&path) == 0);
}

#[test]
fn a_pool_keeps_its_driver() {
    let dir = tempfile::tempdir().unwrap();
    let overlay = PoolOptions { driver: DriverChoice::Overlay, ..PoolOptions::default() };
    let pool = Pool::open(dir.path(), &overlay).unwrap();
    make_image(&pool, IMAGE);
    assert!(!pool.warnings().is_empty());
    let pool = Pool::open(dir.path(), &PoolOptions::default()).unwrap();
    assert_eq!((pool.driver(), pool.images().unwrap().len()), (Driver::Overlay, 1));
    let error = Pool::open(dir.path(), &options()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::OtherDriver("overlay"));
}

/// A small ext4 of its own that plays the host's disk; unmounted at the end.
struct SmallHost {
    dir: tempfile::TempDir,
}

impl SmallHost {
    fn new(mib: u64, kind: &str) -> Option<Self> {
        let dir = tempfile::Builder::new().prefix("garth-host-").tempdir().unwrap();
        let image = dir.path().join("host.img");
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&image).unwrap();
        file.set_len(mib << 20).unwrap();
        let made = std::process::Command::new(format!("mkfs.{kind}")).arg("-q").arg(&image).output().ok()?;
        assert!(made.status.success(), "{made:?}");
        let device = LoopDevice::attach(file.as_fd()).unwrap();
        fs::create_dir(dir.path().join("mnt")).unwrap();
        mount(device.path(), dir.path().join("mnt"), kind, MountFlags::empty(), c"").unwrap();
        Some(Self { dir })
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("mnt")
    }
}

impl Drop for SmallHost {
    fn drop(&mut self) {
        let _ = unmount(self.path().join("pool"), UnmountFlags::DETACH);
        let _ = unmount(self.path(), UnmountFlags::DETACH);
    }
}

fn fill_host(path: &Path) {
    use std::io::Write;
    let mut file = File::create(path).unwrap();
    while file.write_all(&[7; 1 << 20]).is_ok() {}
    let _ = file.sync_all();
}

#[test]
fn a_full_host_is_a_typed_error_and_leaves_nothing() {
    let Some(host) = SmallHost::new(600, "ext4") else {
        return println!("SKIP a_full_host_is_a_typed_error_and_leaves_nothing: mkfs.ext4");
    };
    fill_host(&host.path().join("filler"));
    let error = Pool::open(&host.path(), &PoolOptions::default()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(!host.path().join("pool.img").exists() && !host.path().join("pool.img.draft").exists());
    fs::remove_file(host.path().join("filler")).unwrap();
    // ext4 gives freed blocks out again some time after its journal has them.
    File::open(host.path()).unwrap().sync_all().unwrap();
    let mut pool = None;
    wait_for("the host's free blocks", || {
        pool = Pool::open(&host.path(), &PoolOptions::default()).ok();
        pool.is_some()
    });
    let pool = pool.unwrap();
    make_image(&pool, IMAGE);
    assert_eq!(pool.driver(), Driver::Btrfs);
    fill_host(&host.path().join("filler"));
    let error = pool.create_disk(project(1), IMAGE, LIMIT).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::NoSpace, "{error}");
    assert_eq!(*pool.new_image(ImageId::from_bits(3)).unwrap_err().kind(), ErrorKind::NoSpace);
    assert!(pool.disks().unwrap().is_empty());
    pool.close().unwrap();
}

#[test]
fn a_pool_survives_the_host_filling_up_below_it() {
    let Some(host) = SmallHost::new(700, "ext4") else {
        return println!("SKIP a_pool_survives_the_host_filling_up_below_it: mkfs.ext4");
    };
    let pool = Pool::open(&host.path(), &PoolOptions::default()).unwrap();
    make_image(&pool, IMAGE);
    let disk = pool.create_disk(project(1), IMAGE, ByteSize::mib(2048)).unwrap();
    pool.maintain().unwrap();
    fill_host(&host.path().join("filler"));
    // Before anyone noticed: content cannot be written, the trees can.
    // (The writer learns of it at its fsync only.)
    let mut lost = File::create(disk.state_dir().join("lost")).unwrap();
    std::io::Write::write_all(&mut lost, &vec![7; 200 << 20]).unwrap();
    assert!(lost.sync_all().is_err());
    drop(lost);
    fs::write(disk.state_dir().join("still-writable"), "x").unwrap();
    garth_kernel::btrfs::sync(File::open(disk.state_dir()).unwrap().as_fd()).unwrap();
    pool.maintain().unwrap();
    fs::remove_file(host.path().join("filler")).unwrap();
    fs::remove_file(disk.state_dir().join("lost")).unwrap();
    fs::write(disk.state_dir().join("after"), vec![1; 20 << 20]).unwrap();
    File::open(disk.state_dir().join("after")).unwrap().sync_all().unwrap();
    pool.maintain().unwrap();
    pool.close().unwrap();
}

#[test]
fn a_data_directory_on_btrfs_needs_no_pool_file() {
    let Some(host) = SmallHost::new(300, "btrfs") else {
        return println!("SKIP a_data_directory_on_btrfs_needs_no_pool_file: mkfs.btrfs");
    };
    let pool = Pool::open(&host.path(), &PoolOptions::default()).unwrap();
    make_image(&pool, IMAGE);
    let disk = pool.create_disk(project(1), IMAGE, LIMIT).unwrap();
    assert_eq!(disk.usage().unwrap().limit, Some(LIMIT));
    assert!(!host.path().join("pool.img").exists());
    pool.close().unwrap();
    pool.maintain().unwrap();
    assert!(fs::write(disk.state_dir().join("big"), vec![1; 100 << 20]).is_err());
    pool.remove_disk(project(1)).unwrap();
    pool.sweep().unwrap();
}

#[test]
fn with_full_quotas_of_older_kernels_the_limit_holds_too() {
    let test = "with_full_quotas_of_older_kernels_the_limit_holds_too";
    let Some(host) = SmallHost::new(300, "btrfs") else {
        return println!("SKIP {test}: mkfs.btrfs");
    };
    let dir = File::open(host.path()).unwrap();
    garth_kernel::btrfs::enable_quota(dir.as_fd(), garth_kernel::btrfs::QuotaMode::Full).unwrap();
    drop(dir);
    let pool = Pool::open(&host.path(), &PoolOptions::default()).unwrap();
    make_image(&pool, IMAGE);
    let disk = pool.create_disk(project(1), IMAGE, LIMIT).unwrap();
    assert_eq!(disk.usage().unwrap().limit, Some(LIMIT));
    assert!(fs::write(disk.state_dir().join("big"), vec![1; 100 << 20]).is_err());
    disk.set_limit(ByteSize::mib(150)).unwrap();
    fs::write(disk.state_dir().join("big"), vec![1; 100 << 20]).unwrap();
    pool.remove_disk(project(1)).unwrap();
    assert!(pool.disks().unwrap().is_empty());
}
