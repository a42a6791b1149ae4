//! One stream's two directions.

use std::collections::VecDeque;
use std::io;
use std::task::{Context, Poll, Waker};

use tokio::io::ReadBuf;

use crate::WINDOW;
use crate::error::{End, Violation};
use crate::frame::Frame;

/// An empty buffer larger than this is given back: idle streams hold little.
const KEPT: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Line {
    /// Copied out of the pipe's buffer: a slice of it would keep all of it for a byte.
    received: VecDeque<u8>,
    may_receive: usize,
    /// Read here, and no credit given for it yet.
    read: usize,
    pub(crate) may_send: usize,
    /// This side wrote its last.
    pub(crate) finished: bool,
    peer_finished: bool,
    peer_reset: bool,
    /// In the queue of those who wait for the pipe.
    pub(crate) stalled: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Line {
    pub(crate) fn new() -> Self {
        Self {
            received: VecDeque::new(),
            may_receive: WINDOW,
            read: 0,
            may_send: WINDOW,
            finished: false,
            peer_finished: false,
            peer_reset: false,
            stalled: false,
            reader: None,
            writer: None,
        }
    }

    /// The peer must be told when it is dropped.
    pub(crate) fn is_live(&self) -> bool {
        !(self.peer_reset || self.finished && self.peer_finished)
    }

    #[cfg(test)]
    pub(crate) fn unread(&self) -> usize {
        self.received.len()
    }

    pub(crate) fn receive(&mut self, frame: Frame<'_>) -> Result<(), Violation> {
        if self.peer_reset {
            return Err(Violation::BehindEnd);
        }
        match frame {
            Frame::Open(_) => return Err(Violation::Open),
            Frame::Data(..) | Frame::Finish(_) if self.peer_finished => return Err(Violation::BehindEnd),
            Frame::Data(_, payload) => {
                self.may_receive = self.may_receive.checked_sub(payload.len()).ok_or(Violation::BeyondWindow)?;
                self.received.extend(payload);
                wake(&mut self.reader);
            }
            Frame::Credit(_, more) => {
                let may_send = self.may_send + more as usize;
                if may_send > WINDOW {
                    return Err(Violation::BeyondCredit);
                }
                self.may_send = may_send;
                self.wake_writer();
            }
            Frame::Finish(_) => {
                self.peer_finished = true;
                wake(&mut self.reader);
            }
            Frame::Reset(_) => {
                self.peer_reset = true;
                self.wake();
            }
        }
        Ok(())
    }

    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        ended: Option<End>,
    ) -> Poll<io::Result<()>> {
        if !self.received.is_empty() {
            let before = buffer.remaining();
            let (front, back) = self.received.as_slices();
            for part in [front, back] {
                buffer.put_slice(&part[..part.len().min(buffer.remaining())]);
            }
            let read = before - buffer.remaining();
            self.received.drain(..read);
            self.read += read;
            if self.received.is_empty() && self.received.capacity() > KEPT {
                self.received = VecDeque::new();
            }
            return Poll::Ready(Ok(()));
        }
        if self.peer_finished || buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.peer_reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if let Some(end) = ended {
            return Poll::Ready(Err(end.into()));
        }
        wait(&mut self.reader, cx);
        Poll::Pending
    }

    /// Credit in few frames: what was read, when it is half a window.
    pub(crate) fn credit_to_give(&mut self) -> Option<u32> {
        if self.read < WINDOW / 2 || self.peer_finished || self.peer_reset {
            return None;
        }
        let credit = std::mem::take(&mut self.read);
        self.may_receive += credit;
        u32::try_from(credit).ok()
    }

    pub(crate) fn check_writable(&self, ended: Option<End>) -> io::Result<()> {
        if let Some(end) = ended {
            return Err(end.into());
        }
        if self.finished || self.peer_reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }

    pub(crate) fn wait_to_write(&mut self, cx: &Context<'_>) {
        wait(&mut self.writer, cx);
    }

    pub(crate) fn wake_writer(&mut self) {
        wake(&mut self.writer);
    }

    pub(crate) fn wake(&mut self) {
        wake(&mut self.reader);
        wake(&mut self.writer);
    }
}

fn wait(place: &mut Option<Waker>, cx: &Context<'_>) {
    match place {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *place = Some(cx.waker().clone()),
    }
}

fn wake(place: &mut Option<Waker>) {
    if let Some(waker) = place.take() {
        waker.wake();
    }
}
