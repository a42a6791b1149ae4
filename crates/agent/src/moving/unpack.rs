//! A stream into a tree. Nothing outside of its root is touched, whatever the stream says and whatever is there: every
//! step is one name from an open directory, and no step follows a link or leaves the mount, but for the base's.

mod place;

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::io::Errno;

use super::cursor::{Cursor, Mounts, stat};
use super::digest::{BLOCK, Content, Digest, Summary};
use super::entry::{Entry, facts};
use super::reader::{Body, Item, Reader, damaged};
use super::{Scope, refused, shown};
use crate::facts::Facts;
use crate::refusal::{Kind as Refused, Refusal};
use crate::xattrs::Xattrs;

/// So many of what could not be made are named.
const NAMED: usize = 1000;

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// Of all that was sent, as the source says too.
    pub sent: Summary,
    /// Of what is here now: without what could not be made, and what lies under a mount of this end.
    pub kept: Summary,
    /// What could not be made, the first of it by name.
    pub skipped: Vec<Skipped>,
    /// How much.
    pub skipped_count: u64,
    /// Mounts of either end: a manifest here is to omit them.
    pub mounts: Vec<Vec<u8>>,
}

/// Something that this end may not make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    pub path: Vec<u8>,
    /// `device`, `link` (to one), or the name of an attribute.
    pub what: String,
}

/// Unpacks, and has all of it on disk. After an error the tree is half of something, for its owner to throw away.
pub fn unpack(stream: impl Read, scope: &Scope) -> Result<Received, Refusal> {
    let mut unpacker = Unpacker::at(scope)?;
    let mut reader = Reader::new(stream);
    loop {
        match reader.next()? {
            Item::Entry(entry, body) => unpacker.add(entry, body, &mut reader)?,
            Item::End(expected) => {
                let received = unpacker.finish()?;
                let is_all = expected.is(&received.sent);
                return if is_all { Ok(received) } else { Err(damaged("its digest is not what came")) };
            }
        }
    }
}

struct Unpacker<'a> {
    scope: &'a Scope,
    root: OwnedFd,
    cursor: Cursor,
    /// Directories that the cursor is in: the length of each path, and what becomes of it at the end.
    frames: Vec<(usize, Dress)>,
    /// The path of the directory that the cursor is at.
    path: Vec<u8>,
    previous: Option<Vec<u8>>,
    /// Filesystems that were written to: the root's, and the base's.
    written: Vec<OwnedFd>,
    sent: Digest,
    kept: Digest,
    content: Content,
    xattrs: Xattrs,
    piece: Vec<u8>,
    received: Tally,
}

#[derive(Default)]
struct Tally {
    skipped: Vec<Skipped>,
    count: u64,
    mounts: Vec<Vec<u8>>,
    /// What is not here; more names of it cannot be either.
    missing: HashSet<Vec<u8>>,
}

/// What a directory gets when nothing more comes for it: what is put into it changes its time.
#[derive(Debug, Clone, Copy)]
enum Dress {
    /// It came.
    Came(Facts),
    /// It only had something put into it: its time stays as it was.
    Before(Facts),
}

impl<'a> Unpacker<'a> {
    fn at(scope: &'a Scope) -> Result<Self, Refusal> {
        let of = |error: std::io::Error| Refusal::of(&error, scope.root.display());
        let cursor = Cursor::at(&scope.root).map_err(of)?;
        let root = cursor.directory().try_clone_to_owned().map_err(of)?;
        let before = stat(&root, OsStr::new(".")).map_err(|error| refused(error, b""))?;
        let written = vec![root.try_clone().map_err(of)?];
        Ok(Self {
            scope,
            root,
            cursor,
            frames: vec![(0, Dress::Before(facts(&before)))],
            path: Vec::new(),
            previous: None,
            written,
            sent: Digest::default(),
            kept: Digest::default(),
            content: Content::new(),
            xattrs: Xattrs::new(),
            piece: vec![0; BLOCK],
            received: Tally::default(),
        })
    }

