//! The formats people have.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use garth_image::{ErrorKind, Format};
use tar::EntryType;

use crate::support::{Place, Tar, gzip, names, zstd};

fn rootfs() -> Vec<u8> {
    Tar::new().dir("./").dir("./etc/").file("./etc/os", "garth").symlink("bin", "usr/bin").dir("usr/bin").end()
}

#[test]
fn a_root_filesystem_is_taken_plain_gzipped_and_zstandard() {
    for bytes in [rootfs(), gzip(&rootfs()), zstd(&rootfs()), [zstd(&rootfs()[..600]), zstd(&rootfs()[600..])].concat()]
    {
        let place = Place::new();
        let imported = place.import(&bytes).unwrap();
        assert_eq!((place.text("etc/os").as_str(), imported.bytes), ("garth", 5));
        assert_eq!(fs::read_link(place.root.join("bin")).unwrap().to_str(), Some("usr/bin"));
    }
}

#[test]
fn what_the_runtime_mounts_on_is_made() {
    let place = Place::new();
    place.import(&rootfs()).unwrap();
    assert_eq!(names(&place.root), ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "usr"]);
    assert_eq!(fs::metadata(place.root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
}

#[test]
fn owner_mode_time_and_links_are_kept() {
    let place = Place::new();
    let mut header = Tar::header(EntryType::Regular, "a/suid", 2);
    header.set_mode(0o4751);
    header.set_uid(1234);
    header.set_gid(2345);
    let tar = Tar::new().dir("a").raw(header, b"hi").hardlink("a/second", "a/suid").hardlink("a/third", "/a/suid");
    place.import(&tar.link(EntryType::Fifo, "a/pipe", "").symlink("a/abs", "/etc/os").end()).unwrap();
    let meta = fs::metadata(place.root.join("a/suid")).unwrap();
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (1234, 2345, 0o4751));
    assert_eq!((meta.mtime(), meta.nlink()), (1_000_000_000, 3));
    assert_eq!(fs::metadata(place.root.join("a")).unwrap().mtime(), 1_000_000_000, "a directory's time comes last");
    assert!(fs::metadata(place.root.join("a/pipe")).unwrap().file_type().is_fifo());
    assert_eq!(fs::read_link(place.root.join("a/abs")).unwrap().to_str(), Some("/etc/os"));
}

