//! Streams made by attackers. Each test is named for what it denies.

use std::fs;
use std::io::Read;

use garth_image::{ErrorKind, Format, Limits, import};
use tar::EntryType;

use crate::support::{Place, Tar, gzip, limits, refused, zstd};

fn escapes(tar: Tar, shown: &str) {
    refused(&tar.end(), |kind| matches!(kind, ErrorKind::Escape(_)), shown);
}

#[test]
fn a_path_cannot_leave_the_image() {
    escapes(Tar::new().file("../../etc/passwd", "x"), "../../etc/passwd");
    escapes(Tar::new().file("a/../../b", "x"), "leaves the image");
    escapes(Tar::new().file("/etc/passwd", "x"), "/etc/passwd");
    escapes(Tar::new().dir("/"), "leaves the image");
    escapes(Tar::new().pax(&[("path", b"../x")]).file("fine", "x"), "../x");
    escapes(Tar::new().file("./../x", "x"), "../x");
}

#[test]
fn a_path_through_a_link_cannot_leave_the_image() {
    escapes(Tar::new().symlink("out", "/etc").file("out/garth-probe", "x"), "out");
    escapes(Tar::new().symlink("out", "/").dir("out/x"), "out");
    escapes(Tar::new().dir("a").symlink("a/b", "..").symlink("a/c", "b/..").file("a/c/d/e", "x"), "a/c");
    escapes(Tar::new().symlink("loop", "loop").file("loop/x", "x"), "loop");
    assert!(!std::path::Path::new("/etc/garth-probe").exists());
}

#[test]
fn a_relative_link_cannot_point_out_of_the_image() {
    escapes(Tar::new().symlink("a/out", "../../../etc/passwd"), "a/out -> ../../../etc/passwd");
    escapes(Tar::new().symlink("out", ".."), "out -> ..");
}

#[test]
fn a_file_does_not_write_through_a_link_of_its_own_name() {
    let place = Place::new();
    let victim = place.root.parent().unwrap().join("victim");
    fs::write(&victim, "untouched").unwrap();
    let target = victim.to_str().unwrap();
    place.import(&Tar::new().symlink("f", target).file("f", "written").end()).unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(place.text("f"), "written");
}

#[test]
fn a_hard_link_cannot_name_a_file_of_the_host() {
    escapes(Tar::new().hardlink("shadow", "../../../../../../etc/shadow"), "etc/shadow");
    escapes(Tar::new().symlink("out", "/etc").hardlink("shadow", "out/shadow"), "out/shadow");
    let missing = |kind: &ErrorKind| matches!(kind, ErrorKind::Write(_));
    // From the image's own root: it has no such file.
    refused(&Tar::new().hardlink("shadow", "/etc/shadow").end(), missing, "shadow");
    refused(&Tar::new().dir("d").hardlink("again", "d").end(), missing, "again");
}

#[test]
fn device_nodes_are_refused() {
    for (kind, path, major, minor) in [
        (EntryType::Block, "sda", 8, 0),
        (EntryType::Char, "dev/mem", 1, 1),
        // The name of a harmless one, the number of another.
        (EntryType::Char, "dev/null", 1, 1),
        (EntryType::Char, "null", 1, 3),
        (EntryType::Block, "dev/null", 1, 3),
    ] {
        let tar = Tar::new().device(kind, path, major, minor).end();
        refused(&tar, |kind| *kind == ErrorKind::DeviceNode(path.to_owned()), path);
    }
}

#[test]
fn what_the_runtime_mounts_on_cannot_be_a_link() {
    for name in ["proc", "dev", "sys", "tmp", "etc", "run"] {
        let tar = Tar::new().symlink(name, "/usr").dir("usr").end();
        refused(&tar, |kind| matches!(kind, ErrorKind::BadDocument(_)), &format!("/{name}"));
    }
}

#[test]
fn a_stream_that_is_cut_off_is_refused_wherever_the_cut_is() {
    let whole = Tar::new().dir("a").file("a/f", vec![7; 3000]).file("b", "x").open();
    for cut in [0, 1, 100, 511, 512, 600, 1024, 2000, whole.len() - 1, whole.len()] {
        refused(&whole[..cut], |kind| *kind == ErrorKind::Truncated, "truncated");
    }
    for packed in [gzip(&Tar::new().file("b", "x").end()), zstd(&Tar::new().file("b", "x").end())] {
        for cut in [packed.len() / 2, packed.len() - 1] {
            refused(&packed[..cut], |kind| *kind == ErrorKind::Truncated, "truncated");
        }
    }
}

