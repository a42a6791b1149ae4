use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Limits;
use super::archive::{Archive, Kind, Member};
use super::source::hex;
use crate::error::{Error, ErrorKind};

/// Blobs one archive may have; a layer is one.
const MOST_BLOBS: usize = 4096;
/// A manifest, index or configuration above this is none.
const LARGEST_DOCUMENT: u64 = 4 << 20;

/// The files of an image archive, kept under numbers of our own: no name in the archive becomes a path.
pub(super) struct Spool<'a> {
    dir: PathBuf,
    limits: &'a Limits,
    bytes: u64,
    blobs: HashMap<String, Blob>,
    /// Old `docker save` wrote a layer that two images share once, and a link to it.
    links: HashMap<String, String>,
}

/// One file of the archive.
#[derive(Debug, Clone)]
pub(super) struct Blob {
    pub(super) file: PathBuf,
    /// Its SHA-256 in hexadecimal.
    pub(super) digest: String,
    size: u64,
}

/// Does an archive with such a first member hold an image in an archive, rather than a root filesystem?
pub(super) fn is_archive_name(path: &[u8]) -> bool {
    let path = String::from_utf8_lossy(path);
    let top = path.trim_start_matches("./").split('/').next().unwrap_or_default();
    let stem = top.strip_prefix("sha256:").unwrap_or(top);
    let digest = stem.split('.').next().unwrap_or_default();
    matches!(top, "blobs" | "index.json" | "manifest.json" | "oci-layout" | "repositories") || is_digest(digest)
}

pub(super) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

impl<'a> Spool<'a> {
    pub(super) fn create(dir: &Path, limits: &'a Limits) -> Result<Self, Error> {
        fs::DirBuilder::new().mode(0o700).create(dir).map_err(|error| Error::write(dir, error))?;
        Ok(Self { dir: dir.to_owned(), limits, bytes: 0, blobs: HashMap::new(), links: HashMap::new() })
    }

    /// Keeps one member.
    pub(super) fn add<R: Read>(&mut self, member: &Member, archive: &mut Archive<R>) -> Result<(), Error> {
        let name = clean(&member.path);
        if self.blobs.len() + self.links.len() >= MOST_BLOBS {
            return Err(Error::new(ErrorKind::TooMuch { what: "blobs", limit: MOST_BLOBS as u64 }));
        }
        match member.kind {
            Kind::File => {
                let blob = self.keep(archive.content())?;
                self.blobs.insert(name, blob);
            }
            Kind::Hardlink => drop(self.links.insert(name, clean(&member.link))),
            Kind::Symlink => {
                let dir = name.rsplit_once('/').map_or("", |(dir, _)| dir);
                let target = format!("{dir}/{}", String::from_utf8_lossy(&member.link));
                self.links.insert(name, clean(target.as_bytes()));
            }
            Kind::Directory => {}
            Kind::Fifo | Kind::CharDevice(..) | Kind::BlockDevice => {
                return Err(Error::new(ErrorKind::DeviceNode(name)));
            }
        }
        Ok(())
    }

    /// The file of this name.
    pub(super) fn blob(&self, name: &str) -> Option<&Blob> {
        let name = clean(name.as_bytes());
        self.blobs.get(&name).or_else(|| self.blobs.get(self.links.get(&name)?))
    }

    /// The file of this name as JSON.
    pub(super) fn document<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(blob) = self.blob(name) else { return Ok(None) };
        if blob.size > LARGEST_DOCUMENT {
            return Err(Error::new(ErrorKind::TooMuch { what: "bytes in one document", limit: LARGEST_DOCUMENT }));
        }
        let text = fs::read(&blob.file).map_err(|error| Error::write(&blob.file, error))?;
        let parsed = serde_json::from_slice(&text);
        parsed.map(Some).map_err(|error| Error::new(ErrorKind::BadDocument(name.to_owned())).because(error))
    }

    fn keep(&mut self, content: &mut impl Read) -> Result<Blob, Error> {
        let file = self.dir.join(self.blobs.len().to_string());
        let mut out = create(&file)?;
        let mut hash = Sha256::new();
        let mut size = 0;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = content.read(&mut buffer)?;
            if count == 0 {
                return Ok(Blob { file, digest: hex(&hash.finalize()), size });
            }
            size += count as u64;
            self.bytes += count as u64;
            if self.bytes > self.limits.bytes {
                return Err(Error::new(ErrorKind::TooMuch { what: "bytes", limit: self.limits.bytes }));
            }
            hash.update(&buffer[..count]);
            out.write_all(&buffer[..count]).map_err(|error| Error::write(&file, error))?;
        }
    }
}

fn create(path: &Path) -> Result<File, Error> {
    // A name that comes twice in the archive has the same number: the later one counts.
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.map_err(|error| Error::write(path, error))
}

/// A name in the archive without `.`, `..` and double slashes; only ever compared with others.
fn clean(path: &[u8]) -> String {
    let path = String::from_utf8_lossy(path);
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
