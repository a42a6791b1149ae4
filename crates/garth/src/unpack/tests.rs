use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use tar::{Builder, Header};
use tempfile::TempDir;

use super::*;

type Tar = Builder<Vec<u8>>;

fn header(kind: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(mode);
    header.set_uid(rustix::process::getuid().as_raw().into());
    header.set_gid(rustix::process::getgid().as_raw().into());
    header.set_mtime(1_000_000_000);
    header
}

fn file(tar: &mut Tar, name: &str, mode: u32, content: &[u8]) {
    let header = &mut header(EntryType::Regular, content.len() as u64, mode);
    tar.append_data(header, format!("top/{name}"), content).expect("entry");
}

fn link(tar: &mut Tar, kind: EntryType, name: &str, target: &str) {
    tar.append_link(&mut header(kind, 0, 0o777), format!("top/{name}"), target).expect("entry");
}

/// A file whose name is not checked by the builder.
fn raw_file(tar: &mut Tar, name: &str) {
    let mut header = header(EntryType::Regular, 1, 0o644);
    header.as_gnu_mut().expect("gnu").name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_cksum();
    tar.append(&header, &b"x"[..]).expect("entry");
}

/// Unpacks into `t` of a new directory that has `t` and `outside`.
fn unpacked(make: impl FnOnce(&mut Tar), top: Top) -> (TempDir, Result<()>) {
    let dir = tempfile::tempdir().expect("dir");
    for name in ["t", "outside"] {
        fs::create_dir(dir.path().join(name)).expect("dir");
    }
    let result = unpack_into(&dir, make, &top);
    (dir, result)
}

fn unpack_into(dir: &TempDir, make: impl FnOnce(&mut Tar), top: &Top) -> Result<()> {
    let mut tar = Builder::new(Vec::new());
    make(&mut tar);
    let target = fs::File::open(dir.path().join("t")).expect("open");
    unpack(&*tar.into_inner().expect("tar"), target.into(), top)
}

#[track_caller]
fn outside_is_untouched(dir: &TempDir) {
    assert_eq!(fs::read_dir(dir.path().join("outside")).expect("list").count(), 0, "something got out");
}

#[test]
fn bytes_modes_times_and_links_are_kept() {
    let (dir, result) = unpacked(
        |tar| {
            tar.append_data(&mut header(EntryType::Directory, 0, 0o500), "top/d", io::empty()).expect("entry");
            file(tar, "d/a", 0o640, b"bytes");
            link(tar, EntryType::Link, "d/b", "top/d/a");
            link(tar, EntryType::Symlink, "d/l", "/etc/passwd");
        },
        Top::Strip,
    );
    result.expect("unpacks");
    let d = dir.path().join("t/d");
    assert_eq!(fs::read(d.join("a")).expect("a"), b"bytes");
    let meta = fs::metadata(d.join("b")).expect("b");
    assert_eq!((meta.nlink(), meta.mode() & 0o7777, meta.mtime()), (2, 0o640, 1_000_000_000));
    assert_eq!(fs::metadata(&d).expect("d").mode() & 0o7777, 0o500);
    assert_eq!(fs::read_link(d.join("l")).expect("l"), Path::new("/etc/passwd"));
    fs::set_permissions(&d, fs::Permissions::from_mode(0o700)).expect("so that it can be removed");
}

#[test]
fn the_first_word_is_renamed_in_links_too() {
    let make = |tar: &mut Tar| {
        file(tar, "a", 0o644, b"x");
        link(tar, EntryType::Link, "b", "top/a");
    };
    let dir = tempfile::tempdir().expect("dir");
    fs::create_dir_all(dir.path().join("t/out")).expect("dir");
    unpack_into(&dir, make, &Top::Rename("out".into())).expect("unpacks");
    assert_eq!(fs::read(dir.path().join("t/out/b")).expect("b"), b"x");
}

