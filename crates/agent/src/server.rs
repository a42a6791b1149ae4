//! HTTP/1.1 on the agent's connections: one task for each, requests routed by path.

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
use tower::ServiceExt;

use crate::Shared;
use crate::connections::Listener;
use crate::guest::{self, Machine};
use crate::idle::Held;
use crate::plain;
use crate::pod::Gate;
use crate::rpc::{self, Services};

/// The largest single message: arguments of 3 MiB, base64 and JSON included, and then some.
const LARGEST_MESSAGE: usize = 16 << 20;
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
    pod: Option<Gate>,
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
    pub(crate) fn of_pod(gate: Gate) -> Self {
        Self { machine: None, pod: Some(gate), agent: SetOnce::new() }
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
            (Some(gate), Some(quiet)) => gate.none_for(Duration::from_secs(quiet.into())).await,
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
    loop {
        let arrival = match listener.accept().await {
            Ok(arrival) => arrival,
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let site = Arc::clone(&site);
        tokio::spawn(async move {
            // A client that goes away, or is none, is nobody's error.
            let Ok(stream) = arrival.connection().await else { return };
            let handler = hyper::service::service_fn(|request| answer(request, Arc::clone(&site)));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(None)
                .serve_connection(TokioIo::new(stream), handler);
            let _ = connection.await;
        });
    }
}

async fn answer(request: Request<Incoming>, site: Arc<Site>) -> Result<Response<Held>, Infallible> {
    let under_way = site.pod.as_ref().and_then(|gate| gate.begins(&request));
    let answer = answer_held(request, &site).await?;
    Ok(answer.map(|answer| Held::new(answer, under_way)))
}

async fn answer_held(request: Request<Incoming>, site: &Site) -> Result<Response<Answer>, Infallible> {
    if let Some(machine) = &site.machine
        && request.uri().path().starts_with(guest::PATHS)
    {
        return Ok(machine.answer(request, site).await);
    }
    if let Some(gate) = &site.pod
        && request.uri().path() == pod::BIND
    {
        return Ok(gate.bind(request, site).await);
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
