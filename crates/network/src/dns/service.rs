//! The thread that the forwarder runs in: one tokio runtime, asleep while nobody asks.

use std::io;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use super::{Resolvers, Sockets, forwarder};
use crate::{Error, ErrorKind};

/// Runs until it is dropped; its sockets are closed then.
#[derive(Debug)]
pub(crate) struct Service {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts it in the network namespace of the calling thread.
    pub(crate) fn start(sockets: Sockets, upstream: Option<&[SocketAddr]>) -> Result<Self, Error> {
        let failed = |error: io::Error| Error::because(ErrorKind::Dns, "cannot start the DNS forwarder", error);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let resolvers = match upstream {
            Some(list) => Resolvers::Fixed(list.to_vec()),
            None => Resolvers::of_the_host(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = async move {
            tokio::select! {
                outcome = forwarder::serve(sockets, resolvers) => outcome,
                _ = stopped => Ok(()),
            }
        };
        let run = move || {
            if let Err(error) = runtime.block_on(serve) {
                tracing::error!(%error, "DNS for sandboxes has ended");
            }
        };
        let thread = std::thread::Builder::new().name("garth-dns".to_owned()).spawn(run).map_err(failed)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was printed when it happened.
            drop(thread.join());
        }
    }
}
