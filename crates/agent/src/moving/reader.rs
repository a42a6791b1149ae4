//! A pax stream as entries. It takes what `writer` writes and nothing else.

use std::io::{self, Read};

use rustix::fs::Timespec;
use tar::{EntryType, Header};

use super::digest::Summary;
use super::entry::{Device, Entry, Kind, Point};
use super::is_plain;
use super::writer::{BYTES, DIGEST, ENTRIES, LARGEST_HEAD, MESSAGE, OURS, RUN_HEAD, SPARSE, UNIT, WORD};
use crate::facts::Facts;
use crate::refusal::{Kind as Refused, Refusal};
use crate::xattrs;

/// What comes next.
#[derive(Debug)]
pub enum Item {
    /// An entry. The content of a file must be read before the next item.
    Entry(Entry, Body),
    /// All came.
    End(Expected),
}

/// What the other end says of all that it sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Expected {
    digest: String,
    entries: u64,
    bytes: u64,
}

impl Expected {
    /// Whether that is what came.
    pub fn is(&self, summary: &Summary) -> bool {
        *self == Self { digest: summary.hex(), entries: summary.entries, bytes: summary.bytes }
    }
}

/// The content that comes after an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Body {
    /// Bytes in the stream.
    taken: u64,
    /// Bytes of the file.
    length: u64,
    runs: bool,
}

/// Reads entries.
#[derive(Debug)]
pub struct Reader<R> {
    stream: R,
}

/// The stream is not what an agent sends.
pub fn damaged(why: impl std::fmt::Display) -> Refusal {
    Refusal::invalid(format!("the stream is damaged or was cut off: {why}"))
}

impl<R: Read> Reader<R> {
    /// From `stream`.
    pub fn new(stream: R) -> Self {
        Self { stream }
    }

    /// The next item.
    pub fn next(&mut self) -> Result<Item, Refusal> {
        let before = self.header()?;
        let length = before.entry_size().map_err(damaged)?;
        if before.entry_type() != EntryType::XHeader || length > LARGEST_HEAD as u64 {
            return Err(damaged("it is not from a Garth agent"));
        }
        let mut data = Vec::new();
        (&mut self.stream).take(length).read_to_end(&mut data).map_err(damaged)?;
        if data.len() as u64 != length {
            return Err(damaged("it ends within an entry"));
        }
        self.skip_padding(length)?;
        let records = Records::of(&data).ok_or_else(|| damaged("its records make no sense"))?;
        let header = self.header()?;
        match records.get(WORD.as_bytes()) {
            Some(word) if header.entry_type().as_byte() == OURS => self.ours(word, &records),
            _ => self.file(&header, &records),
        }
    }

    fn ours(&mut self, word: &[u8], records: &Records<'_>) -> Result<Item, Refusal> {
        let nothing = Body { taken: 0, length: 0, runs: false };
        let bare = |kind| {
            let path = records.path()?;
            if path.is_empty() { Err(outside()) } else { Ok(Item::Entry(Entry::bare(&path, kind), nothing)) }
        };
        match word {
            b"mount" => bare(Kind::Mount(Point::Directory)),
            b"mounted-file" => bare(Kind::Mount(Point::File)),
            b"deleted" => bare(Kind::Deleted),
            b"end" => {
                self.end()?;
                let digest = records.text(DIGEST)?.to_owned();
                Ok(Item::End(Expected { digest, entries: records.number(ENTRIES)?, bytes: records.number(BYTES)? }))
            }
            b"failed" => {
                let message = records.text(MESSAGE)?.chars().take(1000).collect::<String>();
                Err(Refusal::new(Refused::Failed, format!("the source gave up: {message}")))
            }
            _ => Err(damaged("it has an entry of an unknown kind")),
        }
    }

    fn file(&mut self, header: &Header, records: &Records<'_>) -> Result<Item, Refusal> {
        let taken = header.entry_size().map_err(damaged)?;
        let runs = records.get(SPARSE.as_bytes()).is_some();
        let length = if runs { records.number(SPARSE)? } else { taken };
        let target = || records.get(b"linkpath").map(<[u8]>::to_vec).ok_or_else(|| damaged("a link to nothing"));
        let device = || {
            let number = |number: io::Result<Option<u32>>| number.map_err(damaged).map(Option::unwrap_or_default);
            Ok(Device { major: number(header.device_major())?, minor: number(header.device_minor())? })
        };
        let kind = match header.entry_type() {
            EntryType::Regular => Kind::File(length),
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink(target()?),
            EntryType::Link => Kind::Link(Some(target()?).filter(|path| is_plain(path)).ok_or_else(outside)?),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char => Kind::Character(device()?),
            EntryType::Block => Kind::Block(device()?),
            other => return Err(damaged(format!("it has an entry of an unknown kind ({other:?})"))),
        };
        if taken != 0 && !matches!(kind, Kind::File(_)) {
            return Err(damaged("something that is no file has content"));
        }
        let path = records.path()?;
        if path.is_empty() && kind != Kind::Directory {
            return Err(damaged("the root is no directory"));
        }
        let facts = Facts {
            mode: header.mode().map_err(damaged)? & 0o7777,
            uid: owner(header.uid())?,
            gid: owner(header.gid())?,
            modified: records.modified()?,
        };
        let body = Body { taken, length, runs };
        Ok(Item::Entry(Entry { path, kind, facts, xattrs: records.xattrs() }, body))
    }

