//! The streams of one session, without a pipe: frames in, bytes out.

mod line;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::ReadBuf;

use crate::error::{End, OpenError, Violation};
use crate::frame::{Frame, LARGEST_PAYLOAD, StreamId};
use crate::{MOST_STREAMS, WINDOW};
use line::Line;

/// Writers wait while so much waits for the pipe. A small message waits behind no more than this and a frame.
const FULL: usize = 64 << 10;
/// Nothing more is read from a peer while so much waits for it: it must not make this side hoard answers.
const HOARDED: usize = 256 << 10;
/// Streams of a guest that both sides ended and nobody dropped yet, and the live ones.
const MOST_HELD: usize = 2 * MOST_STREAMS;

/// Which end this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// Opens streams.
    Host,
    /// Takes them.
    Guest,
}

/// All streams of a session.
#[derive(Debug)]
pub(crate) struct Mux {
    side: Side,
    lines: BTreeMap<StreamId, Line>,
    /// Lines that the peer does not know the end of.
    live: usize,
    last: StreamId,
    out: BytesMut,
    stalled: VecDeque<StreamId>,
    ended: Option<End>,
}

impl Mux {
    pub(crate) fn new(side: Side) -> Self {
        Self {
            side,
            lines: BTreeMap::new(),
            live: 0,
            last: 0,
            out: BytesMut::new(),
            stalled: VecDeque::new(),
            ended: None,
        }
    }

    pub(crate) fn ended(&self) -> Option<End> {
        self.ended
    }

    /// No stream has a holder.
    pub(crate) fn is_unused(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether the peer may be listened to.
    pub(crate) fn may_read(&self) -> bool {
        self.out.len() < HOARDED
    }

    pub(crate) fn has_output(&self) -> bool {
        !self.out.is_empty()
    }

    /// Ends every stream.
    pub(crate) fn end(&mut self, end: End) {
        self.ended.get_or_insert(end);
        self.out = BytesMut::new();
        self.lines.values_mut().for_each(Line::wake);
    }

    /// Puts what is to be written into the empty `outgoing`, and lets writers go on.
    pub(crate) fn take_output(&mut self, outgoing: &mut BytesMut) {
        std::mem::swap(&mut self.out, outgoing);
        while let Some(id) = self.stalled.pop_front() {
            if let Some(line) = self.lines.get_mut(&id) {
                line.stalled = false;
                line.wake_writer();
            }
        }
    }

    /// A new stream of the host's. It goes out with the first bytes of it.
    pub(crate) fn open(&mut self) -> Result<StreamId, OpenError> {
        if let Some(end) = self.ended {
            return Err(end.into());
        }
        if self.live == MOST_STREAMS {
            return Err(OpenError::TooManyStreams);
        }
        if !self.may_read() {
            return Err(OpenError::Stalled);
        }
        self.last += 1;
        self.live += 1;
        self.lines.insert(self.last, Line::new());
        Frame::Open(self.last).encode(&mut self.out);
        Ok(self.last)
    }

    /// Takes a frame of the peer's; the stream, if it opens one.
    pub(crate) fn receive(&mut self, frame: Frame<'_>) -> Result<Option<StreamId>, Violation> {
        let id = match frame {
            Frame::Open(id) => return self.receive_open(id),
            Frame::Data(id, _) | Frame::Credit(id, _) | Frame::Finish(id) | Frame::Reset(id) => id,
        };
        let Some(line) = self.lines.get_mut(&id) else {
            // The peer may not know yet that this side dropped it.
            return if (1..=self.last).contains(&id) { Ok(None) } else { Err(Violation::NoStream) };
        };
        let was_live = line.is_live();
        line.receive(frame)?;
        self.live -= usize::from(was_live && !line.is_live());
        Ok(None)
    }

    fn receive_open(&mut self, id: StreamId) -> Result<Option<StreamId>, Violation> {
        if self.side == Side::Host || id <= self.last {
            return Err(Violation::Open);
        }
        if self.live == MOST_STREAMS {
            return Err(Violation::TooManyStreams);
        }
        self.last = id;
        if self.lines.len() == MOST_HELD {
            Frame::Reset(id).encode(&mut self.out);
            return Ok(None);
        }
        self.live += 1;
        self.lines.insert(id, Line::new());
        Ok(Some(id))
    }

    pub(crate) fn poll_read(
        &mut self,
        id: StreamId,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(line) = self.lines.get_mut(&id) else { return Poll::Ready(Ok(())) };
        let read = line.poll_read(cx, buffer, self.ended);
        if self.ended.is_none()
            && let Some(credit) = line.credit_to_give()
        {
            Frame::Credit(id, credit).encode(&mut self.out);
        }
        read
    }

    pub(crate) fn poll_write(&mut self, id: StreamId, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(line) = self.lines.get_mut(&id) else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        line.check_writable(self.ended)?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.out.len() >= FULL {
            if !std::mem::replace(&mut line.stalled, true) {
                self.stalled.push_back(id);
            }
            line.wait_to_write(cx);
            return Poll::Pending;
        }
        let taken = bytes.len().min(LARGEST_PAYLOAD).min(line.may_send);
        if taken == 0 {
            line.wait_to_write(cx);
            return Poll::Pending;
        }
        line.may_send -= taken;
        Frame::Data(id, &bytes[..taken]).encode(&mut self.out);
        Poll::Ready(Ok(taken))
    }

    /// This side writes no more.
    pub(crate) fn finish(&mut self, id: StreamId) {
        if let Some(line) = self.lines.get_mut(&id)
            && line.is_live()
            && !std::mem::replace(&mut line.finished, true)
            && self.ended.is_none()
        {
            Frame::Finish(id).encode(&mut self.out);
            self.live -= usize::from(!line.is_live());
        }
    }

    /// The holder of a stream is gone.
    pub(crate) fn drop_line(&mut self, id: StreamId) {
        if let Some(line) = self.lines.remove(&id)
            && line.is_live()
            && self.ended.is_none()
        {
            self.live -= 1;
            Frame::Reset(id).encode(&mut self.out);
        }
    }
}

const _: () = assert!(WINDOW >= LARGEST_PAYLOAD);

#[cfg(test)]
mod tests;
