//! The way to the agent in one Pod: HTTP/1.1 over TCP, on connections that are kept.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use garth_spec::pod;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use super::error::{Error, ErrorKind};

/// The body of a request to an agent.
pub type Body = UnsyncBoxBody<Bytes, Box<dyn std::error::Error + Send + Sync>>;

/// A Pod in the same cluster answers in a millisecond; one on a node that is gone never does.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Idle connections kept per sandbox, and how long.
const KEPT: usize = 2;
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How often a connection on which nothing happens is asked whether its other end is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// Connections to agents.
#[derive(Debug)]
pub(super) struct Links(Client<HttpConnector, Body>);

/// A way to one agent.
#[derive(Debug)]
pub(super) struct Link {
    client: Client<HttpConnector, Body>,
    address: SocketAddr,
    token: Arc<str>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Nobody took the connection: nothing was sent.
    Unreached(Error),
    /// It broke, who knows when.
    Broken(Error),
}

impl Unanswered {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Unreached(error) | Self::Broken(error) => error,
        }
    }
}

impl Links {
    pub(super) fn new() -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_WITHIN));
        connector.set_keepalive(Some(KEEP_ALIVE));
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(KEPT).pool_idle_timeout(KEPT_FOR).pool_timer(TokioTimer::new());
        Self(builder.build(connector))
    }

    pub(super) fn to(&self, address: IpAddr, token: Arc<str>) -> Link {
        Link { client: self.0.clone(), address: SocketAddr::new(address, pod::PORT), token }
    }
}

impl Link {
    /// Sends a request and returns the head of its answer; both bodies go on streaming.
    ///
    /// # Errors
    /// When the agent cannot be reached, or says what is no HTTP.
    pub(super) async fn send(self, mut request: Request<Body>) -> Result<Response<Incoming>, Unanswered> {
        let error = |error: Box<dyn std::error::Error + Send + Sync>| Error::because(ErrorKind::Agent, error);
        let agent = |cause| Unanswered::Broken(error(cause));
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder().scheme("http").authority(self.address.to_string()).path_and_query(path).build();
        *request.uri_mut() = uri.map_err(|error| agent(error.into()))?;
        let mut token = HeaderValue::from_str(&self.token).map_err(|error| agent(error.into()))?;
        token.set_sensitive(true);
        request.headers_mut().insert(pod::TOKEN_HEADER, token);
        request.headers_mut().remove(http::header::HOST);
        self.client.request(request).await.map_err(|cause| match cause.is_connect() {
            true => Unanswered::Unreached(error(cause.into())),
            false => Unanswered::Broken(error(cause.into())),
        })
    }
}
