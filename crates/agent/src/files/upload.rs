//! `POST /files`: files that appear whole or not at all, with their missing parents.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use flate2::read::GzDecoder;
use garth_kernel::supervise::Identity;
use http::{HeaderMap, header};
use http_body::Body;
use rustix::fs::{Gid, Mode, OFlags, Uid, XattrFlags};

use super::multipart::{Parts, boundary};
use super::{METADATA, part_name};
use crate::paths::absolute;
use crate::refusal::{Kind, Refusal};
use crate::transfer::{Incoming, PIECE, incoming};
use crate::users::User;

/// The longest name and the most bytes of metadata (E2B's limits; a file's attributes have to fit into its inode).
const LONGEST_KEY: usize = 246;
const MOST_METADATA: usize = 4096;
/// The header that carries one piece of metadata.
const METADATA_HEADER: &str = "x-metadata-";

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Where it is.
    pub path: PathBuf,
    /// What was kept with it.
    pub metadata: Vec<(String, String)>,
}

/// How the body is to be read, and where it goes.
#[derive(Debug)]
struct Order {
    path: Option<PathBuf>,
    user: User,
    boundary: Option<String>,
    compressed: Compressed,
    metadata: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compressed {
    No,
    Gzip,
}

/// Writes what the body holds: one raw file at `path`, or the files of a form, at `path` or at the names they bring.
pub async fn upload<B>(path: Option<String>, user: User, headers: &HeaderMap, body: B) -> Result<Vec<Written>, Refusal>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin,
{
    let order = order(path, user, headers)?;
    let written = incoming(body, move |incoming| order.carry_out(incoming)).await;
    written.map_err(|error| Refusal::new(Kind::Failed, error.to_string()))?
}

fn order(path: Option<String>, user: User, headers: &HeaderMap) -> Result<Order, Refusal> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("");
    let compressed = match text(header::CONTENT_ENCODING) {
        "" | "identity" => Compressed::No,
        "gzip" => Compressed::Gzip,
        other => return Err(Refusal::invalid(format!("content encoding {other:?} is not known"))),
    };
    let boundary = boundary(text(header::CONTENT_TYPE));
    let path = path.filter(|path| !path.is_empty()).map(|path| absolute(&path, &user)).transpose()?;
    if boundary.is_none() && path.is_none() {
        return Err(Refusal::invalid("path is required for a body that is no multipart form"));
    }
    Ok(Order { path, user, boundary, compressed, metadata: metadata(headers)? })
}

fn metadata(headers: &HeaderMap) -> Result<Vec<(String, String)>, Refusal> {
    let mut found = Vec::new();
    let mut total = 0;
    for (name, value) in headers {
        let Some(key) = name.as_str().strip_prefix(METADATA_HEADER) else { continue };
        let value = value.to_str().map_err(|_| Refusal::invalid(format!("metadata {key:?} is not printable ASCII")))?;
        total += key.len() + value.len();
        if key.is_empty() || key.len() > LONGEST_KEY || total > MOST_METADATA {
            return Err(Refusal::invalid("metadata is limited to 246 bytes per key and 4096 bytes in all"));
        }
        found.push((key.to_owned(), value.to_owned()));
    }
    Ok(found)
}

impl Order {
    fn carry_out(self, incoming: Incoming) -> Result<Vec<Written>, Refusal> {
        match self.compressed {
            Compressed::No => self.read(BufReader::with_capacity(PIECE, incoming)),
            Compressed::Gzip => self.read(BufReader::with_capacity(PIECE, GzDecoder::new(incoming))),
        }
    }

