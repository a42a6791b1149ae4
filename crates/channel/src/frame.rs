//! Frames as bytes.
//!
//! ```text
//! kind (1) | stream (8) | value (4) | payload, if kind is data: `value` bytes | END (1)      numbers little-endian
//! 0                                                                                          padding, one byte
//! MAGIC (16) | version (4) | nonce (16) | END (1)                                            hello
//! ```
//! A frame that a dead host left half written and zeros completed has no END: it is an error, and nothing of it reaches
//! a stream.

use bytes::{BufMut, BytesMut};

use crate::error::Violation;

/// The most bytes that one data frame carries.
pub const LARGEST_PAYLOAD: usize = 64 << 10;
/// The largest frame, as bytes.
pub const LARGEST: usize = HEADER + LARGEST_PAYLOAD + 1;
/// Holds a largest frame and what came with it.
pub(crate) const INBOX: usize = 2 * LARGEST;
/// A run of zeros in which any frame ends that was begun before.
pub const PREAMBLE: usize = LARGEST;

/// Begins a hello.
const MAGIC: [u8; 16] = *b"\x1fgarth channel\r\n";
const END: u8 = 0xa5;
const HEADER: usize = 13;
const HELLO: usize = MAGIC.len() + 4 + 16 + 1;

const OPEN: u8 = 2;
const DATA: u8 = 3;
const CREDIT: u8 = 4;
const FINISH: u8 = 5;
const RESET: u8 = 6;

/// The number of a stream; never used twice in a session.
pub type StreamId = u64;

/// What one side tells the other about a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// The host opens one.
    Open(StreamId),
    /// Some of what was written.
    Data(StreamId, &'a [u8]),
    /// So many more bytes may be sent.
    Credit(StreamId, u32),
    /// The sender writes no more.
    Finish(StreamId),
    /// The sender neither writes nor reads any more.
    Reset(StreamId),
}

/// Begins a session: the host's, and the guest's answer with the same nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// What the sender speaks.
    pub version: u32,
    /// The host's random number.
    pub nonce: [u8; 16],
}

/// What some bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decoded<'a> {
    /// Nothing whole yet.
    Incomplete,
    /// So many bytes mean nothing.
    Padding(usize),
    /// A frame of so many bytes.
    Frame(Frame<'a>, usize),
    /// A hello of so many bytes.
    Hello(Hello, usize),
}

impl Frame<'_> {
    /// Appends the frame. A payload is at most [`LARGEST_PAYLOAD`] long.
    pub fn encode(self, out: &mut BytesMut) {
        let (kind, id, value, payload): (_, _, _, &[u8]) = match self {
            Self::Open(id) => (OPEN, id, 0, &[]),
            Self::Data(id, payload) => (DATA, id, payload.len() as u32, payload),
            Self::Credit(id, bytes) => (CREDIT, id, bytes, &[]),
            Self::Finish(id) => (FINISH, id, 0, &[]),
            Self::Reset(id) => (RESET, id, 0, &[]),
        };
        debug_assert!(payload.len() <= LARGEST_PAYLOAD, "the mux cuts payloads");
        out.reserve(HEADER + payload.len() + 1);
        out.put_u8(kind);
        out.put_u64_le(id);
        out.put_u32_le(value);
        out.put_slice(payload);
        out.put_u8(END);
    }
}

impl Hello {
    /// Appends the hello.
    pub fn encode(self, out: &mut BytesMut) {
        out.put_slice(&MAGIC);
        out.put_u32_le(self.version);
        out.put_slice(&self.nonce);
        out.put_u8(END);
    }

    fn decode(bytes: &[u8]) -> Result<Option<Self>, Violation> {
        let known = bytes.len().min(MAGIC.len());
        if bytes[..known] != MAGIC[..known] {
            return Err(Violation::Unknown);
        }
        let Some((whole, _)) = bytes.split_first_chunk::<HELLO>() else { return Ok(None) };
        if whole[HELLO - 1] != END {
            return Err(Violation::EndMark);
        }
        let [.., v0, v1, v2, v3] = *whole.first_chunk::<20>().expect("a hello has 37 bytes");
        let mut nonce = [0; 16];
        nonce.copy_from_slice(&whole[20..36]);
        Ok(Some(Self { version: u32::from_le_bytes([v0, v1, v2, v3]), nonce }))
    }

    /// Looks for a hello in whatever this is: how many bytes are done with, and the hello that ends there.
    pub fn find(bytes: &[u8]) -> (usize, Option<Self>) {
        let mut done = 0;
        while let Some(at) = bytes[done..].iter().position(|byte| *byte == MAGIC[0]) {
            done += at;
            match Self::decode(&bytes[done..]) {
                Ok(Some(hello)) => return (done + HELLO, Some(hello)),
                Ok(None) => return (done, None),
                Err(_) => done += 1,
            }
        }
        (bytes.len(), None)
    }
}

/// Reads what `bytes` begin with.
pub fn decode(bytes: &[u8]) -> Result<Decoded<'_>, Violation> {
    match bytes.first() {
        None => Ok(Decoded::Incomplete),
        Some(0) => Ok(Decoded::Padding(bytes.iter().take_while(|byte| **byte == 0).count())),
        Some(first) if *first == MAGIC[0] => {
            Ok(Hello::decode(bytes)?.map_or(Decoded::Incomplete, |hello| Decoded::Hello(hello, HELLO)))
        }
        Some(kind @ OPEN..=RESET) => decode_frame(*kind, bytes),
        Some(_) => Err(Violation::Unknown),
    }
}

fn decode_frame(kind: u8, bytes: &[u8]) -> Result<Decoded<'_>, Violation> {
    let Some((&[_, i0, i1, i2, i3, i4, i5, i6, i7, v0, v1, v2, v3], rest)) = bytes.split_first_chunk::<HEADER>() else {
        return Ok(Decoded::Incomplete);
    };
    let id = u64::from_le_bytes([i0, i1, i2, i3, i4, i5, i6, i7]);
    let value = u32::from_le_bytes([v0, v1, v2, v3]);
    let length = if kind == DATA { value as usize } else { 0 };
    if length > LARGEST_PAYLOAD || kind == DATA && length == 0 {
        return Err(Violation::Length);
    }
    let Some((payload, [end, ..])) = rest.split_at_checked(length) else { return Ok(Decoded::Incomplete) };
    if *end != END {
        return Err(Violation::EndMark);
    }
    let frame = match kind {
        OPEN => Frame::Open(id),
        DATA => Frame::Data(id, payload),
        CREDIT => Frame::Credit(id, value),
        FINISH => Frame::Finish(id),
        _ => Frame::Reset(id),
    };
    Ok(Decoded::Frame(frame, HEADER + length + 1))
}

#[cfg(test)]
mod tests;