    /// Calls `each` with the pieces of an entry's content, and where in the file they are.
    pub fn body(
        &mut self,
        body: Body,
        piece: &mut [u8],
        mut each: impl FnMut(u64, &[u8]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        if !body.runs {
            self.run(0, body.taken, piece, &mut each)?;
            return self.skip_padding(body.taken);
        }
        let (mut left, mut least) = (body.taken, 0);
        while left > 0 {
            let mut head = [[0; 8]; 2];
            for number in &mut head {
                self.stream.read_exact(number).map_err(damaged)?;
            }
            let [offset, length] = head.map(u64::from_be_bytes);
            let end = offset.checked_add(length).filter(|end| offset >= least && *end <= body.length);
            let rest = left.checked_sub(RUN_HEAD).and_then(|left| left.checked_sub(length));
            (least, left) = end.zip(rest).ok_or_else(|| damaged("the runs of a file overlap or are too long"))?;
            self.run(offset, length, piece, &mut each)?;
        }
        self.skip_padding(body.taken)
    }

    fn run(
        &mut self,
        offset: u64,
        length: u64,
        piece: &mut [u8],
        each: &mut impl FnMut(u64, &[u8]) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut done = 0;
        while done < length {
            let count = piece.len().min(usize::try_from(length - done).unwrap_or(piece.len()));
            self.stream.read_exact(&mut piece[..count]).map_err(damaged)?;
            each(offset + done, &piece[..count])?;
            done += count as u64;
        }
        Ok(())
    }

    fn header(&mut self) -> Result<Header, Refusal> {
        let mut header = Header::new_ustar();
        self.stream.read_exact(header.as_mut_bytes()).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it ends before its end"),
            _ => damaged(error),
        })?;
        let written = header.cksum().map_err(damaged)?;
        let mut plain = header.clone();
        plain.set_cksum();
        if header.as_ustar().is_none() || plain.cksum().ok() != Some(written) {
            return Err(damaged("it is not from a Garth agent"));
        }
        Ok(header)
    }

    fn skip_padding(&mut self, length: u64) -> Result<(), Refusal> {
        let rest = (length % UNIT as u64) as usize;
        let mut padding = [0; UNIT];
        if rest == 0 { Ok(()) } else { self.stream.read_exact(&mut padding[rest..]).map_err(damaged) }
    }

    /// Two units of zeros, and nothing.
    fn end(&mut self) -> Result<(), Refusal> {
        let mut rest = Vec::new();
        (&mut self.stream).take(2 * UNIT as u64 + 1).read_to_end(&mut rest).map_err(damaged)?;
        if rest == [0; 2 * UNIT] { Ok(()) } else { Err(damaged("there is something after its end, or not all of it")) }
    }
}

fn outside() -> Refusal {
    Refusal::invalid("a name leads out of the root")
}

fn owner(number: io::Result<u64>) -> Result<u32, Refusal> {
    let number = u32::try_from(number.map_err(damaged)?).ok();
    number.filter(|id| *id != u32::MAX).ok_or_else(|| Refusal::invalid("an owner is out of range"))
}

/// Keys and values before an entry.
struct Records<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> Records<'a> {
    /// Each is `LENGTH KEY=VALUE\n`, and the value may be any bytes.
    fn of(data: &'a [u8]) -> Option<Self> {
        let mut found = Vec::new();
        let mut rest = data;
        while !rest.is_empty() {
            let space = rest.iter().take(20).position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&rest[..space]).ok()?.parse().ok()?;
            let record = rest.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            found.push((&record[..equals], &record[equals + 1..]));
            rest = &rest[length..];
        }
        Some(Self(found))
    }

    fn get(&self, key: &[u8]) -> Option<&'a [u8]> {
        self.0.iter().find(|(other, _)| *other == key).map(|(_, value)| *value)
    }

    fn text(&self, key: &str) -> Result<&'a str, Refusal> {
        let value = self.get(key.as_bytes()).ok_or_else(|| damaged(format!("{key} is missing")))?;
        std::str::from_utf8(value).map_err(damaged)
    }

    fn number(&self, key: &str) -> Result<u64, Refusal> {
        self.text(key)?.parse().map_err(damaged)
    }

    /// Empty for the root alone.
    fn path(&self) -> Result<Vec<u8>, Refusal> {
        let path = self.get(b"path").ok_or_else(|| damaged("an entry without a name"))?;
        if path.is_empty() || is_plain(path) { Ok(path.to_vec()) } else { Err(outside()) }
    }

    fn modified(&self) -> Result<Timespec, Refusal> {
        let text = self.text("mtime")?;
        let (seconds, nanoseconds) = text.split_once('.').ok_or_else(|| damaged("a time is incomplete"))?;
        let tv_nsec = nanoseconds.parse().ok().filter(|nanoseconds| (0..1_000_000_000).contains(nanoseconds));
        Ok(Timespec {
            tv_sec: seconds.parse().map_err(damaged)?,
            tv_nsec: tv_nsec.ok_or_else(|| damaged("a time is out of range"))?,
        })
    }

    fn xattrs(&self) -> Vec<xattrs::Xattr> {
        let named =
            self.0.iter().filter_map(|(key, value)| Some((key.strip_prefix(xattrs::RECORD.as_bytes())?, value)));
        named.map(|(name, value)| (unescaped(name), value.to_vec())).collect()
    }
}

/// The inverse of what `writer` does to names of attributes.
fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        let (byte, tail) = match rest {
            [b'%', b'2', b'5', tail @ ..] => (b'%', tail),
            [b'%', b'3', b'D', tail @ ..] => (b'=', tail),
            _ => (*first, tail),
        };
        plain.push(byte);
        rest = tail;
    }
    plain
}
