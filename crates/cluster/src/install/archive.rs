//! An image from nothing, in the archive format of `docker save` (moby `image/spec/spec.md`, v1.2).

use std::io;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};

/// An image of one layer with these programs at its root.
///
/// # Errors
/// When the archive does not fit into memory.
pub fn image(name: &str, programs: &[(&str, &[u8])]) -> io::Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    directory(&mut layer, "tmp/", 0o1777)?;
    directory(&mut layer, "bin/", 0o755)?;
    for (name, program) in programs {
        file(&mut layer, name, 0o755, program)?;
    }
    let layer = layer.into_inner()?;
    let digest = hex(&layer);
    let config = json!({
        "architecture": match std::env::consts::ARCH { "aarch64" => "arm64", "x86_64" => "amd64", other => other },
        "os": "linux",
        "config": { "Env": ["PATH=/bin"], "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    let config = serde_json::to_vec(&config)?;
    let config_name = format!("{}.json", hex(&config));
    let layer_name = format!("{digest}/layer.tar");
    let manifest = json!([{ "Config": config_name, "RepoTags": [name], "Layers": [layer_name] }]);
    let mut archive = Builder::new(Vec::new());
    file(&mut archive, &config_name, 0o644, &config)?;
    file(&mut archive, &layer_name, 0o644, &layer)?;
    file(&mut archive, "manifest.json", 0o644, &serde_json::to_vec(&manifest)?)?;
    archive.into_inner()
}

/// Whether an ELF program names an interpreter (elf(5), PT_INTERP); also when it is no 64-bit ELF of this byte order.
pub fn needs_loader(program: &[u8]) -> bool {
    let number = |at: usize, size: usize| {
        let bytes = program.get(at..at + size)?;
        Some(bytes.iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte)))
    };
    let interpreter = || {
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let kind = |index: u64| number(usize::try_from(start + index * size).ok()?, 4);
        (0..count).map(kind).collect::<Option<Vec<_>>>()
    };
    // ELFCLASS64, ELFDATA2LSB.
    !program.starts_with(b"\x7fELF\x02\x01") || interpreter().is_none_or(|kinds| kinds.contains(&3))
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file(archive: &mut Builder<Vec<u8>>, name: &str, mode: u32, content: &[u8]) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    archive.append_data(&mut header, name, content)
}

fn directory(archive: &mut Builder<Vec<u8>>, name: &str, mode: u32) -> io::Result<()> {
    let mut header = Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_mode(mode);
    header.set_size(0);
    archive.append_data(&mut header, name, io::empty())
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_archive_names_what_it_holds() {
        let archive = image("garth:latest", &[("garth-agent", b"program")]).expect("archive");
        let mut manifest = String::new();
        for entry in tar::Archive::new(&archive[..]).entries().expect("entries") {
            let mut entry = entry.expect("entry");
            if entry.path().expect("path").ends_with("manifest.json") {
                entry.read_to_string(&mut manifest).expect("manifest");
            }
        }
        let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
        assert_eq!(manifest[0]["RepoTags"][0], "garth:latest");
        let names: Vec<_> = tar::Archive::new(&archive[..])
            .entries()
            .expect("entries")
            .map(|entry| entry.expect("entry").path().expect("path").display().to_string())
            .collect();
        for named in [&manifest[0]["Config"], &manifest[0]["Layers"][0]] {
            assert!(names.iter().any(|name| named == name), "{named} is not in {names:?}");
        }
    }

    #[test]
    fn a_program_that_needs_a_loader_is_known() {
        assert!(needs_loader(&std::fs::read("/proc/self/exe").expect("this test")));
        assert!(needs_loader(b"#!/bin/sh\n"));
        assert!(needs_loader(b"\x7fELF\x02\x01"));
    }
}
