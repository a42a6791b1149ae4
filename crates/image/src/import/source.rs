use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use sha2::{Digest, Sha256};

use super::Limits;
use crate::error::{Error, ErrorKind};

/// A stream may be larger than its compressed form by any factor up to this.
const FREE: u64 = 1 << 30;

/// A stream without its compression, which it tells by its first bytes.
pub(super) struct Source<'a> {
    plain: Box<dyn Read + 'a>,
    taken: Rc<Cell<u64>>,
    given: u64,
    ratio: u64,
}

impl<'a> Source<'a> {
    pub(super) fn open(reader: &'a mut dyn Read, limits: &Limits) -> Result<Self, Error> {
        let taken = Rc::new(Cell::new(0));
        let counted = Counted { reader, taken: Rc::clone(&taken) };
        let mut buffered = BufReader::with_capacity(128 << 10, counted);
        // The longest magic number is six bytes; a pipe may give them one by one.
        let mut start = Vec::new();
        buffered.by_ref().take(6).read_to_end(&mut start)?;
        let rest = |start: &[u8]| io::Cursor::new(start.to_vec()).chain(buffered);
        let plain: Box<dyn Read + 'a> = match start.as_slice() {
            [] => return Err(Error::new(ErrorKind::Truncated)),
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(rest(&start))),
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Box::new(Zstd::new(rest(&start))?),
            [0xfd, b'7', b'z', b'X', b'Z', ..] => return Err(Error::new(ErrorKind::Compression("xz"))),
            [b'B', b'Z', b'h', ..] => return Err(Error::new(ErrorKind::Compression("bzip2"))),
            _ => return Ok(Self { plain: Box::new(rest(&start)), taken, given: 0, ratio: u64::MAX }),
        };
        Ok(Self { plain, taken, given: 0, ratio: limits.ratio })
    }
}

impl Read for Source<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.plain.read(buf)?;
        self.given += count as u64;
        if self.given > FREE && self.given / self.ratio > self.taken.get() {
            let what = "times its compressed size";
            return Err(io::Error::other(Error::new(ErrorKind::TooMuch { what, limit: self.ratio })));
        }
        Ok(count)
    }
}

struct Counted<'a> {
    reader: &'a mut dyn Read,
    taken: Rc<Cell<u64>>,
}

impl Read for Counted<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buf)?;
        self.taken.set(self.taken.get() + count as u64);
        Ok(count)
    }
}

/// Zstandard frames one after the other. In Rust rather than the C library: what it reads is hostile and
/// this process is root.
struct Zstd<R> {
    reader: R,
    decoder: FrameDecoder,
    place: Place,
}

#[derive(PartialEq)]
enum Place {
    BetweenFrames,
    InFrame,
}

/// A whole header of a frame of nothing.
const EMPTY_FRAME: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x00];

impl<R: BufRead> Zstd<R> {
    fn new(reader: R) -> io::Result<Self> {
        let mut decoder = FrameDecoder::new();
        // The decoder bounds the memory a frame asks for (100 MiB) at every frame but its first.
        decoder.init(&EMPTY_FRAME[..]).map_err(damaged)?;
        Ok(Self { reader, decoder, place: Place::BetweenFrames })
    }

    /// Opens the next frame, skipping those without content; false at the end of the stream.
    fn open_next(&mut self) -> io::Result<bool> {
        while !self.reader.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.reader) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let skipped = io::copy(&mut self.reader.by_ref().take(length.into()), &mut io::sink())?;
                    if skipped != u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(error) => return Err(damaged(error)),
            }
        }
        Ok(false)
    }

    fn check_sum(&self) -> io::Result<()> {
        match (self.decoder.get_checksum_from_data(), self.decoder.get_calculated_checksum()) {
            (Some(said), Some(found)) if said != found => Err(io::ErrorKind::InvalidData.into()),
            _ => Ok(()),
        }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if self.place == Place::BetweenFrames {
                if !self.open_next()? {
                    return Ok(0);
                }
                self.place = Place::InFrame;
            }
            while self.decoder.can_collect() < buf.len() && !self.decoder.is_finished() {
                let wanted = BlockDecodingStrategy::UptoBytes(buf.len() - self.decoder.can_collect());
                self.decoder.decode_blocks(&mut self.reader, wanted).map_err(damaged)?;
            }
            let count = self.decoder.read(buf)?;
            if count > 0 {
                return Ok(count);
            }
            self.check_sum()?;
            self.place = Place::BetweenFrames;
        }
    }
}

fn damaged(error: FrameDecoderError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// A stream and the SHA-256 of all that was read from it.
pub(super) struct Digested<R> {
    reader: R,
    hash: Sha256,
}

impl<R: Read> Digested<R> {
    pub(super) fn new(reader: R) -> Self {
        Self { reader, hash: Sha256::new() }
    }

    /// In hexadecimal.
    pub(super) fn digest(self) -> String {
        hex(&self.hash.finalize())
    }
}

impl<R: Read> Read for Digested<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buf)?;
        self.hash.update(&buf[..count]);
        Ok(count)
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