#[test]
fn damage_is_seen() {
    let mut tar = Tar::new().file("a", "x").file("b", "y").end();
    tar[1024 + 3] ^= 1;
    refused(&tar, |kind| *kind == ErrorKind::Truncated, "damaged");
    let mut packed = gzip(&Tar::new().file("a", vec![7; 5000]).end());
    let end = packed.len() - 6;
    packed[end] ^= 1;
    refused(&packed, |kind| *kind == ErrorKind::Truncated, "damaged");
    let mut packed = zstd(&Tar::new().file("a", vec![7; 5000]).end());
    let end = packed.len() - 1;
    packed[end] ^= 1;
    refused(&packed, |kind| *kind == ErrorKind::Truncated, "damaged");
}

#[test]
fn what_is_no_image_is_refused() {
    let unknown = |kind: &ErrorKind| matches!(kind, ErrorKind::UnknownFormat(_));
    refused(&[0; 1024], unknown, "empty");
    refused(&vec![b'x'; 4096], unknown, "does not begin as a tar does");
    refused(b"\x7fELF, not a tar, and long enough to be read as a block of one".repeat(20).as_slice(), unknown, "tar");
    refused(b"\xfd7zXZ\0 and so on", |kind| *kind == ErrorKind::Compression("xz"), "xz");
    refused(b"BZh91AY&SY", |kind| *kind == ErrorKind::Compression("bzip2"), "bzip2");
}

#[test]
fn a_bomb_of_bytes_is_refused() {
    let too_much = |kind: &ErrorKind| matches!(kind, ErrorKind::TooMuch { what: "bytes", .. });
    let mut tar = Tar::new();
    for n in 0..20 {
        tar = tar.file(&n.to_string(), vec![0; 1 << 20]);
    }
    let tar = tar.end();
    refused(&tar, too_much, "limit of 16777216 bytes");
    refused(&gzip(&tar), too_much, "bytes");
    refused(&zstd(&tar), too_much, "bytes");
}

#[test]
fn a_file_of_one_enormous_hole_is_refused() {
    let too_much = |kind: &ErrorKind| matches!(kind, ErrorKind::TooMuch { .. });
    let size: &[u8] = b"4611686018427387904";
    let tar = Tar::new().pax(&[("GNU.sparse.size", size), ("GNU.sparse.map", b"0,1")]).file("f", "x").end();
    refused(&tar, too_much, "bytes");
}

#[test]
fn a_map_of_holes_that_lies_is_refused() {
    let bad = |kind: &ErrorKind| matches!(kind, ErrorKind::BadDocument(_));
    for map in ["0,4", "8,1", "0,1,0,0", "5,1,2,0", "18446744073709551615,1", "1", "a,b", ""] {
        let records: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"8"), ("GNU.sparse.map", map.as_bytes())];
        refused(&Tar::new().pax(&records).file("f", "x").end(), bad, "sparse");
    }
    for map in ["9999999\n", "1\n0\n", "x\n"] {
        let records: [(&str, &[u8]); 3] =
            [("GNU.sparse.realsize", b"8"), ("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")];
        let mut content = map.as_bytes().to_vec();
        content.resize(512, 0);
        refused(&Tar::new().pax(&records).file("f", content).end(), bad, "sparse");
    }
}

#[test]
fn a_bomb_of_files_is_refused() {
    let tar = (0..2100).fold(Tar::new(), |tar, n| tar.file(&n.to_string(), "")).end();
    refused(&tar, |kind| matches!(kind, ErrorKind::TooMuch { what: "files", .. }), "limit of 2000 files");
}

#[test]
fn directories_too_deep_are_refused() {
    let deep = "d/".repeat(100);
    let tar = Tar::new().pax(&[("path", deep.as_bytes())]).dir("d").end();
    refused(&tar, |kind| matches!(kind, ErrorKind::TooMuch { .. }), "one in the other");
}

