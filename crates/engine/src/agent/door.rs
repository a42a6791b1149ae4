//! Where the agent of a sandbox is reached.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use garth_channel::{Host, Stream};
use garth_vm::ChannelAddress;
use tokio::net::UnixStream;
use tokio::sync::Mutex;

use super::agent;
use crate::error::{Cause, Error};

/// How long a guest that runs may take to answer a new session.
const PATIENCE: Duration = Duration::from_secs(10);

/// A port that nobody in a guest listens on yet is tried again this soon: nothing tells when somebody does.
const LOOK_EVERY: Duration = Duration::from_millis(10);

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
        let mut session = self.session.lock().await;
        if let Some(stream) = session.as_ref().and_then(|session| session.open().ok()) {
            return Ok(stream);
        }
        let pipe = connect(&self.address).await.map_err(unconnected)?;
        begin(&mut session, pipe, PATIENCE).await
    }

    /// A stream on a new session, with a guest that has to boot first.
    pub(super) async fn open_booted(&self, within: Duration) -> Result<Stream, Error> {
        let deadline = Instant::now() + within;
        let mut session = self.session.lock().await;
        let pipe = loop {
            match connect(&self.address).await {
                Err(_) if Instant::now() < deadline => tokio::time::sleep(LOOK_EVERY).await,
                connected => break connected.map_err(unconnected)?,
            }
        };
        begin(&mut session, pipe, within).await
    }
}

async fn begin(session: &mut Option<Host>, pipe: UnixStream, within: Duration) -> Result<Stream, Error> {
    let host = Host::connect(pipe, within).await.map_err(unconnected)?;
    let stream = host.open().map_err(unconnected)?;
    *session = Some(host);
    Ok(stream)
}

fn unconnected(cause: impl Into<Cause>) -> Error {
    agent(cause).step("connect")
}

/// What waits in it waits for a bounded time.
async fn connect(address: &ChannelAddress) -> std::io::Result<UnixStream> {
    let address = address.clone();
    let connected = tokio::task::spawn_blocking(move || address.connect()).await.map_err(std::io::Error::other)?;
    let stream = connected.map_err(std::io::Error::other)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
