//! HTTP/1.1 on the agent's connections: one task for each, requests routed by path.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use connectrpc::{ConnectRpcBody, ConnectRpcService, Limits};
use garth_spec::pod;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::SetOnce;
use tokio::task::AbortHandle;
use tower::ServiceExt;

use crate::Shared;
use crate::connections::{Arrival, Connection, Listener, Stranger};
use crate::guest::{self, Machine};
use crate::idle::Held;
use crate::plain;
use crate::pod::Pod;
use crate::rpc::{self, Services};

/// The largest single message: arguments of 3 MiB, base64 and JSON included, and then some.
const LARGEST_MESSAGE: usize = 16 << 20;
/// How many may be on their way to prove that they know the key.
const MOST_STRANGERS: usize = 64;
/// A pause after a failed accept: without descriptors it fails at once again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Answers of all kinds.
pub enum Answer {
    /// Connect's.
    Rpc(ConnectRpcBody),
    /// Plain HTTP's.
    Plain(UnsyncBoxBody<Bytes, io::Error>),
}

impl Answer {
    /// No body.
    pub fn nothing() -> Self {
        Self::Plain(Empty::new().map_err(|never| match never {}).boxed_unsync())
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Rpc(body) => Pin::new(body).poll_frame(cx).map_err(io::Error::other),
            Self::Plain(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Rpc(body) => body.is_end_stream(),
            Self::Plain(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Rpc(body) => body.size_hint(),
            Self::Plain(body) => body.size_hint(),
        }
    }
}

/// What requests are answered with.
pub(crate) struct Site {
    /// In a virtual machine: what begins the rest.
    machine: Option<Machine>,
    /// In a Pod.
    pod: Option<Pod>,
    agent: SetOnce<(ConnectRpcService<Services>, Arc<Shared>)>,
}

impl Site {
    /// Of an agent that is complete.
    pub(crate) fn of(shared: Arc<Shared>) -> Self {
        let site = Self { machine: None, pod: None, agent: SetOnce::new() };
        site.begin(shared);
        site
    }

    /// Of an agent in a Pod, which has not begun.
    pub(crate) fn of_pod(pod: Pod) -> Self {
        Self { machine: None, pod: Some(pod), agent: SetOnce::new() }
    }

    /// Of a virtual machine that has not begun.
    pub(crate) fn of_machine(machine: Machine) -> Self {
        Self { machine: Some(machine), pod: None, agent: SetOnce::new() }
    }

    /// From now on requests reach the agent.
    pub(crate) fn begin(&self, shared: Arc<Shared>) {
        // The first thread of the pool, while there is room; and not sooner, as a guest may have to fork before.
        tokio::task::spawn_blocking(|| ());
        let limits =
            Limits::default().with_max_request_body_size(LARGEST_MESSAGE).with_max_message_size(LARGEST_MESSAGE);
        let rpc = ConnectRpcService::new(rpc::services(&shared)).with_limits(limits);
        // A second time is refused before it comes here.
        let _ = self.agent.set((rpc, shared));
    }

    /// Waits until there is an agent.
    pub(crate) async fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.agent.wait().await.1)
    }

    /// Returns once nothing has gone on in a Pod for as long as its project says.
    pub(crate) async fn idle(&self) {
        let quiet = self.shared().await.config.suspend_after_seconds;
        match (&self.pod, quiet) {
            (Some(pod), Some(quiet)) => pod.none_for(Duration::from_secs(quiet.into())).await,
            _ => std::future::pending().await,
        }
    }

    /// The agent, if there is one yet.
    pub(crate) fn begun(&self) -> Option<&Arc<Shared>> {
        self.agent.get().map(|(_, shared)| shared)
    }
}

