//! One stream, as its holder sees it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::frame::StreamId;
use crate::session::Session;

/// A byte stream in both directions. Shutting it down ends one direction; dropping it ends both.
///
/// What the other side sent before it ended can still be read, whatever the end was; then comes the end, or the error
/// that says why there is none.
#[derive(Debug)]
pub struct Stream {
    session: Arc<Session>,
    id: StreamId,
}

impl Stream {
    pub(crate) fn new(session: Arc<Session>, id: StreamId) -> Self {
        Self { session, id }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.session.change(|mux| mux.poll_read(self.id, cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.session.change(|mux| mux.poll_write(self.id, cx, bytes))
    }

    /// A frame for each: they go out together.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.session.change(|mux| {
            let mut written = 0;
            for slice in slices.iter().filter(|slice| !slice.is_empty()) {
                match mux.poll_write(self.id, cx, slice) {
                    Poll::Ready(Ok(taken)) => {
                        written += taken;
                        if taken < slice.len() {
                            break;
                        }
                    }
                    _ if written > 0 => break,
                    stopped => return stopped,
                }
            }
            Poll::Ready(Ok(written))
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is written goes out by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.change(|mux| mux.finish(self.id));
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.session.change(|mux| mux.drop_line(self.id));
    }
}
