use std::io::Write as _;

use super::*;

/// An ELF64 header for x86-64 without sections, and a banner.
fn vmlinux(machine: u16) -> Vec<u8> {
    let mut bytes = vec![0; 64];
    bytes[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    bytes[16..18].copy_from_slice(&2u16.to_le_bytes());
    bytes[18..20].copy_from_slice(&machine.to_le_bytes());
    bytes[20] = 1;
    bytes[52] = 64;
    bytes.extend_from_slice(b"..Linux version %s..Linux version 6.12.1-test (someone) #1 SMP\0");
    bytes.resize(100_000, 7);
    bytes
}

/// A setup header and a payload behind `sectors` sectors and 100 bytes of the decompressor.
fn bzimage(sectors: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; (usize::from(sectors) + 1) * 512 + 100];
    bytes[0x1f1] = sectors;
    bytes[0x202..0x206].copy_from_slice(b"HdrS");
    bytes[0x248..0x24c].copy_from_slice(&100u32.to_le_bytes());
    bytes[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(&[0x90; 300]);
    bytes
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).expect("write");
    encoder.finish().expect("gzip")
}

fn read(bytes: &[u8]) -> Result<Kernel, Error> {
    let mut file = tempfile::NamedTempFile::new().expect("file");
    file.write_all(bytes).expect("write");
    Kernel::read(file.path())
}

#[test]
fn a_bzimage_gives_the_elf_file_in_it() {
    let content = vmlinux(62);
    for sectors in [4, 39] {
        let kernel = read(&bzimage(sectors, &gzip(&content))).expect("kernel");
        assert!(kernel.vmlinux == content);
        assert_eq!(kernel.release, "6.12.1-test");
        assert!(!kernel.has_pvh);
    }
    assert!(read(&bzimage(4, &content)).expect("not compressed").vmlinux == content);
    assert!(read(&content).expect("vmlinux").vmlinux == content);
}

#[test]
fn a_wrong_file_is_named_for_what_it_is() {
    let check = |bytes: &[u8], expected: &str| {
        let error = read(bytes).expect_err("no kernel");
        assert!(matches!(error.kind(), ErrorKind::NotAKernel { .. }), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint().expect("hint").contains("bzImage"));
    };
    check(b"", "empty");
    check(b"!<arch>\ndebian-binary", "a Debian package");
    check(b"070701000000", "an initramfs");
    check(&gzip(b"text"), "a compressed file");
    check(b"#!/bin/sh\n", "of no known format");
    check(&vmlinux(62)[..40], "a damaged ELF file");
    let mut program = vmlinux(62);
    program.truncate(64);
    check(&program, "a program");
    let error = Kernel::read(Path::new("/")).expect_err("no kernel");
    assert!(error.to_string().contains("a directory"), "{error}");
}

#[test]
fn a_kernel_for_another_processor_is_refused() {
    assert!(matches!(read(&vmlinux(183)).expect_err("aarch64").kind(), ErrorKind::OtherMachine(_)));
}

#[test]
fn a_bzimage_that_ends_early_is_damaged() {
    let whole = bzimage(4, &gzip(&vmlinux(62)));
    for length in [0x249, 0x600, whole.len() - 350] {
        let error = read(&whole[..length]).expect_err("damaged");
        assert!(matches!(error.kind(), ErrorKind::Truncated(_)), "{length}: {error}");
    }
}

#[test]
fn a_compression_that_we_cannot_undo_is_named() {
    let error = read(&bzimage(4, b"BZh91AY&SY")).expect_err("bzip2");
    assert!(error.to_string().contains("bzip2"), "{error}");
}
