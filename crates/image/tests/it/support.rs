use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use garth_image::{Error, ErrorKind, Format, Imported, Limits, import};
use sha2::{Digest, Sha256};
use tar::{EntryType, Header};

/// A tar being written, member by member, with nothing checked: the `tar` crate's own builder refuses
/// to write what attackers write.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn header(kind: EntryType, path: &str, size: usize) -> Header {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header
    }

    pub fn raw(mut self, mut header: Header, content: &[u8]) -> Self {
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.raw(Self::header(EntryType::Regular, path, content.len()), content)
    }

    pub fn dir(self, path: &str) -> Self {
        let mut header = Self::header(EntryType::Directory, path, 0);
        header.set_mode(0o755);
        self.raw(header, b"")
    }

    pub fn link(self, kind: EntryType, path: &str, target: &str) -> Self {
        let mut header = Self::header(kind, path, 0);
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        self.raw(header, b"")
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Symlink, path, target)
    }

    pub fn hardlink(self, path: &str, target: &str) -> Self {
        self.link(EntryType::Link, path, target)
    }

    pub fn device(self, kind: EntryType, path: &str, major: u32, minor: u32) -> Self {
        let mut header = Self::header(kind, path, 0);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        self.raw(header, b"")
    }

    /// An extended header for the next member.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (name, value) in records {
            let body = [format!(" {name}=").as_bytes(), value, b"\n"].concat();
            let digits = (1..8).find(|digits| (body.len() + digits).to_string().len() == *digits).unwrap();
            text.extend_from_slice((body.len() + digits).to_string().as_bytes());
            text.extend_from_slice(&body);
        }
        self.raw(Self::header(EntryType::XHeader, "pax", text.len()), &text)
    }

    /// Members without the end.
    pub fn open(self) -> Vec<u8> {
        self.0
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    ruzstd::encoding::compress_to_vec(bytes, ruzstd::encoding::CompressionLevel::Fastest)
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An image's directory, inside a directory that plays the draft.
pub struct Place {
    dir: tempfile::TempDir,
    pub root: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("garth-image-").tempdir().unwrap();
        let root = dir.path().join("rootfs");
        fs::create_dir(&root).unwrap();
        Self { dir, root }
    }

    pub fn import(&self, bytes: &[u8]) -> Result<Imported, Error> {
        self.import_as(bytes, Format::Auto)
    }

    pub fn import_as(&self, bytes: &[u8], format: Format) -> Result<Imported, Error> {
        let done = import(&mut &bytes[..], format, &self.root, &limits());
        assert!(!self.dir.path().join("scratch").exists(), "blobs were left behind");
        done
    }

    pub fn text(&self, path: &str) -> String {
        fs::read_to_string(self.root.join(path)).unwrap()
    }

    pub fn has(&self, path: &str) -> bool {
        fs::symlink_metadata(self.root.join(path)).is_ok()
    }

    /// What is around the root: the draft's directory, in which nothing else may appear.
    pub fn outside(&self) -> Vec<String> {
        names(self.dir.path())
    }
}

pub fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Small, so that bombs are small.
pub fn limits() -> Limits {
    Limits { bytes: 16 << 20, entries: 2000, ratio: 200, depth: 64 }
}

/// The import fails in this way, with a message that says so, and writes nothing outside of the root.
#[track_caller]
pub fn refused(bytes: &[u8], matches: impl Fn(&ErrorKind) -> bool, message: &str) {
    let place = Place::new();
    let error = place.import(bytes).expect_err("it was taken");
    assert!(matches(error.kind()), "{error:?}");
    assert!(error.to_string().contains(message), "{error}");
    assert_eq!(place.outside(), ["rootfs"]);
}
