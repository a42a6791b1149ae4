use std::net::SocketAddr;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::super::tests::samples;
use super::*;

async fn served(limits: Limits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(serve(listener, Metrics::new(), Pulse::new(), limits));
    address
}

async fn asked(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let request = format!("{request} HTTP/1.1\r\nHost: operator\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn a_scrape_is_answered_and_nothing_else() {
    let address = served(Limits::default()).await;
    let answer = asked(address, "GET /metrics").await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.contains("application/openmetrics-text; version=1.0.0"),
        "{head}"
    );
    assert!(samples(body).iter().any(|sample| sample.name == "garth_operator_leader"));
    let long = format!("GET /metrics?{}", "x".repeat(HEAD));
    for (request, code) in [
        ("GET /healthz", "200"),
        ("POST /metrics", "405"),
        ("HEAD /healthz", "405"),
        ("GET /", "404"),
        ("POST /elsewhere", "404"),
        (&long, "431"),
    ] {
        let answer = asked(address, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{request}: {answer}");
    }
}

#[tokio::test]
async fn clients_that_say_nothing_keep_nobody_out_for_long() {
    let head_within = Duration::from_millis(300);
    let address = served(Limits { connections: 2, head_within, ..Limits::default() }).await;
    let began = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(TcpStream::connect(address).await.expect("a connection"));
    }
    assert!(asked(address, "GET /healthz").await.starts_with("HTTP/1.1 200 "));
    assert!(began.elapsed() >= head_within / 2, "a third at once: {:?}", began.elapsed());
    assert!(began.elapsed() < Limits::default().done_within, "not by its head: {:?}", began.elapsed());
}

#[tokio::test]
async fn a_connection_that_lasts_is_ended() {
    let done_within = Duration::from_millis(300);
    let address = served(Limits { connections: 1, head_within: Duration::from_secs(60), done_within }).await;
    let _silent = TcpStream::connect(address).await.expect("a connection");
    let began = Instant::now();
    assert!(asked(address, "GET /healthz").await.starts_with("HTTP/1.1 200 "));
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn an_operator_that_stands_still_is_not_well() {
    let (metrics, pulse, now) = (Metrics::new(), Pulse::new(), Instant::now());
    let asked = Request::get("/healthz").body(()).expect("a request");
    let code = |seconds| answer(&asked, &metrics, &pulse, now + Duration::from_secs(seconds)).status();
    assert_eq!((code(60), code(120)), (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE));
}