    fn read(&self, mut reader: BufReader<impl Read>) -> Result<Vec<Written>, Refusal> {
        let Some(boundary) = &self.boundary else {
            let path = self.path.clone().ok_or_else(|| Refusal::invalid("path is required"))?;
            return Ok(vec![self.write(path, &mut reader)?]);
        };
        let mut parts = Parts::new(reader, boundary);
        let mut written = Vec::new();
        while let Some(head) = parts.next().map_err(|error| damaged(&error))? {
            let mut content = parts.content();
            if head.name != "file" {
                io::copy(&mut content, &mut io::sink()).map_err(|error| damaged(&error))?;
                continue;
            }
            let path = match (&self.path, head.file_name) {
                (Some(_), _) if !written.is_empty() => {
                    return Err(Refusal::invalid("a path was given, and several files"));
                }
                (Some(path), _) => path.clone(),
                (None, Some(name)) => absolute(&name, &self.user)?,
                (None, None) => return Err(Refusal::invalid("a file without a name")),
            };
            written.push(self.write(path, &mut content)?);
        }
        if written.is_empty() { Err(Refusal::invalid("no file in the form")) } else { Ok(written) }
    }

    fn write(&self, path: PathBuf, content: &mut impl Read) -> Result<Written, Refusal> {
        // A link is written through, as by open(2); what it leads to is replaced.
        let target = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
        let before = fs::metadata(&target).ok();
        if before.as_ref().is_some_and(|metadata| !metadata.is_file()) {
            return Err(Refusal::invalid(format!("path '{}' is not a regular file", path.display())));
        }
        let (parent, Some(name)) = (target.parent().unwrap_or(Path::new("/")), target.file_name()) else {
            return Err(Refusal::invalid(format!("path '{}' is a directory", path.display())));
        };
        make_directories(parent, &self.user.identity)?;
        let part = Part { path: parent.join(part_name()) };
        let refused = |error: io::Error| Refusal::of(&error, path.display());
        let mut file = part.create().map_err(refused)?;
        copy(content, &mut file, &path)?;
        self.dress(&file, before.as_ref()).map_err(refused)?;
        // On disk before it has its name: after a crash there is the old file or the new one.
        file.sync_all().map_err(refused)?;
        part.rename(&parent.join(name)).map_err(refused)?;
        Ok(Written { path, metadata: self.metadata.clone() })
    }

    /// A file that was there keeps its owner and mode; a new one is the user's.
    fn dress(&self, file: &File, before: Option<&fs::Metadata>) -> io::Result<()> {
        let Identity { uid, gid, .. } = self.user.identity;
        let (uid, gid, mode) = before.map_or((uid, gid, 0o644), |m| (m.uid(), m.gid(), m.mode() & 0o7777));
        rustix::fs::fchown(file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
        for (key, value) in &self.metadata {
            rustix::fs::fsetxattr(file, format!("{METADATA}{key}"), value.as_bytes(), XattrFlags::empty())?;
        }
        Ok(())
    }
}

fn damaged(error: &io::Error) -> Refusal {
    Refusal::invalid(format!("the body is damaged or was cut off: {error}"))
}

/// Tells an error of reading from one of writing: the one is the client's, the other the disk's.
fn copy(content: &mut impl Read, file: &mut File, path: &Path) -> Result<(), Refusal> {
    let mut piece = vec![0u8; PIECE];
    loop {
        let mut count = 0;
        while count < PIECE {
            match content.read(&mut piece[count..]) {
                Ok(0) => break,
                Ok(more) => count += more,
                Err(error) => return Err(damaged(&error)),
            }
        }
        if count == 0 {
            return Ok(());
        }
        file.write_all(&piece[..count]).map_err(|error| Refusal::of(&error, path.display()))?;
    }
}

/// Makes missing directories; they are the user's.
pub fn make_directories(path: &Path, owner: &Identity) -> Result<(), Refusal> {
    let refused = |error: io::Error| Refusal::of(&error, path.display());
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => return Err(Refusal::invalid(format!("path '{}' is not a directory", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused(error)),
    }
    if let Some(parent) = path.parent() {
        make_directories(parent, owner)?;
    }
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        other => other.map_err(refused)?,
    }
    std::os::unix::fs::lchown(path, Some(owner.uid), Some(owner.gid)).map_err(refused)
}

/// A file under a name of its own, removed unless renamed.
struct Part {
    path: PathBuf,
}

impl Part {
    fn create(&self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(rustix::fs::open(&self.path, flags, Mode::from_raw_mode(0o600))?))
    }

    fn rename(self, target: &Path) -> io::Result<()> {
        fs::rename(&self.path, target)?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}