/// Accepts for ever.
pub(crate) async fn serve(mut listener: Listener, site: Arc<Site>) -> io::Result<()> {
    let mut strangers = Strangers::default();
    loop {
        let arrival = match listener.accept().await {
            Ok(arrival) => arrival,
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match arrival {
            Arrival::Client(connection) => drop(tokio::spawn(converse(connection, Arc::clone(&site)))),
            Arrival::Stranger(stranger) => strangers.hear(stranger, &site),
        }
    }
}

/// Those who have yet to prove that they know the key. Whoever reaches the address may be one, and there are never more than
/// [`MOST_STRANGERS`]: who has been silent for longest is hung up on.
#[derive(Default)]
struct Strangers(VecDeque<AbortHandle>);

impl Strangers {
    fn hear(&mut self, stranger: Stranger, site: &Arc<Site>) {
        self.0.retain(|waiting| !waiting.is_finished());
        if self.0.len() == MOST_STRANGERS
            && let Some(first) = self.0.pop_front()
        {
            first.abort();
        }
        let site = Arc::clone(site);
        let proof = tokio::spawn(async move {
            // One who is no client is nobody's error.
            if let Ok(connection) = stranger.prove().await {
                tokio::spawn(converse(connection, site));
            }
        });
        self.0.push_back(proof.abort_handle());
    }
}

/// Answers on one connection until its client goes away.
async fn converse(connection: Connection, site: Arc<Site>) {
    let handler = hyper::service::service_fn(|request| answer(request, Arc::clone(&site)));
    let conversation = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(connection), handler);
    // That is nobody's error.
    let _ = conversation.await;
}

async fn answer(request: Request<Incoming>, site: Arc<Site>) -> Result<Response<Held>, Infallible> {
    let under_way = site.pod.as_ref().and_then(|pod| pod.begins(&request));
    let answer = answer_held(request, &site).await?;
    Ok(answer.map(|answer| Held::new(answer, under_way)))
}

async fn answer_held(request: Request<Incoming>, site: &Site) -> Result<Response<Answer>, Infallible> {
    if let Some(machine) = &site.machine
        && request.uri().path().starts_with(guest::PATHS)
    {
        return Ok(machine.answer(request, site).await);
    }
    if let Some(pod) = &site.pod
        && request.uri().path() == pod::BIND
    {
        return Ok(pod.bind(request, site).await);
    }
    let Some((rpc, shared)) = site.agent.get() else { return Ok(guest::not_begun()) };
    match plain::answer(request, shared).await {
        Ok(response) => Ok(response),
        Err(request) => Ok(rpc.clone().oneshot(request).await?.map(Answer::Rpc)),
    }
}

/// An answer of a status only.
pub fn empty(status: StatusCode) -> Response<Answer> {
    let mut response = Response::new(Answer::nothing());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use garth_channel::sealed::{self, Key};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn strangers_are_never_more_than_so_many_and_keep_no_client_out() {
        let key = Key::from_hex(&"0f".repeat(32)).expect("a key");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("an address");
        let serving = serve(Listener::Network(listener, key.clone()), Arc::new(Site::of_pod(Pod::new(None))));
        let serving = tokio::spawn(serving);
        let mut silent = Vec::new();
        for _ in 0..MOST_STRANGERS {
            silent.push(TcpStream::connect(address).await.expect("connect"));
        }
        let client = TcpStream::connect(address).await.expect("connect");
        // The first is hung up on for it, and not the last.
        assert_eq!(silent[0].read(&mut [0]).await.expect("the end"), 0);
        let mut client = sealed::connect(client, &key).await.expect("it knows the key");
        client.write_all(b"GET /files HTTP/1.1\r\nHost: x\r\n\r\n").await.expect("ask");
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.expect("an answer");
        assert!(answer.starts_with(b"HTTP/1.1 "), "{}", String::from_utf8_lossy(&answer));
        let mut last = silent.pop().expect("the last");
        assert!(matches!(last.try_read(&mut [0]), Err(error) if error.kind() == io::ErrorKind::WouldBlock));
        last.shutdown().await.expect("goes");
        serving.abort();
    }
}
