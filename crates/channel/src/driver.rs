//! The task of a pipe: writes what the streams have for it, gives them what comes.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};

use crate::error::End;
use crate::frame::{Decoded, Hello, StreamId, decode};
use crate::pipe::Pipe;
use crate::session::{Session, Waits};

/// What a session ran into.
#[derive(Debug)]
pub(crate) enum Stop {
    /// It is over.
    End(End),
    /// The host begins another.
    Hello(Hello),
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

/// Serves a session until something ends it; its streams end with that, also when the task itself is aborted.
pub(crate) async fn drive<D, F>(pipe: &mut Pipe<D>, session: &Arc<Session>, mut opened: F) -> Stop
where
    D: AsyncRead + AsyncWrite + Unpin,
    F: FnMut(StreamId),
{
    let ending = Ending(session);
    let stop = poll_fn(|cx| poll(pipe, ending.0, &mut opened, cx)).await;
    ending.0.end(match stop {
        Stop::End(end) => end,
        Stop::Hello(_) => End::Replaced,
    });
    stop
}

struct Ending<'a>(&'a Session);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end(End::Closed);
    }
}

fn poll<D, F>(pipe: &mut Pipe<D>, session: &Session, opened: &mut F, cx: &mut Context<'_>) -> Poll<Stop>
where
    D: AsyncRead + AsyncWrite + Unpin,
    F: FnMut(StreamId),
{
    loop {
        match poll_send(pipe, session, cx) {
            Err(end) => return Poll::Ready(end.into()),
            Ok(true) => {}
            Ok(false) => return Poll::Pending,
        }
        match pipe.poll_more(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Err(end)) => return Poll::Ready(end.into()),
            Poll::Ready(Ok(())) => {}
        }
        match take(pipe, session, opened) {
            Ok(None) => {}
            Ok(Some(hello)) => return Poll::Ready(Stop::Hello(hello)),
            Err(end) => return Poll::Ready(end.into()),
        }
    }
}

/// Writes what can be; whether the peer may be listened to.
fn poll_send<D>(pipe: &mut Pipe<D>, session: &Session, cx: &mut Context<'_>) -> Result<bool, End>
where
    D: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let sent = pipe.poll_send(cx);
        let mut state = session.lock();
        match sent {
            Poll::Ready(Err(end)) => return Err(end),
            Poll::Ready(Ok(())) if state.mux.has_output() => state.mux.take_output(&mut pipe.outgoing),
            // Nobody waits for what a peer that reads nothing did not take.
            _ if state.is_over() => return Err(End::Closed),
            Poll::Ready(Ok(())) => {
                state.wait(cx, Waits::ForOutput);
                return Ok(true);
            }
            Poll::Pending => {
                state.wait(cx, Waits::ForPipe);
                return Ok(state.mux.may_read());
            }
        }
    }
}

/// Gives the streams all whole frames; a hello, if one came.
fn take<D, F>(pipe: &mut Pipe<D>, session: &Session, opened: &mut F) -> Result<Option<Hello>, End>
where
    D: AsyncRead + AsyncWrite + Unpin,
    F: FnMut(StreamId),
{
    let mut state = session.lock();
    loop {
        let done = match decode(pipe.unread())? {
            Decoded::Incomplete => return Ok(None),
            Decoded::Padding(bytes) => bytes,
            Decoded::Hello(hello, bytes) => {
                pipe.take(bytes);
                return Ok(Some(hello));
            }
            Decoded::Frame(frame, bytes) => {
                if let Some(id) = state.mux.receive(frame)? {
                    opened(id);
                }
                bytes
            }
        };
        pipe.take(done);
    }
}
