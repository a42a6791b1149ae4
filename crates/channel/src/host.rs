//! The host's end.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use crate::driver::drive;
use crate::error::{ConnectError, End, OpenError};
use crate::frame::INBOX;
use crate::greeting::greet;
use crate::mux::Side;
use crate::pipe::Pipe;
use crate::session::Session;
use crate::stream::Stream;

/// A session with a guest. Clones are the same session; it is closed when the last of them and of its streams is
/// dropped.
#[derive(Clone, Debug)]
pub struct Host(Arc<Holder>);

#[derive(Debug)]
struct Holder(Arc<Session>);

impl Drop for Holder {
    fn drop(&mut self) {
        self.0.abandon();
    }
}

impl Host {
    /// Begins a session, on which a guest may have to boot first, and spawns the task that serves it.
    pub async fn connect<D>(duplex: D, within: Duration) -> Result<Self, ConnectError>
    where
        D: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut pipe = Pipe::new(duplex, INBOX);
        match tokio::time::timeout(within, greet(&mut pipe)).await {
            Ok(greeted) => greeted?,
            Err(_) => return Err(ConnectError::NoAnswer(within)),
        }
        let session = Arc::new(Session::new(Side::Host));
        let host = Self(Arc::new(Holder(Arc::clone(&session))));
        tokio::spawn(async move {
            drive(&mut pipe, &session, |_| {}).await;
        });
        Ok(host)
    }

    /// A new stream to the guest. It costs no round trip: it goes out with the first bytes that are written.
    pub fn open(&self) -> Result<Stream, OpenError> {
        let id = self.0.0.lock().mux.open()?;
        Ok(Stream::new(Arc::clone(&self.0.0), id))
    }

    /// Ends the session and all its streams, whoever holds them.
    pub fn close(&self) {
        self.0.0.end(End::Closed);
    }

    /// Waits for the end of the session and says why.
    pub async fn ended(&self) -> End {
        self.0.0.ended().await
    }
}