#[test]
fn a_header_that_claims_gigabytes_is_not_read_into_memory() {
    let too_much = |kind: &ErrorKind| matches!(kind, ErrorKind::TooMuch { .. });
    for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
        let tar = Tar::new().raw(Tar::header(kind, "x", 8 << 30), b"x").end();
        refused(&tar, too_much, "in one header");
    }
}

/// Zeros without end, and how many were read.
struct Zeros(u64);

impl Read for Zeros {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        buf.fill(0);
        self.0 += buf.len() as u64;
        Ok(buf.len())
    }
}

#[test]
fn a_stream_without_end_is_refused() {
    let place = Place::new();
    let tar = Tar::new().file("a", "x").end();
    let mut zeros = Zeros(0);
    let error = import(&mut tar.as_slice().chain(&mut zeros), Format::Auto, &place.root, &limits()).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooMuch { .. }), "{error}");
    assert!(zeros.0 < 100 << 20);
}

#[test]
fn a_compressed_bomb_is_refused_by_its_ratio() {
    // 1.2 GiB of zeros as one file, in 1.2 MiB of gzip.
    let header = Tar::new().raw(Tar::header(EntryType::Regular, "zeros", 2 << 30), b"").open();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::copy(&mut header.as_slice().chain(Zeros(0).take(1300 << 20)), &mut encoder).unwrap();
    let packed = encoder.finish().unwrap();
    let place = Place::new();
    let limits = Limits { bytes: 8 << 30, ..limits() };
    let error = import(&mut packed.as_slice(), Format::Auto, &place.root, &limits).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::TooMuch { what: "times its compressed size", .. }), "{error}");
}

#[test]
fn a_zstandard_frame_that_asks_for_terabytes_of_memory_is_refused() {
    // Magic, a descriptor without single segment, the largest window that the header can say.
    let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xff, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00];
    refused(&frame, |kind| *kind == ErrorKind::Truncated, "truncated or damaged");
}

#[test]
fn no_damage_to_an_image_panics_or_writes_outside() {
    let tar = Tar::new()
        .dir("a")
        .pax(&[("path", b"a/long"), ("GNU.sparse.size", b"9"), ("GNU.sparse.map", b"0,1,8,1")])
        .file("x", "yz")
        .symlink("a/l", "../b")
        .hardlink("h", "a/long")
        .file("b", vec![7; 600])
        .end();
    let images = [gzip(&tar), zstd(&tar), tar];
    // A fixed sequence (Knuth's MMIX constants): what fails once fails again.
    let mut state = 42u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for round in 0..600 {
        let mut bytes = images[round % images.len()].clone();
        for _ in 0..=next(4) {
            let at = next(bytes.len());
            bytes[at] = next(256) as u8;
            // Headers only pass with a true sum: make them true, so that what is behind is reached.
            if round % images.len() == 2 {
                for header in bytes.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
                    header[148..156].fill(b' ');
                    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
                    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
                }
            }
        }
        let place = Place::new();
        let _ = place.import(&bytes);
        assert_eq!(place.outside(), ["rootfs"], "round {round}");
    }
}

#[test]
fn a_full_disk_is_told_apart_from_a_bad_image() {
    let dir = tempfile::Builder::new().prefix("garth-image-").tempdir().unwrap();
    let flags = rustix::mount::MountFlags::empty();
    if let Err(error) = rustix::mount::mount("tmpfs", dir.path(), "tmpfs", flags, c"size=1m") {
        return println!("SKIP a_full_disk_is_told_apart_from_a_bad_image: mount: {error}");
    }
    let root = dir.path().join("rootfs");
    fs::create_dir(&root).unwrap();
    let big = Tar::new().file("big", vec![7; 2 << 20]).end();
    let plain = import(&mut big.as_slice(), Format::Auto, &root, &limits()).map_err(|error| error.kind().clone());
    let archive = Tar::new().file("manifest.json", vec![7; 2 << 20]).end();
    fs::remove_file(root.join("big")).unwrap();
    let spooled = import(&mut archive.as_slice(), Format::Auto, &root, &limits()).map_err(|error| error.kind().clone());
    let left = dir.path().join("scratch").exists();
    rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    assert_eq!((plain, spooled, left), (Err(ErrorKind::NoSpace), Err(ErrorKind::NoSpace), false));
}
