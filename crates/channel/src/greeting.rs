//! How a session begins: each side finds the other's hello in whatever the pipe still holds.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::VERSION;
use crate::error::{ConnectError, End};
use crate::frame::{Hello, PREAMBLE};
use crate::pipe::Pipe;

/// What a guest's kernel and a VMM together may still hold of an older session is far less.
const MOST_STALE: u64 = 32 << 20;

/// The host's part: greets, then waits for the answer.
pub(crate) async fn greet<D>(pipe: &mut Pipe<D>) -> Result<(), ConnectError>
where
    D: AsyncRead + AsyncWrite + Unpin,
{
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).map_err(ConnectError::Random)?;
    pipe.outgoing = BytesMut::zeroed(PREAMBLE);
    Hello { version: VERSION, nonce }.encode(&mut pipe.outgoing);
    let mut stale = 0;
    poll_fn(|cx| {
        // Both at once: a guest that is stuck writing reads nothing.
        if let Poll::Ready(sent) = pipe.poll_send(cx) {
            sent?;
        }
        poll_answer(pipe, nonce, &mut stale, cx)
    })
    .await
}

fn poll_answer<D>(
    pipe: &mut Pipe<D>,
    nonce: [u8; 16],
    stale: &mut u64,
    cx: &mut Context<'_>,
) -> Poll<Result<(), ConnectError>>
where
    D: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let hello = ready!(poll_hello(pipe, stale, cx))?;
        if hello.nonce != nonce {
            continue;
        }
        return Poll::Ready(match hello.version {
            VERSION => Ok(()),
            theirs => Err(ConnectError::Version { theirs, ours: VERSION }),
        });
    }
}

fn poll_hello<D>(pipe: &mut Pipe<D>, stale: &mut u64, cx: &mut Context<'_>) -> Poll<Result<Hello, ConnectError>>
where
    D: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let (done, hello) = Hello::find(pipe.unread());
        pipe.take(done);
        *stale += done as u64;
        match hello {
            Some(hello) => return Poll::Ready(Ok(hello)),
            None if *stale > MOST_STALE => return Poll::Ready(Err(ConnectError::Flood(*stale))),
            None => ready!(pipe.poll_more(cx))?,
        }
    }
}

/// The guest's part: waits for a hello, however long. The answer is left in `outgoing`, before which nothing is sent.
pub(crate) async fn await_host<D>(pipe: &mut Pipe<D>) -> Result<(), End>
where
    D: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let (done, hello) = Hello::find(pipe.unread());
        pipe.take(done);
        match hello {
            Some(hello) if answer(pipe, hello) => return Ok(()),
            Some(_) => {}
            None => poll_fn(|cx| exchange(pipe, cx)).await?,
        }
    }
}

/// Answers; whether the host is one to talk to. One of another version learns ours.
pub(crate) fn answer<D>(pipe: &mut Pipe<D>, hello: Hello) -> bool {
    pipe.outgoing.clear();
    Hello { version: VERSION, nonce: hello.nonce }.encode(&mut pipe.outgoing);
    hello.version == VERSION
}

fn exchange<D: AsyncRead + AsyncWrite + Unpin>(pipe: &mut Pipe<D>, cx: &mut Context<'_>) -> Poll<Result<(), End>> {
    if let Poll::Ready(sent) = pipe.poll_send(cx) {
        sent?;
    }
    pipe.poll_more(cx)
}
