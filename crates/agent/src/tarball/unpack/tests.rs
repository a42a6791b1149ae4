use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use tar::{Builder, Header};

use super::*;
use crate::tarball::{Top, pack};

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("temporary directory")
}

/// A tar of entries that an honest program would not make.
fn stream(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, content) in entries {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        // By hand: the library's own setter refuses `..`.
        header.as_gnu_mut().expect("GNU").name[..name.len()].copy_from_slice(name.as_bytes());
        let link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if link {
            header.as_gnu_mut().expect("GNU").linkname[..content.len()].copy_from_slice(content.as_bytes());
        }
        header.set_size(if link { 0 } else { content.len() as u64 });
        header.set_cksum();
        builder.append(&header, if link { "".as_bytes() } else { content.as_bytes() }).expect("append");
    }
    builder.into_inner().expect("tar")
}

const FILE: EntryType = EntryType::Regular;

#[track_caller]
fn refused(entries: &[(EntryType, &str, &str)], word: &str) {
    let outer = temporary();
    let target = outer.path().join("target");
    fs::create_dir(&target).expect("target");
    fs::create_dir(outer.path().join("outside")).expect("outside");
    let refusal = unpack(&stream(entries)[..], &target).expect_err("refused");
    assert!(refusal.message.contains(word), "{}", refusal.message);
    assert_eq!(fs::read_dir(outer.path().join("outside")).expect("outside").count(), 0);
    assert_eq!(fs::read_dir(outer.path()).expect("outer").count(), 2);
    let left = fs::read_dir(&target)
        .expect("target")
        .flatten()
        .find(|e| e.file_name().to_string_lossy().starts_with(".garth"));
    assert!(left.is_none(), "{left:?}");
}

#[test]
fn names_that_lead_out_are_refused() {
    refused(&[(FILE, "../outside/x", "x")], "leads out");
    refused(&[(FILE, "a/../../outside/x", "x")], "leads out");
    refused(&[(EntryType::Symlink, "l", "../outside"), (FILE, "l/x", "x")], "leads out");
    refused(&[(EntryType::Symlink, "l", "/"), (FILE, "l/tmp/garth-escaped", "x")], "leads out");
    refused(&[(EntryType::Symlink, "l", "../outside"), (EntryType::Directory, "l/d", "")], "leads out");
    refused(&[(EntryType::Link, "l", "../outside/x")], "leads out");
    refused(&[(EntryType::Symlink, "l", "/etc"), (EntryType::Link, "h", "l/passwd")], "leads out");
    refused(&[(EntryType::Symlink, "loop", "loop"), (FILE, "loop/x", "x")], "leads out");
}

#[test]
fn devices_are_refused() {
    refused(&[(EntryType::Char, "null", "")], "device");
    refused(&[(EntryType::Block, "disk", "")], "device");
}

#[test]
fn a_stream_that_is_cut_off_leaves_no_half_file() {
    let target = temporary();
    let whole = stream(&[(FILE, "a", "complete"), (FILE, "b", &"x".repeat(5000))]);
    let refusal = unpack(&whole[..3000], target.path()).expect_err("cut off");
    assert!(refusal.message.contains("cut off"), "{}", refusal.message);
    let names: Vec<_> = fs::read_dir(target.path()).expect("target").flatten().map(|e| e.file_name()).collect();
    assert_eq!(names, ["a"]);
}

#[test]
fn a_link_in_the_way_of_a_file_is_replaced_not_followed() {
    let target = temporary();
    let outside = temporary();
    fs::write(outside.path().join("victim"), "safe").expect("victim");
    symlink(outside.path().join("victim"), target.path().join("f")).expect("link");
    unpack(&stream(&[(FILE, "f", "new")])[..], target.path()).expect("unpack");
    assert_eq!(fs::read_to_string(outside.path().join("victim")).expect("victim"), "safe");
    assert_eq!(fs::read_to_string(target.path().join("f")).expect("f"), "new");
    assert!(!target.path().join("f").is_symlink());
}

#[test]
fn links_that_stay_inside_are_followed_for_directories() {
    let target = temporary();
    fs::create_dir(target.path().join("real")).expect("real");
    symlink("real", target.path().join("alias")).expect("alias");
    unpack(&stream(&[(FILE, "alias/f", "x")])[..], target.path()).expect("unpack");
    assert_eq!(fs::read_to_string(target.path().join("real/f")).expect("f"), "x");
}

#[test]
fn a_target_that_is_no_directory_is_refused() {
    let target = temporary();
    let file = target.path().join("file");
    fs::write(&file, "").expect("file");
    assert_eq!(unpack(&[0u8; 1024][..], &file).expect_err("a file").kind, Kind::Invalid);
    assert_eq!(unpack(&[0u8; 1024][..], &target.path().join("no")).expect_err("nothing").kind, Kind::NotFound);
}

#[test]
fn a_tree_comes_out_as_it_went_in() {
    let (source, target) = (temporary(), temporary());
    let tree = source.path().join("tree");
    let deep = tree.join("a".repeat(120)).join("b".repeat(120));
    fs::create_dir_all(&deep).expect("directories");
    fs::write(deep.join("long"), "long name").expect("file");
    fs::write(tree.join("first"), "two names").expect("file");
    fs::hard_link(tree.join("first"), tree.join("second")).expect("hard link");
    symlink("/etc/passwd", tree.join("link")).expect("link");
    fs::set_permissions(tree.join("first"), fs::Permissions::from_mode(0o4751)).expect("mode");
    let holes = File::create(tree.join("holes")).expect("holes");
    holes.set_len(8 << 20).expect("length");
    std::os::unix::fs::FileExt::write_at(&holes, b"middle", 4 << 20).expect("write");
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("fifo"), FileType::Fifo, Mode::from_raw_mode(0o600), 0)
        .expect("fifo");
    let attributes = rustix::fs::setxattr(tree.join("first"), "user.garth", b"bin\0ary", XattrFlags::empty()).is_ok();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).expect("socket");

    let mut packed = Vec::new();
    pack(Top { path: tree.clone(), name: "renamed".into() }, &mut packed).expect("pack");
    assert!(packed.len() < 1 << 20, "{} bytes for a file with holes", packed.len());
    unpack(&packed[..], target.path()).expect("unpack");

    let out = target.path().join("renamed");
    let long = out.join("a".repeat(120)).join("b".repeat(120)).join("long");
    assert_eq!(fs::read_to_string(long).expect("long"), "long name");
    let metadata = fs::metadata(out.join("first")).expect("first");
    assert_eq!((metadata.mode() & 0o7777, metadata.nlink()), (0o4751, 2));
    assert_eq!(metadata.mtime(), fs::metadata(tree.join("first")).expect("first").mtime());
    assert_eq!(fs::read_link(out.join("link")).expect("link"), Path::new("/etc/passwd"));
    let holes = fs::metadata(out.join("holes")).expect("holes");
    assert_eq!(holes.len(), 8 << 20);
    assert!(holes.blocks() * 512 < 1 << 20, "{} blocks", holes.blocks());
    assert_eq!(fs::read(out.join("holes")).expect("holes")[4 << 20..][..6], *b"middle");
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&fs::metadata(out.join("fifo")).expect("fifo").file_type()));
    assert!(!out.join("socket").exists());
    if attributes {
        let mut value = [0u8; 16];
        let length = rustix::fs::getxattr(out.join("first"), "user.garth", &mut value[..]).expect("attribute");
        assert_eq!(&value[..length], b"bin\0ary");
    }
}
