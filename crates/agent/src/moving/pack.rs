//! A tree into a stream, and its digest on the way.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use rustix::fs::{FileType, Statx};
use rustix::io::Errno;

use super::content::{extents, read};
use super::cursor::handle;
use super::digest::{BLOCK, Content, Digest, Hash, Summary};
use super::entry::{Entry, Kind, change_time, device, facts, file_type};
use super::same::{Spot, open};
use super::walk::{Found, Walk};
use super::writer::{Form, RUN_HEAD, Writer};
use super::{Scope, changed, shown};
use crate::refusal::{Kind as Refused, Refusal};
use crate::xattrs::Xattrs;

/// What is at one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Of all that a move would carry.
    pub summary: Summary,
    /// The mounts that stay out of it.
    pub mounts: Vec<Vec<u8>>,
}

/// Writes the tree. Whatever changes meanwhile is an error. It comes as the last entry, so that the receiver can say why
/// it refuses; without an end it takes nothing for whole.
pub fn pack(scope: &Scope, out: impl Write) -> io::Result<()> {
    let mut packer = Packer::to(out);
    match packer.all(scope) {
        Ok(summary) => packer.writer.end(&summary),
        Err(refusal) => packer.writer.failed(&refusal.message),
    }
}

/// Reads the tree again.
pub fn manifest(scope: &Scope) -> Result<Manifest, Refusal> {
    let mut packer = Packer::to(io::sink());
    let summary = packer.all(scope)?;
    Ok(Manifest { summary, mounts: packer.mounts })
}

struct Packer<W> {
    writer: Writer<W>,
    digest: Digest,
    content: Content,
    xattrs: Xattrs,
    piece: Vec<u8>,
    /// Files with several names of which not all came yet: how many are to come, and the first.
    links: HashMap<(u32, u32, u64), (u32, Vec<u8>)>,
    mounts: Vec<Vec<u8>>,
}

impl<W: Write> Packer<W> {
    fn to(out: W) -> Self {
        Self {
            writer: Writer::new(out),
            digest: Digest::default(),
            content: Content::new(),
            xattrs: Xattrs::new(),
            piece: vec![0; BLOCK],
            links: HashMap::new(),
            mounts: Vec::new(),
        }
    }

    fn all(&mut self, scope: &Scope) -> Result<Summary, Refusal> {
        let mut walk = Walk::new(scope)?;
        while let Some(found) = walk.next()? {
            let failed = |error: io::Error| Refusal::of(&error, shown(walk.path()));
            match found {
                Found::Here(stat) => self.file(&walk, &stat)?,
                Found::Mount(point) => {
                    self.mounts.push(walk.path().to_vec());
                    self.add(&Entry::bare(walk.path(), Kind::Mount(point))).map_err(failed)?;
                }
                Found::Deleted => self.add(&Entry::bare(walk.path(), Kind::Deleted)).map_err(failed)?,
            }
        }
        Ok(self.digest.summary())
    }

    /// An entry without content.
    fn add(&mut self, entry: &Entry) -> io::Result<()> {
        self.digest.add(entry, None);
        self.writer.entry(entry, Form::Whole)
    }

    fn file(&mut self, walk: &Walk<'_>, stat: &Statx) -> Result<(), Refusal> {
        let failed = |error: io::Error| match Errno::from_io_error(&error) {
            Some(Errno::NOENT | Errno::LOOP) => changed(walk.path()),
            _ if error.kind() == io::ErrorKind::UnexpectedEof => changed(walk.path()),
            _ => Refusal::of(&error, shown(walk.path())),
        };
        let spot = Spot { directory: walk.directory(), name: walk.name() };
        let kind = match file_type(stat) {
            FileType::Directory => Kind::Directory,
            _ if let Some(first) = self.first_name(stat, walk.path()) => {
                return self.add(&Entry::bare(walk.path(), Kind::Link(first))).map_err(failed);
            }
            FileType::RegularFile => Kind::File(stat.stx_size),
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(spot.directory, spot.name, Vec::new());
                Kind::Symlink(target.map_err(|error| failed(error.into()))?.into_bytes())
            }
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::Character(device(stat)),
            FileType::BlockDevice => Kind::Block(device(stat)),
            _ => {
                return Err(Refusal::new(
                    Refused::Failed,
                    format!("path '{}' is of an unknown kind", shown(walk.path())),
                ));
            }
        };
        let xattrs = self.xattrs.of(&handle(spot.directory, spot.name)).map_err(|error| failed(error.into()))?;
        let entry = Entry { path: walk.path().to_vec(), kind, facts: facts(stat), xattrs };
        if !matches!(entry.kind, Kind::File(_)) {
            return self.add(&entry).map_err(failed);
        }
        let file = open(spot).map_err(failed)?;
        let content = self.content(&entry, &file, stat).map_err(failed)?;
        self.digest.add(&entry, Some(&content));
        match unchanged(&file, stat) {
            true => Ok(()),
            false => Err(changed(walk.path())),
        }
    }

    /// The name under which the file came already, if it did.
    fn first_name(&mut self, stat: &Statx, path: &[u8]) -> Option<Vec<u8>> {
        if stat.stx_nlink < 2 {
            return None;
        }
        let key = (stat.stx_dev_major, stat.stx_dev_minor, stat.stx_ino);
        let Some((left, first)) = self.links.get_mut(&key) else {
            self.links.insert(key, (stat.stx_nlink - 1, path.to_vec()));
            return None;
        };
        let first = first.clone();
        *left -= 1;
        if *left == 0 {
            self.links.remove(&key);
        }
        Some(first)
    }

    fn content(&mut self, entry: &Entry, file: &File, stat: &Statx) -> io::Result<Hash> {
        let size = stat.stx_size;
        let Self { writer, content, piece, .. } = self;
        let form = if stat.stx_blocks * 512 < size { form(file, size)? } else { Form::Whole };
        writer.entry(entry, form)?;
        match form {
            Form::Whole => read(file, 0..size, piece, |at, data| {
                content.add(at, data);
                writer.data(data)
            })?,
            Form::Runs(taken) => {
                let mut sent = 0;
                extents(file, size, |run| {
                    sent += RUN_HEAD + (run.end - run.start);
                    if sent > taken {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    writer.run(run.start, run.end - run.start)?;
                    read(file, run, piece, |at, data| {
                        content.add(at, data);
                        writer.data(data)
                    })
                })?;
                if sent != taken {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        Ok(content.finish())
    }
}

/// The header says how much comes, so the runs are counted first, and not kept: a file may have millions.
fn form(file: &File, size: u64) -> io::Result<Form> {
    let (mut taken, mut data) = (0, 0);
    extents(file, size, |run| {
        taken += RUN_HEAD + (run.end - run.start);
        data += run.end - run.start;
        Ok(())
    })?;
    Ok(if data == size { Form::Whole } else { Form::Runs(taken) })
}

fn unchanged(file: &File, before: &Statx) -> bool {
    let now =
        rustix::fs::statx(file, Path::new(""), rustix::fs::AtFlags::EMPTY_PATH, rustix::fs::StatxFlags::BASIC_STATS);
    // A file that is written to, or put in another's place, has another change time.
    now.is_ok_and(|now| now.stx_ino == before.stx_ino && change_time(&now) == change_time(before))
}
