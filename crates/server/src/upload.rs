//! A body that is read by code that blocks, without being held in memory.
//!
//! ```text
//! connection --chunks--> this task --a few chunks--> blocking thread: Read
//! ```

use std::io::{self, Read};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use garth_engine::{Engine, ImageEntry, ImageFormat};
use garth_spec::ImageName;
use tokio::sync::mpsc;

use crate::failure::Failure;

/// Chunks between the two; each is at most what one read of the connection gave.
const AHEAD: usize = 4;

/// How long a refused body is still read: a client that is cut off while it writes may miss the answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// A body on its way in.
pub(crate) struct Upload(BodyDataStream);

impl Upload {
    pub(crate) fn new(body: Body) -> Self {
        Self(body.into_data_stream())
    }

    /// Has the body made an image. On failure some of it may be unread.
    pub(crate) async fn import(
        &mut self,
        engine: &Engine,
        name: ImageName,
        format: ImageFormat,
    ) -> Result<ImageEntry, Failure> {
        let (sender, chunks) = mpsc::channel(AHEAD);
        let import = engine.import(name, format, Chunks { chunks, rest: Bytes::new() });
        // Ends when the body does, or when the importer wants no more of it.
        let feed = async {
            while let Some(chunk) = self.0.next().await {
                if sender.send(chunk.map_err(io::Error::other)).await.is_err() {
                    break;
                }
            }
            drop(sender);
        };
        let (imported, ()) = tokio::join!(import, feed);
        Ok(imported?)
    }

    /// Reads what is left and forgets it, for a while.
    pub(crate) async fn drain(mut self) {
        let read = async { while let Some(Ok(_)) = self.0.next().await {} };
        // Whether it was all of it does not matter.
        let _ = tokio::time::timeout(PATIENCE, read).await;
    }
}

/// The blocking end.
struct Chunks {
    chunks: mpsc::Receiver<io::Result<Bytes>>,
    rest: Bytes,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            match self.chunks.blocking_recv() {
                Some(chunk) => self.rest = chunk?,
                None => return Ok(0),
            }
        }
        let length = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}
