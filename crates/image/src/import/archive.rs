//! The members of a tar stream: ustar, GNU and pax, one at a time, in bounded memory.
//!
//! Headers are parsed by the `tar` crate; its own reader of archives is not used, for it reads a long
//! name or an extended header of any size into memory, and splits pax records at newlines, which
//! binary values such as `security.capability` hold.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::pax::Records;
use super::sparse::{self, Sparse};
use crate::error::{Error, ErrorKind};

const BLOCK: u64 = 512;
/// Extended headers and long names above this are attacks.
const LONGEST_EXTENSION: u64 = 1 << 20;
/// Writers fill the last record with zeros; more than this is no filling.
const LONGEST_END: u64 = 64 << 20;

/// What a member is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Symlink,
    Hardlink,
    Fifo,
    CharDevice(u32, u32),
    BlockDevice,
}

/// One member, without its content.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) kind: Kind,
    /// As written: it may be absolute, hold `..`, anything.
    pub(super) path: Vec<u8>,
    /// What a link points to.
    pub(super) link: Vec<u8>,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds.
    pub(super) modified: (i64, u32),
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<Sparse>,
}

/// A tar stream.
pub(super) struct Archive<R> {
    stored: Stored<R>,
    begun: bool,
    ended: bool,
}

/// The stored bytes of the current member.
pub(super) struct Stored<R> {
    reader: R,
    left: u64,
    padding: u64,
}

impl<R: Read> Stored<R> {
    /// Bytes not read yet.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// One block that is part of the header, not of the content.
    pub(super) fn read_block(&mut self, block: &mut [u8]) -> Result<(), Error> {
        Ok(self.reader.read_exact(block)?)
    }

    fn begin(&mut self, size: u64) {
        self.left = size;
        self.padding = (BLOCK - size % BLOCK) % BLOCK;
    }

    fn skip(&mut self) -> io::Result<()> {
        let rest = self.left.saturating_add(self.padding);
        let skipped = io::copy(&mut self.reader.by_ref().take(rest), &mut io::sink())?;
        (self.left, self.padding) = (0, 0);
        if skipped == rest { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn read_whole(&mut self) -> Result<Vec<u8>, Error> {
        if self.left > LONGEST_EXTENSION {
            return Err(Error::new(ErrorKind::TooMuch { what: "bytes in one header", limit: LONGEST_EXTENSION }));
        }
        let mut whole = vec![0; usize::try_from(self.left).unwrap_or_default()];
        self.read_exact(&mut whole)?;
        self.skip()?;
        Ok(whole)
    }
}

impl<R: Read> Read for Stored<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buf.len());
        let count = self.reader.read(&mut buf[..most])?;
        if count == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// What headers before a member said of it.
#[derive(Default)]
struct Before {
    records: Records,
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: Read> Archive<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { stored: Stored { reader, left: 0, padding: 0 }, begun: false, ended: false }
    }

    /// The current member's content, as stored.
    pub(super) fn content(&mut self) -> &mut Stored<R> {
        &mut self.stored
    }

    /// The next member; `None` at the end, which a stream that is cut off does not have.
    pub(super) fn next(&mut self) -> Result<Option<Member>, Error> {
        let mut before = Before::default();
        loop {
            self.stored.skip()?;
            let Some(header) = self.header()? else { return Ok(None) };
            self.stored.begin(header.entry_size().map_err(|_| bad("header"))?);
            match header.entry_type() {
                EntryType::XHeader => before.records = Records::parse(&self.stored.read_whole()?)?,
                EntryType::GNULongName => before.long_path = Some(until_nul(self.stored.read_whole()?)),
                EntryType::GNULongLink => before.long_link = Some(until_nul(self.stored.read_whole()?)),
                EntryType::XGlobalHeader => {}
                other => return self.member(&header, other, before).map(Some),
            }
        }
    }

    /// Reads what follows the last member, which a digest covers and a truncated stream lacks.
    pub(super) fn finish(mut self) -> Result<R, Error> {
        let read = io::copy(&mut self.stored.reader.by_ref().take(LONGEST_END), &mut io::sink())?;
        if read == LONGEST_END {
            return Err(Error::new(ErrorKind::TooMuch { what: "bytes after its end", limit: LONGEST_END }));
        }
        Ok(self.stored.reader)
    }

