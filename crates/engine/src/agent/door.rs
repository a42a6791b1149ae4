//! Where the agent of a sandbox is reached.

use std::path::PathBuf;
use std::time::Duration;

use garth_channel::{Host, Stream};
use garth_vm::ChannelAddress;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::agent;
use crate::error::Error;

/// How long a guest that runs may take to answer a new session.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way to an agent.
#[derive(Debug)]
pub(crate) enum Door {
    /// A socket, on which each connection is one of its own.
    Socket(PathBuf),
    /// A guest's channel, on which all connections go.
    Channel(Channel),
}

/// A guest's channel, opened again whenever it has ended.
#[derive(Debug)]
pub(crate) struct Channel {
    address: ChannelAddress,
    session: Mutex<Option<Host>>,
}

impl Channel {
    pub(crate) fn new(address: ChannelAddress) -> Self {
        Self { address, session: Mutex::default() }
    }

    /// A stream on the session that there is, or on a new one.
    pub(super) async fn open(&self) -> Result<Stream, Error> {
        self.open_within(PATIENCE).await
    }

    /// The same; a guest that has to boot first gets its time.
    pub(super) async fn open_within(&self, within: Duration) -> Result<Stream, Error> {
        let mut session = self.session.lock().await;
        if let Some(stream) = session.as_ref().and_then(|session| session.open().ok()) {
            return Ok(stream);
        }
        let pipe = connect(&self.address).await.map_err(|error| agent(error).step("connect"))?;
        let host = Host::connect(pipe, within).await.map_err(|error| agent(error).step("connect"))?;
        let stream = host.open().map_err(|error| agent(error).step("connect"))?;
        *session = Some(host);
        Ok(stream)
    }
}

/// What waits in it waits for a bounded time.
async fn connect(address: &ChannelAddress) -> std::io::Result<UnixStream> {
    let address = address.clone();
    let connected = tokio::task::spawn_blocking(move || address.connect()).await.map_err(std::io::Error::other)?;
    let stream = connected.map_err(std::io::Error::other)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
