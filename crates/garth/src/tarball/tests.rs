use std::os::unix::fs::{PermissionsExt as _, symlink};

use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, mknodat};
use tar::Archive;
use tempfile::TempDir;

use super::*;

/// All bytes of a stream; an error when it broke off.
fn collected((mut stream, reading): (Stream, Reading)) -> (io::Result<Vec<u8>>, Result<()>) {
    let mut all = Vec::new();
    while let Some(piece) = stream.0.blocking_recv() {
        match piece {
            Ok(piece) => all.extend_from_slice(&piece),
            Err(error) => return (Err(error), reading.check()),
        }
    }
    (Ok(all), reading.check())
}

fn scratch() -> TempDir {
    // Not /tmp, which may be a tmpfs without user attributes.
    tempfile::tempdir_in("/var/tmp").expect("dir")
}

#[test]
fn links_modes_and_attributes_are_in_the_tar() {
    let dir = scratch();
    let at = |name: &str| dir.path().join("d").join(name);
    fs::create_dir(dir.path().join("d")).expect("dir");
    fs::write(at("a"), b"bytes").expect("file");
    fs::set_permissions(at("a"), fs::Permissions::from_mode(0o4751)).expect("mode");
    fs::hard_link(at("a"), at("b")).expect("link");
    symlink("/etc/passwd", at("l")).expect("symlink");
    let marked = lsetxattr(at("a"), "user.mark", b"\0x", XattrFlags::empty()).is_ok();
    let (bytes, read) = collected(tree(dir.path().join("d"), "top".into(), Special::LeaveOut));
    read.expect("read");
    let bytes = bytes.expect("whole");
    let mut seen = Vec::new();
    for entry in Archive::new(&bytes[..]).entries().expect("tar") {
        let mut entry = entry.expect("entry");
        let name = entry.path().expect("name").display().to_string();
        let link = entry.link_name().expect("link").map(|link| link.display().to_string());
        let mode = entry.header().mode().expect("mode");
        seen.push((name.clone(), entry.header().entry_type(), link, mode));
        if name == "top/a" && marked {
            let mut records = entry.pax_extensions().expect("pax").expect("records");
            let record = records.next().expect("one").expect("record");
            assert_eq!((record.key().expect("key"), record.value_bytes()), ("SCHILY.xattr.user.mark", &b"\0x"[..]));
        }
    }
    let kinds: Vec<_> = seen.iter().map(|(name, kind, link, _)| (name.as_str(), *kind, link.as_deref())).collect();
    assert_eq!(
        kinds,
        [
            ("top", EntryType::Directory, None),
            ("top/a", EntryType::Regular, None),
            ("top/b", EntryType::Link, Some("top/a")),
            ("top/l", EntryType::Symlink, Some("/etc/passwd")),
        ]
    );
    assert_eq!(seen[1].3, 0o4751);
}

#[test]
fn a_content_without_its_directory_starts_at_a_dot() {
    let dir = scratch();
    fs::write(dir.path().join("f"), b"x").expect("file");
    let (bytes, read) = collected(tree(dir.path().to_owned(), PathBuf::new(), Special::Pass));
    read.expect("read");
    let bytes = bytes.expect("whole");
    let mut archive = Archive::new(&bytes[..]);
    let names = archive.entries().expect("tar").map(|entry| entry.expect("entry").path().expect("name").into_owned());
    assert_eq!(names.collect::<Vec<_>>(), [PathBuf::from("./"), PathBuf::from("f")]);
}

#[test]
fn a_fifo_is_left_out_and_told_while_the_rest_is_copied() {
    let dir = scratch();
    mknodat(CWD, dir.path().join("a"), FileType::Fifo, Mode::RWXU, 0).expect("fifo");
    fs::write(dir.path().join("b"), b"x").expect("file");
    let names = |bytes: Vec<u8>| {
        let mut archive = Archive::new(&bytes[..]);
        let names = archive.entries().expect("tar").map(|entry| entry.expect("entry").path().expect("name").into());
        names.collect::<Vec<PathBuf>>()
    };
    let (bytes, read) = collected(tree(dir.path().to_owned(), "d".into(), Special::LeaveOut));
    assert_eq!(read.expect_err("told").code, "not_copied");
    assert_eq!(names(bytes.expect("whole")), [Path::new("d"), Path::new("d/b")]);
    let (bytes, read) = collected(tree(dir.path().to_owned(), "d".into(), Special::Pass));
    read.expect("an image may hold one: the daemon decides");
    assert_eq!(names(bytes.expect("whole")).len(), 3);
}

#[test]
fn a_file_that_shrinks_is_an_error_and_one_that_grows_is_cut() {
    let dir = scratch();
    let file = dir.path().join("f");
    fs::write(&file, b"12345").expect("file");
    let read = |left| {
        let mut exactly = Exactly { reader: File::open(&file).expect("open"), left };
        let mut text = String::new();
        exactly.read_to_string(&mut text).map(|_| text)
    };
    assert_eq!(read(5).ok().as_deref(), Some("12345"));
    assert_eq!(read(3).ok().as_deref(), Some("123"));
    assert_eq!(read(9).expect_err("shorter").kind(), io::ErrorKind::UnexpectedEof);
}

#[test]
fn what_cannot_be_read_is_named() {
    let (bytes, read) = collected(tree("/nonexistent/file".into(), "x".into(), Special::LeaveOut));
    assert!(bytes.is_err(), "whoever unpacks it must not take it for whole");
    let failure = read.expect_err("missing");
    assert_eq!(failure.exit, Exit::NotFound);
    assert!(failure.message.contains("/nonexistent/file"), "{failure:?}");
}
