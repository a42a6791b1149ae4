//! What holds with either driver.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use garth_spec::{ByteSize, ImageId};
use garth_storage::{ErrorKind, ImageMeta, Root, UsrSource};

use crate::support::{IMAGE, LIMIT, make_image, names, project, with_each_driver};

/// Where a write of the sandbox lands.
fn writable(root: &Root) -> PathBuf {
    match root {
        Root::Directory(path) => path.clone(),
        Root::Overlay { upper, .. } => upper.clone(),
    }
}

#[test]
fn a_disk_is_there_until_it_is_removed() {
    with_each_driver("a_disk_is_there_until_it_is_removed", |f| {
        let disk = f.pool.create_disk(project(1), IMAGE, LIMIT).unwrap();
        fs::write(writable(&disk.root().root).join("kept"), "x").unwrap();
        fs::write(disk.state_dir().join("log"), "x").unwrap();
        assert_eq!(f.pool.disks().unwrap(), [project(1)]);
        let again = f.pool.disk(project(1)).unwrap().unwrap();
        assert!(writable(&again.root().root).join("kept").exists());
        assert_eq!(again.image(), IMAGE);
        f.pool.remove_disk(project(1)).unwrap();
        assert!(f.pool.disk(project(1)).unwrap().is_none());
        f.pool.remove_disk(project(1)).unwrap();
        assert!(names(&f.dir.path().join("pool/drafts")).is_empty());
    });
}

#[test]
fn a_dropped_draft_leaves_nothing() {
    with_each_driver("a_dropped_draft_leaves_nothing", |f| {
        let id = ImageId::from_bits(7);
        let draft = f.pool.new_image(id).unwrap();
        fs::create_dir_all(draft.path().join("a/b")).unwrap();
        assert!(f.pool.image(id).unwrap().is_none());
        assert_eq!(f.pool.images().unwrap().len(), 1);
        drop(draft);
        assert!(names(&f.dir.path().join("pool/drafts")).is_empty());
    });
}

#[test]
fn sweep_removes_what_a_crash_left_half_made() {
    with_each_driver("sweep_removes_what_a_crash_left_half_made", |f| {
        let draft = f.pool.new_image(ImageId::from_bits(7)).unwrap();
        fs::write(draft.path().join("half"), "x").unwrap();
        std::mem::forget(draft);
        let swept = f.pool.sweep().unwrap();
        assert_eq!(swept.drafts, ["image-0000000000000007"]);
        assert!(names(&f.dir.path().join("pool/drafts")).is_empty());
        assert!(f.pool.image(IMAGE).unwrap().is_some());
    });
}

#[test]
fn what_is_missing_or_there_twice_is_a_typed_error() {
    with_each_driver("what_is_missing_or_there_twice_is_a_typed_error", |f| {
        let none = ImageId::from_bits(9);
        let error = f.pool.create_disk(project(1), none, LIMIT).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::ImageMissing(none));
        f.pool.create_disk(project(1), IMAGE, LIMIT).unwrap();
        let error = f.pool.create_disk(project(1), IMAGE, LIMIT).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::DiskExists(project(1)));
        let error = f.pool.new_image(IMAGE).unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::ImageExists(IMAGE));
    });
}

#[test]
fn a_limit_below_what_is_used_is_refused() {
    with_each_driver("a_limit_below_what_is_used_is_refused", |f| {
        let disk = f.pool.create_disk(project(1), IMAGE, LIMIT).unwrap();
        let file = writable(&disk.root().root).join("big");
        fs::write(&file, vec![7; 8 << 20]).unwrap();
        fs::File::open(&file).unwrap().sync_all().unwrap();
        let error = disk.set_limit(ByteSize::mib(4)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::LimitBelowUse { used, .. } if *used >= 8 << 20), "{error}");
        disk.set_limit(ByteSize::mib(32)).unwrap();
    });
}

#[test]
fn only_root_of_the_host_reaches_the_files() {
    with_each_driver("only_root_of_the_host_reaches_the_files", |f| {
        let mode = fs::metadata(f.dir.path().join("pool")).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    });
}

#[test]
fn a_disk_of_the_built_in_image_has_a_layer_over_usr() {
    with_each_driver("a_disk_of_the_built_in_image_has_a_layer_over_usr", |f| {
        let id = ImageId::from_bits(8);
        let draft = f.pool.new_image(id).unwrap();
        fs::create_dir_all(draft.usr_upper().unwrap().join("local/etc")).unwrap();
        draft.commit(ImageMeta { usr: UsrSource::Host, ..ImageMeta::default() }).unwrap();
        let disk = f.pool.create_disk(project(1), id, LIMIT).unwrap();
        let usr = disk.root().usr.clone().unwrap();
        assert_eq!(usr.lower, PathBuf::from("/usr"));
        assert!(usr.upper.join("local/etc").is_dir() && usr.work.is_dir());
        fs::write(usr.upper.join("written"), "x").unwrap();
        assert!(f.pool.create_disk(project(2), IMAGE, LIMIT).unwrap().root().usr.is_none());
    });
}

#[test]
fn an_image_goes_when_nothing_uses_it() {
    with_each_driver("an_image_goes_when_nothing_uses_it", |f| {
        make_image(&f.pool, ImageId::from_bits(8));
        f.pool.remove_image(ImageId::from_bits(8)).unwrap();
        f.pool.remove_image(ImageId::from_bits(8)).unwrap();
        assert_eq!(f.pool.images().unwrap().len(), 1);
    });
}
