//! `GET /metrics` and `GET /healthz`.

#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::{Metrics, Pulse};

/// What clients may take.
#[derive(Debug, Clone, Copy)]
pub(in crate::operator) struct Limits {
    /// Connections at once; more wait to be accepted.
    connections: usize,
    /// For a request's head.
    head_within: Duration,
    /// For all of a connection, which is for one request.
    done_within: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 16, head_within: Duration::from_secs(5), done_within: Duration::from_secs(15) }
    }
}

/// Bytes of a request's head at most.
const HEAD: usize = 8 << 10;
/// After a connection that could not be accepted: there are too many open files, and time alone helps.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PLAIN: &str = "text/plain; charset=utf-8";

/// Answers for ever.
pub(in crate::operator) async fn serve(listener: TcpListener, metrics: Metrics, pulse: Pulse, limits: Limits) {
    let room = Arc::new(Semaphore::new(limits.connections));
    loop {
        let place = Arc::clone(&room).acquire_owned().await.expect("nobody closes it");
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = connection(stream, metrics.clone(), pulse.clone(), limits.head_within);
        tokio::spawn(async move {
            let _place = place;
            let _ = tokio::time::timeout(limits.done_within, connection).await;
        });
    }
}

async fn connection(stream: TcpStream, metrics: Metrics, pulse: Pulse, head_within: Duration) {
    let answers = service_fn(|request| {
        let answer = answer(&request, &metrics, &pulse, Instant::now());
        async { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_within)
        .max_header_size(HEAD)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), answers);
    // A client that goes away is nobody's error.
    let _ = connection.await;
}

fn answer<B>(request: &Request<B>, metrics: &Metrics, pulse: &Pulse, now: Instant) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => match metrics.text() {
            Ok(text) => respond(StatusCode::OK, OPEN_METRICS, text),
            Err(_) => respond(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, "a metric cannot be written\n"),
        },
        (&Method::GET, "/healthz") => match pulse.is_there(now) {
            true => respond(StatusCode::OK, PLAIN, "ok\n"),
            false => respond(StatusCode::SERVICE_UNAVAILABLE, PLAIN, "the lease was not looked at for too long\n"),
        },
        (_, "/metrics" | "/healthz") => {
            let mut refusal = respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET\n");
            refusal.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            refusal
        }
        _ => respond(StatusCode::NOT_FOUND, PLAIN, "there are /metrics and /healthz\n"),
    }
}

fn respond(status: StatusCode, kind: &'static str, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
