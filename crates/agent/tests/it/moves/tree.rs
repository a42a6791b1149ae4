//! A tree with one of everything.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, chown, lchown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};

/// It has more entries than this.
pub const FEWEST: usize = 50;

/// Each changes one thing of it; a change of owner would take the other file's capabilities as well.
pub const CHANGES: [&str; 14] = [
    "chmod 600 plain/nothing",
    "chown 5 plain/nothing",
    "chgrp 6 plain/nothing",
    "touch -d @1000000000.000000001 plain/file",
    "touch -d @1000000000.000000002 plain/file",
    "printf X | dd of=plain/file conv=notrunc bs=1 seek=1 status=none; touch -d @1000000000.000000002 plain/file",
    "printf X | dd of=sparse conv=notrunc bs=1 seek=900000000 status=none; touch -d @1 sparse plain",
    "truncate -s +1 sparse; touch -d @1 sparse",
    "rm plain/second; ln -s elsewhere plain/second; touch -hd @1 plain/second; touch -d @1 plain",
    "rm plain/second; ln -s elsewherf plain/second; touch -hd @1 plain/second; touch -d @1 plain",
    "cp -p links/one links/copy; mv links/copy links/one; touch -d @1 links",
    "rm plain/null; mknod plain/null c 1 5; touch -d @1 plain/null plain",
    "rm plain/null; mknod plain/null b 1 5; touch -d @1 plain/null plain",
    "rmdir plain/empty; touch -d @1 plain",
];

/// A capability set (linux/capability.h), with the byte that ends lines in it.
const CAPABILITIES: [u8; 20] = [0, 0, 0, 2, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

pub fn make(root: &Path) {
    let path = |name: &str| root.join(name);
    for name in ["plain/empty", "links/elsewhere", "acl/inside", "many"] {
        fs::create_dir_all(path(name)).expect("directory");
    }
    fs::write(path("plain/file"), "content").expect("file");
    fs::write(path("plain/nothing"), "").expect("file");
    for number in 0..FEWEST {
        fs::write(path(&format!("many/{number}")), vec![number as u8; number * 100]).expect("file");
    }
    symlink("file", path("plain/second")).expect("link");
    symlink("x/".repeat(2000), path("plain/long link")).expect("link");
    node(&path("plain/fifo"), FileType::Fifo, 0);
    node(&path("plain/null"), FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node(&path("plain/disk"), FileType::BlockDevice, rustix::fs::makedev(4000, 1_000_000));
    node(&path("plain/socket"), FileType::Socket, 0);
    fs::write(root.join(OsStr::from_bytes(b"plain/\xff\xfe\nnot text = %3D")), "x").expect("file");
    fs::write(path("plain.before-plain-as-text"), "x").expect("file");
    links(root);
    attributes(root);
    sparse(&path("sparse"));
    fs::write(path("set-uid"), "x").expect("file");
    chown(path("set-uid"), Some(4_000_000_000), Some(4_294_967_294)).expect("owner");
    mode(&path("set-uid"), 0o6755);
    mode(&path("links"), 0o3777);
    mode(&path("plain/fifo"), 0o4621);
    lchown(path("plain/second"), Some(12), Some(13)).expect("owner");
    deep(root);
    for (name, seconds, nanoseconds) in [
        ("plain/second", -86_400, 999_999_999),
        ("set-uid", -1, 1),
        ("plain/empty", 1 << 33, 5),
        ("plain", 7, 8),
        ("", 9, 10),
    ] {
        date(&path(name), seconds, nanoseconds);
    }
}

fn node(path: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).expect("node");
}

fn mode(path: &Path, mode: u32) {
    rustix::fs::chmod(path, Mode::from_raw_mode(mode)).expect("mode");
}

fn date(path: &Path, tv_sec: i64, tv_nsec: i64) {
    let time = Timespec { tv_sec, tv_nsec };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("time");
}

/// Of a file, a link and a FIFO, in several directories.
fn links(root: &Path) {
    fs::write(root.join("links/one"), "linked").expect("file");
    symlink("one", root.join("links/link")).expect("link");
    node(&root.join("links/pipe"), FileType::Fifo, 0);
    for (name, other) in [
        ("links/one", "acl/other"),
        ("links/one", "links/elsewhere/third"),
        ("links/link", "links/link2"),
        ("links/pipe", "many/pipe"),
    ] {
        rustix::fs::linkat(CWD, root.join(name), CWD, root.join(other), AtFlags::empty()).expect("hard link");
    }
}

fn attributes(root: &Path) {
    let set = |path: &Path, name: &str, value: &[u8]| {
        rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).expect(name);
    };
    let entry =
        |tag: u16, rights: u16, id: u32| [&tag.to_le_bytes()[..], &rights.to_le_bytes(), &id.to_le_bytes()].concat();
    // For a user of its own; the mask is what the mode shows as the group's rights (acl(5)).
    let none = u32::MAX;
    let entries = [entry(1, 7, none), entry(2, 4, 1000), entry(4, 5, none), entry(16, 6, none), entry(32, 0, none)];
    let list = [&2u32.to_le_bytes()[..], &entries.concat()].concat();
    fs::write(root.join("acl/before"), "x").expect("file");
    fs::write(root.join("acl/listed"), "x").expect("file");
    // What is made in the directory from now on would inherit.
    set(&root.join("acl"), "system.posix_acl_default", &list);
    set(&root.join("acl/listed"), "system.posix_acl_access", &list);
    fs::write(root.join("acl/inherits"), "x").expect("file");
    let file = root.join("plain/file");
    set(&file, "security.capability", &CAPABILITIES);
    set(&file, "user.empty", b"");
    set(&file, "user.lines = %3D%", b"one\ntwo\n12 user.x=y\n\0");
    set(&file, "user.large", &vec![b'\n'; 2000]);
    set(&file, "trusted.x", b"trusted");
    set(&root.join("plain/second"), "trusted.link", b"of the link");
    set(&root.join("plain/empty"), "user.directory", b"x");
    set(root, "user.root", b"x");
}

/// 1 GiB with data at its start, across the boundary of a block, and, as zeros, before its end.
fn sparse(path: &Path) {
    let file = File::create(path).expect("file");
    file.set_len(1 << 30).expect("length");
    for (at, data) in [(0, &[1u8; 5000][..]), ((64 << 10) * 99 - 7, &[2; 9000]), (700 << 20, &[0; 8192])] {
        file.write_all_at(data, at).expect("content");
    }
    File::create(path.with_extension("all hole")).expect("file").set_len(12345).expect("length");
}

/// More than PATH_MAX.
fn deep(root: &Path) {
    let mut directory = rustix::fs::open(root, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).expect("root");
    let name = "d".repeat(255);
    for _ in 0..20 {
        rustix::fs::mkdirat(&directory, &name, Mode::from_raw_mode(0o755)).expect("directory");
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        directory = rustix::fs::openat(&directory, &name, flags, Mode::empty()).expect("directory");
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(&directory, "file", flags, Mode::from_raw_mode(0o600)).expect("file");
    File::from(file).write_all_at(b"deep", 0).expect("content");
    rustix::fs::linkat(&directory, "file", &directory, "link", AtFlags::empty()).expect("link");
}