#[test]
fn extended_headers_carry_long_names_times_and_capabilities() {
    let place = Place::new();
    let long = format!("{}/{}", "d".repeat(200), "f".repeat(200));
    // VFS_CAP_REVISION_2, cap_net_raw permitted and effective; it holds zeros and may hold newlines.
    let cap = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let records: [(&str, &[u8]); 5] = [
        ("path", long.as_bytes()),
        ("mtime", b"1234.5"),
        ("SCHILY.xattr.security.capability", &cap),
        ("SCHILY.xattr.user.note", b"a\nb"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
    ];
    place.import(&Tar::new().pax(&records).file("short", "x").end()).unwrap();
    let path = place.root.join(&long);
    assert_eq!(fs::metadata(&path).unwrap().mtime_nsec(), 500_000_000);
    let mut value = [0; 64];
    let mut get = |name: &str| rustix::fs::getxattr(&path, name, &mut value[..]).map(|len| value[..len].to_vec());
    assert_eq!(get("security.capability").unwrap(), cap);
    assert_eq!(get("user.note").unwrap(), b"a\nb");
    assert!(get("trusted.overlay.opaque").is_err(), "it would steer the kernel's overlayfs");
}

#[test]
fn gnu_long_names_are_read() {
    let place = Place::new();
    let long = format!("{}/{}\0", "d".repeat(200), "f".repeat(200));
    let header = Tar::header(EntryType::GNULongName, "././@LongLink", long.len());
    place.import(&Tar::new().raw(header, long.as_bytes()).file("cut", "x").end()).unwrap();
    assert!(place.has(long.trim_end_matches('\0')));
}

#[test]
fn files_with_holes_keep_them_in_every_way_of_writing() {
    let size = b"4194304".as_slice();
    let content = [b'a'; 512];
    let head = |tar: Tar, records: &[(&str, &[u8])]| tar.pax(records);
    let mut gnu = Tar::header(EntryType::GNUSparse, "f", 512);
    let fields = gnu.as_gnu_mut().unwrap();
    fields.set_real_size(4 << 20);
    fields.sparse[0].offset[..12].copy_from_slice(b"00004000000\0");
    fields.sparse[0].numbytes[..12].copy_from_slice(b"00000001000\0");
    let map = [b"1\n1048576\n512\n".to_vec(), vec![0; 512 - 14], content.to_vec()].concat();
    for tar in [
        Tar::new().raw(gnu, &content),
        head(Tar::new(), &[("GNU.sparse.size", size), ("GNU.sparse.map", b"1048576,512")]).file("f", content),
        head(
            Tar::new(),
            &[("GNU.sparse.size", size), ("GNU.sparse.offset", b"1048576"), ("GNU.sparse.numbytes", b"512")],
        )
        .file("f", content),
        head(
            Tar::new(),
            &[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.name", b"f"),
                ("GNU.sparse.realsize", size),
            ],
        )
        .file("GNUSparseFile.0/f", map),
    ] {
        let place = Place::new();
        place.import(&tar.end()).unwrap();
        let file = fs::read(place.root.join("f")).unwrap();
        assert_eq!(file.len(), 4 << 20);
        assert_eq!((file[1_048_575], file[1_048_576], file[1_049_087], file[1_049_088]), (0, b'a', b'a', 0));
        assert!(fs::metadata(place.root.join("f")).unwrap().blocks() < 100);
    }
}

#[test]
fn a_real_tar_program_s_output_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("in/etc")).unwrap();
    fs::write(dir.path().join("in/etc/os"), "garth").unwrap();
    let sparse = fs::File::create(dir.path().join("in/sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"end", (8 << 20) - 3).unwrap();
    for format in ["gnu", "posix", "ustar", "v7"] {
        let mut command = std::process::Command::new("tar");
        command.args([&format!("--format={format}"), "-C"]).arg(dir.path().join("in")).args(["-cf", "-", "."]);
        if ["gnu", "posix"].contains(&format) {
            command.args(["--sparse", "--xattrs"]);
        }
        let Ok(output) = command.output() else {
            return println!("SKIP a_real_tar_program_s_output_is_taken: tar");
        };
        let place = Place::new();
        place.import(&output.stdout).unwrap();
        assert_eq!(place.text("etc/os"), "garth", "{format}");
        assert!(fs::read(place.root.join("sparse")).unwrap().ends_with(b"\0end"));
    }
}

#[test]
fn the_usual_nodes_of_dev_are_left_out() {
    let place = Place::new();
    let tar =
        Tar::new().dir("dev").device(EntryType::Char, "./dev/null", 1, 3).device(EntryType::Char, "dev/console", 5, 1);
    place.import(&tar.file("etc/os", "x").end()).unwrap();
    assert!(names(&place.root.join("dev")).is_empty());
}

#[test]
fn a_link_that_stays_inside_is_followed() {
    let place = Place::new();
    let tar = Tar::new().dir("usr/lib").symlink("lib", "usr/lib").file("lib/x.so", "x").file("lib/deep/y.so", "y");
    place.import(&tar.end()).unwrap();
    assert_eq!((place.text("usr/lib/x.so"), place.text("usr/lib/deep/y.so")), ("x".to_owned(), "y".to_owned()));
}

#[test]
fn a_later_member_takes_the_place_of_an_earlier_one() {
    let place = Place::new();
    let tar = Tar::new().file("a", "1").file("a", "2").file("b/c", "3").file("b", "4").symlink("d", "a").dir("d");
    place.import(&tar.file("d/e", "5").end()).unwrap();
    assert_eq!((place.text("a"), place.text("b"), place.text("d/e")), ("2".into(), "4".into(), "5".into()));
}

#[test]
fn the_format_that_was_asked_for_is_the_one_that_is_read() {
    let archive = Tar::new().file("manifest.json", "[]").end();
    let place = Place::new();
    place.import_as(&archive, Format::Tar).unwrap();
    assert_eq!(place.text("manifest.json"), "[]");
    let error = Place::new().import_as(&rootfs(), Format::OciLayout).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::UnknownFormat(_)), "{error}");
}
