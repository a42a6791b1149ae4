//! What carries the bytes, with what was read and not yet understood, and what is to be written.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::End;

/// A pipe and its two buffers, neither of which grows by what the peer says.
#[derive(Debug)]
pub(crate) struct Pipe<D> {
    duplex: D,
    inbox: Box<[u8]>,
    start: usize,
    end: usize,
    /// Written before anything else.
    pub(crate) outgoing: BytesMut,
}

impl<D> Pipe<D> {
    /// What carries the bytes.
    pub(crate) fn get_ref(&self) -> &D {
        &self.duplex
    }
}

impl<D: AsyncRead + AsyncWrite + Unpin> Pipe<D> {
    /// With room for so much that is not understood yet.
    pub(crate) fn new(duplex: D, room: usize) -> Self {
        Self { duplex, inbox: vec![0; room].into(), start: 0, end: 0, outgoing: BytesMut::new() }
    }

    /// What was read and not taken.
    pub(crate) fn unread(&self) -> &[u8] {
        &self.inbox[self.start..self.end]
    }

    pub(crate) fn take(&mut self, bytes: usize) {
        self.start += bytes;
        if self.start == self.end {
            // Back to the first pages: the others need never be touched when little is sent.
            (self.start, self.end) = (0, 0);
        }
    }

    /// Reads more behind what is unread, at least a byte.
    pub(crate) fn poll_more(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.end == self.inbox.len() {
            self.inbox.copy_within(self.start.., 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        let mut room = ReadBuf::new(&mut self.inbox[self.end..]);
        ready!(Pin::new(&mut self.duplex).poll_read(cx, &mut room)).map_err(|error| End::Io(error.kind()))?;
        match room.filled().len() {
            0 => Poll::Ready(Err(End::Gone)),
            read => {
                self.end += read;
                Poll::Ready(Ok(()))
            }
        }
    }

    /// Writes all of `outgoing`, and has it sent.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.duplex).poll_flush(cx).map_err(|error| End::Io(error.kind()))
    }

    /// The same, as the last of what this side writes.
    pub(crate) fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        ready!(self.poll_write_out(cx))?;
        Pin::new(&mut self.duplex).poll_shutdown(cx).map_err(|error| End::Io(error.kind()))
    }

    /// Writes all of `outgoing`.
    pub(crate) fn poll_write_out(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
        while self.outgoing.has_remaining() {
            let sent = Pin::new(&mut self.duplex).poll_write(cx, &self.outgoing);
            match ready!(sent).map_err(|error| End::Io(error.kind()))? {
                0 => return Poll::Ready(Err(End::Gone)),
                sent => self.outgoing.advance(sent),
            }
        }
        Poll::Ready(Ok(()))
    }
}
