//! A process's output as a stream, for both of the services that offer it.

use std::time::Duration;

use connectrpc::RequestContext;
use futures::Stream;
use futures::stream::unfold;
use garth_protocol::agent::Ended;
use tokio::time::timeout;

use crate::process::{Chunk, Next, Reader};

/// One message's worth.
#[derive(Debug)]
pub enum Update {
    /// Output.
    Chunk(Chunk),
    /// Nothing happened for a while.
    KeepAlive,
    /// The leader has ended. The last of its stream.
    Ended(Ended),
}

/// How often an idle stream says that it is alive: what the client asks for in `Keepalive-Ping-Interval`, in seconds.
pub fn ping_interval(context: &RequestContext) -> Option<Duration> {
    let seconds: u64 = context.header("keepalive-ping-interval")?.to_str().ok()?.parse().ok()?;
    (seconds > 0).then(|| Duration::from_secs(seconds))
}

/// Everything until the leader's end.
pub fn follow(reader: Reader, ping: Option<Duration>) -> impl Stream<Item = Update> + Send {
    unfold(Some(reader), move |reader| async move {
        let mut reader = reader?;
        let next = match ping {
            Some(ping) => timeout(ping, reader.next()).await.unwrap_or(Next::Nothing),
            None => reader.next().await,
        };
        Some(match next {
            Next::Ended(ended) => (Update::Ended(ended), None),
            Next::Chunk(chunk) => (Update::Chunk(chunk), Some(reader)),
            Next::Nothing => (Update::KeepAlive, Some(reader)),
        })
    })
}

/// What there is now, and the end if it has come.
pub fn replay(reader: Reader) -> impl Stream<Item = Update> + Send {
    unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.now().await {
            Next::Ended(ended) => Some((Update::Ended(ended), None)),
            Next::Chunk(chunk) => Some((Update::Chunk(chunk), Some(reader))),
            Next::Nothing => None,
        }
    })
}
