//! Between the event loop and the threads that read and write files: bounded channels of pieces, both ways.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio::sync::mpsc;

/// Bytes per piece.
pub const PIECE: usize = 64 << 10;
/// Pieces that wait at most.
const WAITING: usize = 4;
/// How long a body that nobody wants any more is read on, so that its sender comes to read the answer.
const DRAIN: Duration = Duration::from_secs(30);

/// A body whose pieces a thread makes.
#[derive(Debug)]
pub struct Outgoing(mpsc::Receiver<io::Result<Bytes>>);

/// Where that thread writes.
#[derive(Debug)]
pub struct Sender {
    channel: mpsc::Sender<io::Result<Bytes>>,
    piece: BytesMut,
}

/// Runs `produce` on a thread of the pool. An error of it breaks the body off, so that no client takes half for whole.
pub fn outgoing(produce: impl FnOnce(&mut Sender) -> io::Result<()> + Send + 'static) -> Outgoing {
    let (channel, receiver) = mpsc::channel(WAITING);
    tokio::task::spawn_blocking(move || {
        let mut sender = Sender { channel, piece: BytesMut::new() };
        if let Err(error) = produce(&mut sender).and_then(|()| sender.flush()) {
            let _ = sender.channel.blocking_send(Err(error));
        }
    });
    Outgoing(receiver)
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

impl Write for Sender {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.piece.reserve(PIECE - self.piece.len());
        let count = data.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&data[..count]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = self.piece.split().freeze();
        self.channel.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

/// A request's body, read by a thread.
#[derive(Debug)]
pub struct Incoming {
    channel: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.channel.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let count = buffer.len().min(self.piece.len());
        self.piece.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// Runs `consume` on a thread of the pool while the body comes in. Returns what it returns, after the body's end.
pub async fn incoming<B, T>(body: B, consume: impl FnOnce(Incoming) -> T + Send + 'static) -> io::Result<T>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin,
    T: Send + 'static,
{
    let mut body = body;
    let (sender, channel) = mpsc::channel(WAITING);
    let work = tokio::task::spawn_blocking(move || consume(Incoming { channel, piece: Bytes::new() }));
    while let Some(piece) = next_piece(&mut body).await {
        let broken = piece.is_err();
        if sender.send(piece).await.is_err() || broken {
            break;
        }
    }
    drop(sender);
    let result = work.await.map_err(io::Error::other);
    let drain = async { while let Some(Ok(_)) = next_piece(&mut body).await {} };
    let _ = tokio::time::timeout(DRAIN, drain).await;
    result
}

async fn next_piece<B>(body: &mut B) -> Option<io::Result<Bytes>>
where
    B: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin,
{
    loop {
        match body.frame().await? {
            Ok(frame) => {
                if let Ok(data) = frame.into_data() {
                    return Some(Ok(data));
                }
            }
            Err(error) => return Some(Err(io::Error::other(error))),
        }
    }
}