    fn header(&mut self) -> Result<Option<Header>, Error> {
        if self.ended {
            return Ok(None);
        }
        let mut block = [0; BLOCK as usize];
        self.stored.reader.read_exact(&mut block)?;
        if block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        let header = Header::from_byte_slice(&block).clone();
        if header.cksum().ok() != Some(checksum(&block)) {
            // A stream that began as tar is damaged; one that did not is something else.
            let kind = if self.begun { ErrorKind::Truncated } else { not_tar() };
            return Err(Error::new(kind));
        }
        self.begun = true;
        Ok(Some(header))
    }

    fn member(&mut self, header: &Header, kind: EntryType, before: Before) -> Result<Member, Error> {
        let records = &before.records;
        if let Some(size) = records.number("size")? {
            self.stored.begin(size);
        }
        let mut path = match (records.get("GNU.sparse.name"), records.get("path"), before.long_path) {
            (Some(path), _, _) | (None, Some(path), _) => path.to_vec(),
            (None, None, Some(path)) => path,
            (None, None, None) => header.path_bytes().into_owned(),
        };
        let kind = match kind {
            // What old archives have for directories.
            EntryType::Regular | EntryType::Continuous if path.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::Hardlink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Block => Kind::BlockDevice,
            EntryType::Char => device(header)?,
            _ => return Err(bad("kind of member")),
        };
        if kind != Kind::File {
            // Some writers give a size to members that have no content.
            self.stored.begin(0);
        }
        let link = match (records.get("linkpath"), before.long_link) {
            (Some(link), _) => link.to_vec(),
            (None, Some(link)) => link,
            (None, None) => header.link_name_bytes().unwrap_or_default().into_owned(),
        };
        let sparse = match header.entry_type() {
            EntryType::GNUSparse => Some(sparse::from_header(header, &mut self.stored)?),
            _ if records.is_empty() => None,
            _ => sparse::from_records(records, &mut self.stored)?,
        };
        if path.starts_with(b"./") && path.len() > 2 {
            path.drain(..2);
        }
        let number = |name, field: io::Result<u64>| -> Result<u32, Error> {
            let value = records.number(name)?.map_or(field, Ok).map_err(|_| bad("header"))?;
            u32::try_from(value).map_err(|_| bad("owner"))
        };
        let seconds = header.mtime().ok().and_then(|mtime| i64::try_from(mtime).ok()).unwrap_or_default();
        Ok(Member {
            kind,
            link,
            mode: header.mode().map_err(|_| bad("header"))? & 0o7777,
            uid: number("uid", header.uid())?,
            gid: number("gid", header.gid())?,
            modified: records.time("mtime")?.unwrap_or((seconds, 0)),
            xattrs: records.below("SCHILY.xattr.").map(|(name, value)| (name.to_vec(), value.to_vec())).collect(),
            sparse,
            path,
        })
    }
}

fn device(header: &Header) -> Result<Kind, Error> {
    let number = |field: io::Result<Option<u32>>| field.ok().flatten().unwrap_or_default();
    Ok(Kind::CharDevice(number(header.device_major()), number(header.device_minor())))
}

/// The sum of the block's bytes with its own field taken for spaces.
fn checksum(block: &[u8; BLOCK as usize]) -> u32 {
    let outside = block[..148].iter().chain(&block[156..]);
    outside.map(|byte| u32::from(*byte)).sum::<u32>() + 8 * u32::from(b' ')
}

fn until_nul(mut name: Vec<u8>) -> Vec<u8> {
    name.truncate(name.iter().position(|byte| *byte == 0).unwrap_or(name.len()));
    name
}

fn bad(what: &str) -> Error {
    Error::new(ErrorKind::BadDocument(what.to_owned()))
}

fn not_tar() -> ErrorKind {
    ErrorKind::UnknownFormat("it does not begin as a tar does".to_owned())
}