#[test]
fn sandbox_cannot_write_through_a_symlink_of_its_tar() {
    let (dir, result) = unpacked(
        |tar| {
            link(tar, EntryType::Symlink, "l", "../outside");
            file(tar, "l/evil", 0o644, b"x");
        },
        Top::Strip,
    );
    assert!(result.is_err());
    outside_is_untouched(&dir);
}

#[test]
fn sandbox_cannot_write_through_a_symlink_that_was_there() {
    let dir = tempfile::tempdir().expect("dir");
    for name in ["t", "outside"] {
        fs::create_dir(dir.path().join(name)).expect("dir");
    }
    symlink("../outside", dir.path().join("t/l")).expect("link");
    symlink("../outside/evil", dir.path().join("t/f")).expect("link");
    unpack_into(&dir, |tar| file(tar, "l/evil", 0o644, b"x"), &Top::Strip).expect_err("refused");
    unpack_into(&dir, |tar| file(tar, "f", 0o644, b"x"), &Top::Strip).expect("the link is replaced");
    assert!(fs::symlink_metadata(dir.path().join("t/f")).expect("f").is_file());
    outside_is_untouched(&dir);
}

#[test]
fn sandbox_cannot_name_a_path_outside() {
    for name in ["../outside/evil", "/tmp/garth-evil", "a/../../outside/evil"] {
        let (dir, result) = unpacked(|tar| raw_file(tar, name), Top::Strip);
        assert_eq!(result.expect_err(name).exit, Exit::Refused);
        outside_is_untouched(&dir);
    }
}

#[test]
fn sandbox_cannot_hard_link_a_file_of_the_host() {
    for target in ["../outside/secret", "/etc/passwd"] {
        let (_, result) = unpacked(|tar| link(tar, EntryType::Link, "l", target), Top::Strip);
        assert!(result.is_err(), "{target}");
    }
    let (dir, result) = unpacked(
        |tar| {
            link(tar, EntryType::Symlink, "s", "/etc/passwd");
            link(tar, EntryType::Link, "h", "top/s");
        },
        Top::Strip,
    );
    result.expect("a link to a link is a link");
    assert!(fs::symlink_metadata(dir.path().join("t/h")).expect("h").is_symlink());
}

#[test]
fn sandbox_cannot_plant_devices_fifos_or_set_user_id_programs() {
    for kind in [EntryType::Block, EntryType::Char, EntryType::Fifo] {
        let append = |tar: &mut Tar| {
            tar.append_data(&mut header(kind, 0, 0o666), "top/n", io::empty()).expect("entry");
        };
        assert_eq!(unpacked(append, Top::Strip).1.expect_err("refused").code, "not_copied");
    }
    let (dir, result) = unpacked(|tar| file(tar, "su", 0o6755, b"x"), Top::Strip);
    result.expect("unpacks");
    assert_eq!(fs::metadata(dir.path().join("t/su")).expect("su").mode() & 0o7777, 0o755);
}

#[test]
fn a_cut_off_tar_is_an_error_and_leaves_the_old_file() {
    let (dir, _) = unpacked(|tar| file(tar, "f", 0o644, b"old"), Top::Strip);
    let mut tar = Builder::new(Vec::new());
    file(&mut tar, "f", 0o644, &[1; 10_000]);
    let bytes = tar.into_inner().expect("tar");
    let target = fs::File::open(dir.path().join("t")).expect("open");
    unpack(bytes.get(..5_000).expect("half"), target.into(), &Top::Strip).expect_err("cut off");
    let names: Vec<_> = fs::read_dir(dir.path().join("t")).expect("list").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["f"]);
    assert_eq!(fs::metadata(dir.path().join("t/f")).expect("f").len(), 3);
}

#[test]
fn zeros_take_no_disk() {
    let (dir, result) = unpacked(|tar| file(tar, "f", 0o644, &vec![0; 8 << 20]), Top::Strip);
    result.expect("unpacks");
    let meta = fs::metadata(dir.path().join("t/f")).expect("f");
    assert_eq!(meta.len(), 8 << 20);
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
}