    fn add(&mut self, entry: Entry, body: Body, reader: &mut Reader<impl Read>) -> Result<(), Refusal> {
        if self.previous.as_ref().is_some_and(|previous| !comes_before(previous, &entry.path)) {
            return Err(damaged("its entries are out of order"));
        }
        self.previous = Some(entry.path.clone());
        if entry.path.is_empty() {
            return self.root(entry);
        }
        let (parent, name) = parted(&entry.path);
        let (parent, name) = (parent.to_vec(), OsStr::from_bytes(name).to_owned());
        self.go_to(&parent)?;
        self.place(entry, &name, body, reader).map_err(|refusal| match refusal.kind {
            // What was asked for is there; something in it went away.
            Refused::NotFound => Refusal::new(Refused::Failed, refusal.message),
            _ => refusal,
        })
    }

    /// Moves the cursor to the directory `path`; those it leaves for good get what they are to have.
    fn go_to(&mut self, path: &[u8]) -> Result<(), Refusal> {
        while !is_above(&self.path, path) {
            self.leave()?;
        }
        while self.path.len() < path.len() {
            let start = if self.path.is_empty() { 0 } else { self.path.len() + 1 };
            let end = path[start..].iter().position(|byte| *byte == b'/').map_or(path.len(), |at| start + at);
            self.go_into(&path[start..end], &path[..end], None)?;
        }
        Ok(())
    }

    fn go_into(&mut self, name: &[u8], path: &[u8], dress: Option<Dress>) -> Result<(), Refusal> {
        let top = self.scope.is_base(path);
        let mounts = if top { Mounts::Enter } else { Mounts::Refuse };
        self.cursor.down(OsStr::from_bytes(name), mounts).map_err(|error| match error {
            Errno::XDEV => {
                Refusal::new(Refused::Exists, format!("path '{}' is a mount here, and is not moved to", shown(path)))
            }
            Errno::LOOP | Errno::NOTDIR => {
                Refusal::invalid(format!("path '{}' leads through a link or file", shown(path)))
            }
            _ => refused(error, path),
        })?;
        let before = stat(self.cursor.directory(), OsStr::new(".")).map_err(|error| refused(error, path))?;
        if top {
            let directory = self.cursor.directory().try_clone_to_owned();
            self.written.push(directory.map_err(|error| Refusal::of(&error, shown(path)))?);
        }
        self.path = path.to_vec();
        self.frames.push((path.len(), dress.unwrap_or(Dress::Before(facts(&before)))));
        Ok(())
    }

    fn leave(&mut self) -> Result<(), Refusal> {
        let Some((length, dress)) = self.frames.pop() else { return Ok(()) };
        let path = self.path[..length].to_vec();
        let failed = |error: Errno| refused(error, &path);
        let directory = self.cursor.directory().try_clone_to_owned();
        let directory = directory.map_err(|error| Refusal::of(&error, shown(&path)))?;
        match dress {
            Dress::Before(facts) => facts.date(&directory).map_err(failed)?,
            Dress::Came(facts) => facts.dress(&directory).map_err(failed)?,
        }
        if let Some((length, _)) = self.frames.last() {
            self.path.truncate(*length);
            self.cursor.up().map_err(failed)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Received, Refusal> {
        while !self.frames.is_empty() {
            self.leave()?;
        }
        for filesystem in &self.written {
            rustix::fs::syncfs(filesystem).map_err(|error| refused(error, b""))?;
        }
        let Tally { skipped, count, mounts, .. } = self.received;
        Ok(Received { sent: self.sent.summary(), kept: self.kept.summary(), skipped, skipped_count: count, mounts })
    }
}

/// The order of a walk: name by name, and not as one text.
fn comes_before(one: &[u8], other: &[u8]) -> bool {
    let names = |path| <[u8]>::split(path, |byte: &u8| *byte == b'/');
    other != one && (one.is_empty() || (!other.is_empty() && names(one).lt(names(other))))
}

/// A path's directory and its last name.
fn parted(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        None => (b"", path),
        Some(at) => (&path[..at], &path[at + 1..]),
    }
}

/// Whether `directory` is `path` or above it.
fn is_above(directory: &[u8], path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(directory) else { return false };
    directory.is_empty() || rest.is_empty() || rest.starts_with(b"/")
}
