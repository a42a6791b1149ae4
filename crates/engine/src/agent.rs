//! The way to the agent in one sandbox: HTTP/1.1 over a unix socket, on connections that are kept.
//!
//! Bytes pass as they are; nothing that an agent says is trusted or opened here.

mod door;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

use crate::error::{Cause, Error, ErrorKind};

pub(crate) use door::{Channel, Door};

/// The body of a request to an agent.
pub type Body = UnsyncBoxBody<Bytes, Cause>;

/// Idle connections kept per sandbox; each costs the agent and us a few KiB.
const KEPT: usize = 2;

/// Bytes of an answer that is read here and not passed on.
const LARGEST_ANSWER: usize = 512 << 10;

/// What is passed on of an agent's refusal.
const LONGEST_WORDS: usize = 300;

/// What the agent needs beyond the grace it is given, to kill the rest and answer.
const SLACK: Duration = Duration::from_secs(3);

/// How often a request that did not leave is tried on another connection.
const STALE_TRIES: usize = 3;

/// A connection to an agent, for one request.
#[derive(Debug)]
pub struct Link {
    agent: Arc<Agent>,
    connection: SendRequest<Body>,
}

impl Link {
    /// Sends a request and returns the head of its answer; both bodies go on streaming.
    pub async fn send(self, mut request: Request<Body>) -> Result<Response<Incoming>, Error> {
        let Self { agent: owner, mut connection } = self;
        request.headers_mut().insert(HOST, HeaderValue::from_static("agent"));
        for _ in 0..STALE_TRIES {
            match connection.try_send_request(request).await {
                Ok(answer) => return Ok(owner.keep(connection, answer)),
                // A kept connection that the agent had closed: the request never left.
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(agent(error.into_error())),
                },
            }
            connection = owner.connect().await?;
        }
        Err(ErrorKind::Agent.into())
    }
}

/// The agent of one sandbox.
#[derive(Debug)]
pub(crate) struct Agent {
    door: Door,
    idle: Mutex<Vec<SendRequest<Body>>>,
}

impl Agent {
    pub(crate) fn behind(door: Door) -> Self {
        Self { door, idle: Mutex::default() }
    }

    /// Waits until the agent in a guest answers at all.
    pub(crate) async fn booted(&self, within: Duration) -> Result<(), Error> {
        match &self.door {
            Door::Socket(_) => Ok(()),
            Door::Channel(channel) => channel.open_booted(within).await.map(drop),
        }
    }

    /// A connection for one request.
    pub(crate) async fn link(self: Arc<Self>) -> Result<Link, Error> {
        let connection = match self.take_idle() {
            Some(idle) => idle,
            None => self.connect().await?,
        };
        Ok(Link { agent: self, connection })
    }

    /// Has every process in the sandbox ended: SIGTERM, `grace`, SIGKILL.
    pub(crate) async fn shut_down(self: &Arc<Self>, grace: Duration) -> Result<(), Error> {
        let millis = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let body = Full::new(Bytes::from(shutdown_request(millis))).map_err(|never| match never {}).boxed_unsync();
        let mut request = Request::post("/garth.agent.v1.Sandbox/Shutdown").body(body).map_err(agent)?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/proto"));
        let answer = async { Arc::clone(self).link().await?.send(request).await };
        let answer = tokio::time::timeout(grace + SLACK, answer).await.map_err(agent)??;
        if !answer.status().is_success() {
            tracing::warn!(door = ?self.door, status = %answer.status(), "the agent refused to shut down");
        }
        Ok(())
    }

    /// Posts JSON and returns the answer's body, which is bounded.
    pub(crate) async fn post(self: &Arc<Self>, path: &str, json: Vec<u8>, within: Duration) -> Result<Bytes, Error> {
        let body = Full::new(Bytes::from(json)).map_err(|never| match never {}).boxed_unsync();
        let mut request = Request::post(path).body(body).map_err(agent)?;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let talk = async {
            let answer = Arc::clone(self).link().await?.send(request).await?;
            let status = answer.status();
            let body = bounded(answer).await?;
            match status.is_success() {
                true => Ok(body),
                false => {
                    let said: String = String::from_utf8_lossy(&body).chars().take(LONGEST_WORDS).collect();
                    Err(agent(format!("{path} was answered with {status}: {said}")))
                }
            }
        };
        tokio::time::timeout(within, talk).await.map_err(agent)?
    }

    async fn connect(&self) -> Result<SendRequest<Body>, Error> {
        match &self.door {
            Door::Socket(socket) => {
                let stream = UnixStream::connect(socket).await.map_err(|error| agent(error).step("connect"))?;
                begin(stream).await
            }
            Door::Channel(channel) => begin(channel.open().await?).await,
        }
    }

    fn take_idle(&self) -> Option<SendRequest<Body>> {
        let mut idle = self.idle();
        idle.retain(|connection| !connection.is_closed());
        let ready = idle.iter().rposition(SendRequest::is_ready)?;
        Some(idle.swap_remove(ready))
    }

    /// Keeps the connection for when the answer has been read to its end.
    fn keep(&self, connection: SendRequest<Body>, answer: Response<Incoming>) -> Response<Incoming> {
        let mut idle = self.idle();
        idle.retain(|connection| !connection.is_closed());
        // A connection left out here closes when its answer ends.
        if idle.iter().filter(|kept| kept.is_ready()).count() < KEPT {
            idle.push(connection);
        }
        answer
    }

    fn idle(&self) -> MutexGuard<'_, Vec<SendRequest<Body>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The body of an answer, which is bounded.
pub(crate) async fn bounded(answer: Response<Incoming>) -> Result<Bytes, Error> {
    Ok(Limited::new(answer.into_body(), LARGEST_ANSWER).collect().await.map_err(agent)?.to_bytes())
}

async fn begin<S>(stream: S) -> Result<SendRequest<Body>, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (connection, driver) = handshake(TokioIo::new(stream)).await.map_err(agent)?;
    // What the driver meets reaches the request that is under way.
    tokio::spawn(driver);
    Ok(connection)
}

fn agent(cause: impl Into<Cause>) -> Error {
    Error::because(ErrorKind::Agent, cause)
}

/// `garth.agent.v1.ShutdownRequest { grace_ms = 1 }` in protobuf: a tag and a varint, or nothing for zero.
fn shutdown_request(mut grace_ms: u64) -> Vec<u8> {
    let mut message = Vec::new();
    if grace_ms > 0 {
        message.push(0x08);
        while grace_ms >= 0x80 {
            message.push((grace_ms & 0x7f) as u8 | 0x80);
            grace_ms >>= 7;
        }
        message.push(grace_ms as u8);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grace_is_a_protobuf_varint() {
        assert!(shutdown_request(0).is_empty());
        assert_eq!(shutdown_request(1), [0x08, 1]);
        assert_eq!(shutdown_request(300), [0x08, 0xac, 0x02]);
    }

    #[tokio::test]
    async fn an_agent_that_is_gone_is_an_error_of_its_kind() {
        let agent = Arc::new(Agent::behind(Door::Socket("/nonexistent/agent.sock".into())));
        let error = agent.shut_down(Duration::ZERO).await.expect_err("no agent");
        assert_eq!((error.kind(), error.failed_step()), (&ErrorKind::Agent, Some("connect")));
    }
}
