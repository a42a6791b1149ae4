//! Files with holes, in GNU tar's four ways of writing them down (GNU tar manual, appendix "Sparse Formats").

use std::io::Read;

use tar::{GnuExtSparseHeader, Header};

use super::archive::Stored;
use super::pax::{Records, number};
use crate::error::{Error, ErrorKind};

/// Pieces of one file; a bound on memory that no real file meets.
const MOST: usize = 100_000;

/// What a file's stored bytes mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sparse {
    /// The file's length, holes included.
    pub(super) size: u64,
    /// Where each piece of the stored bytes belongs: offset and length, in order, none over another.
    pub(super) pieces: Vec<(u64, u64)>,
}

impl Sparse {
    /// Refuses what overlaps, runs backwards, leaves the file or needs other bytes than are stored.
    fn checked(self, stored: u64) -> Result<Self, Error> {
        let mut end = 0u64;
        let mut total = 0u64;
        for (offset, length) in &self.pieces {
            if *offset < end {
                return Err(bad());
            }
            end = offset.checked_add(*length).filter(|end| *end <= self.size).ok_or_else(bad)?;
            total += length;
        }
        if total == stored { Ok(self) } else { Err(bad()) }
    }
}

fn bad() -> Error {
    Error::new(ErrorKind::BadDocument("map of a sparse file".to_owned()))
}

/// GNU's own header, with the rest of the map in blocks behind it.
pub(super) fn from_header<R: Read>(header: &Header, stored: &mut Stored<R>) -> Result<Sparse, Error> {
    let gnu = header.as_gnu().ok_or_else(bad)?;
    let mut pieces = Vec::new();
    let mut add = |piece: &tar::GnuSparseHeader| -> Result<(), Error> {
        if !piece.is_empty() {
            pieces.push((piece.offset().map_err(|_| bad())?, piece.length().map_err(|_| bad())?));
        }
        if pieces.len() > MOST { Err(bad()) } else { Ok(()) }
    };
    gnu.sparse.iter().try_for_each(&mut add)?;
    let mut more = gnu.is_extended();
    while more {
        let mut block = GnuExtSparseHeader::new();
        stored.read_block(block.as_mut_bytes())?;
        block.sparse().iter().try_for_each(&mut add)?;
        more = block.is_extended();
    }
    Sparse { size: gnu.real_size().map_err(|_| bad())?, pieces }.checked(stored.left())
}

/// The pax formats 0.0, 0.1 and 1.0; `None` for a file without holes.
pub(super) fn from_records<R: Read>(records: &Records, stored: &mut Stored<R>) -> Result<Option<Sparse>, Error> {
    let size = match (records.number("GNU.sparse.realsize")?, records.number("GNU.sparse.size")?) {
        (Some(size), _) | (None, Some(size)) => size,
        (None, None) => return Ok(None),
    };
    let numbers = if records.get("GNU.sparse.major").is_some() {
        if records.get("GNU.sparse.major") != Some(b"1") || records.get("GNU.sparse.minor") != Some(b"0") {
            return Err(bad());
        }
        map_before_content(stored)?
    } else if let Some(map) = records.get("GNU.sparse.map") {
        parse_all(map.split(|byte| *byte == b','))?
    } else {
        let (offsets, lengths) = (records.all("GNU.sparse.offset"), records.all("GNU.sparse.numbytes"));
        parse_all(offsets.zip(lengths).flat_map(|(offset, length)| [offset, length]))?
    };
    if !numbers.len().is_multiple_of(2) {
        return Err(bad());
    }
    let pieces = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    Sparse { size, pieces }.checked(stored.left()).map(Some)
}

fn parse_all<'a>(texts: impl Iterator<Item = &'a [u8]>) -> Result<Vec<u64>, Error> {
    let numbers: Vec<u64> =
        texts.take(2 * MOST + 1).map(|text| number(text).ok_or_else(bad)).collect::<Result<_, _>>()?;
    if numbers.len() > 2 * MOST { Err(bad()) } else { Ok(numbers) }
}

/// Format 1.0: the map is decimal lines in whole blocks before the content.
fn map_before_content<R: Read>(stored: &mut Stored<R>) -> Result<Vec<u64>, Error> {
    let mut text = Vec::new();
    let mut lines = MapLines::default();
    let mut block = [0; 512];
    while !lines.is_whole() {
        if stored.left() < 512 {
            return Err(bad());
        }
        stored.read_exact(&mut block)?;
        text.extend_from_slice(&block);
        lines.take(&mut text)?;
    }
    Ok(lines.numbers)
}

#[derive(Default)]
struct MapLines {
    count: Option<usize>,
    numbers: Vec<u64>,
}

impl MapLines {
    fn is_whole(&self) -> bool {
        self.count.is_some_and(|count| self.numbers.len() == 2 * count)
    }

    /// Takes whole lines off the front.
    fn take(&mut self, text: &mut Vec<u8>) -> Result<(), Error> {
        while !self.is_whole() {
            let Some(end) = text.iter().position(|byte| *byte == b'\n') else { return Ok(()) };
            let value = number(&text[..end]).ok_or_else(bad)?;
            text.drain(..=end);
            match self.count {
                None => self.count = Some(usize::try_from(value).ok().filter(|count| *count <= MOST).ok_or_else(bad)?),
                Some(_) => self.numbers.push(value),
            }
        }
        Ok(())
    }
}
