//! The way to the agent in one Pod: HTTP/1.1 on connections that are kept, and that nobody between the two can read.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use garth_channel::SealError;
use garth_channel::sealed::{self, Key, Sealed};
use garth_spec::pod;
use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::error::{Error, ErrorKind};

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The body of a request to an agent.
pub type Body = UnsyncBoxBody<Bytes, Cause>;

/// A Pod in the same cluster answers in a millisecond; one on a node that is gone never does.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Idle connections kept per sandbox, and how long.
const KEPT: usize = 2;
const KEPT_FOR: Duration = Duration::from_secs(60);
/// How often a connection on which nothing happens is asked whether its other end is still there.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A way to one agent; clones share its connections.
#[derive(Debug, Clone)]
pub(super) struct Link {
    client: Client<Connector, Body>,
    address: SocketAddr,
}

/// Makes connections to whoever knows the key.
#[derive(Debug, Clone)]
struct Connector {
    tcp: HttpConnector,
    key: Key,
}

/// One of them.
#[derive(Debug)]
struct SealedTcp(Sealed<TcpStream>);

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// There was no connection: nothing of the request was sent.
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

impl Link {
    pub(super) fn new(address: IpAddr, key: Key) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_WITHIN));
        tcp.set_keepalive(Some(KEEP_ALIVE));
        let mut builder = Client::builder(TokioExecutor::new());
        builder.pool_max_idle_per_host(KEPT).pool_idle_timeout(KEPT_FOR).pool_timer(TokioTimer::new());
        Self { client: builder.build(Connector { tcp, key }), address: SocketAddr::new(address, pod::PORT) }
    }

    /// The address of the Pod.
    pub(super) fn address(&self) -> IpAddr {
        self.address.ip()
    }

    /// Sends a request and returns the head of its answer; both bodies go on streaming.
    ///
    /// # Errors
    /// When the agent cannot be reached, does not know the key, or says what is no HTTP.
    pub(super) async fn send(&self, mut request: Request<Body>) -> Result<Response<Incoming>, Unanswered> {
        let error = |error: Cause| Error::because(ErrorKind::Agent, error);
        let agent = |cause| Unanswered::Broken(error(cause));
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let uri = Uri::builder().scheme("http").authority(self.address.to_string()).path_and_query(path).build();
        *request.uri_mut() = uri.map_err(|error| agent(error.into()))?;
        request.headers_mut().remove(http::header::HOST);
        self.client.request(request).await.map_err(|cause| match cause.is_connect() && !is_stranger(&cause) {
            true => Unanswered::Unreached(error(cause.into())),
            false => Unanswered::Broken(error(cause.into())),
        })
    }
}

/// Whether another than the agent answered, or one of another version: to wait mends neither.
fn is_stranger(error: &(dyn std::error::Error + 'static)) -> bool {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.into_iter().any(|cause| matches!(cause.downcast_ref(), Some(SealError::Stranger)))
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<SealedTcp>;
    type Error = Cause;
    type Future = BoxFuture<'static, Result<Self::Response, Cause>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Cause>> {
        self.tcp.poll_ready(cx).map_err(Cause::from)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connected, key) = (self.tcp.call(uri), self.key.clone());
        Box::pin(async move {
            let stream = connected.await?.into_inner();
            Ok(TokioIo::new(SealedTcp(sealed::connect(stream, &key).await?)))
        })
    }
}

impl Connection for SealedTcp {
    fn connected(&self) -> Connected {
        self.0.get_ref().connected()
    }
}

impl AsyncRead for SealedTcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for SealedTcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
