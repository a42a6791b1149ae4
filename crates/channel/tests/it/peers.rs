//! Guests that are hostile, dead or of another time, as a host sees them.

use std::time::Duration;

use garth_channel::frame::{Frame, LARGEST_PAYLOAD};
use garth_channel::{ConnectError, End, Host, OpenError, VERSION, Violation, WINDOW};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::{LONG, answer, encoded, greeting, host_and_raw_guest};

#[tokio::test]
async fn what_an_older_session_left_is_dropped_up_to_the_answer() {
    let (a, mut b) = UnixStream::pair().expect("pair");
    let mut stale = encoded(&[Frame::Data(3, &[9; 40_000]), Frame::Open(1)]);
    stale.truncate(40_000);
    // An answer that another host asked for.
    stale.extend(greeting([1; 16]));
    let (host, ()) = tokio::join!(Host::connect(a, LONG), answer(&mut b, &stale, VERSION));
    let mut stream = host.expect("connect").open().expect("open");
    b.write_all(&encoded(&[Frame::Data(1, b"hi"), Frame::Finish(1)])).await.expect("write");
    let mut text = String::new();
    stream.read_to_string(&mut text).await.expect("read");
    assert_eq!(text, "hi");
}

#[tokio::test]
async fn a_guest_that_floods_instead_of_answering_is_given_up() {
    let (a, mut b) = UnixStream::pair().expect("pair");
    let flood = tokio::spawn(async move { while b.write_all(&[0x1f; 1 << 16]).await.is_ok() {} });
    assert!(matches!(Host::connect(a, LONG).await, Err(ConnectError::Flood(_))));
    flood.await.expect("flood");
}

#[tokio::test]
async fn a_guest_that_says_nothing_is_given_up() {
    let (a, _b) = UnixStream::pair().expect("pair");
    let short = Duration::from_millis(1);
    assert!(matches!(Host::connect(a, short).await, Err(ConnectError::NoAnswer(given)) if given == short));
}

#[tokio::test]
async fn a_guest_of_another_version_is_named() {
    let (a, mut b) = UnixStream::pair().expect("pair");
    let (host, ()) = tokio::join!(Host::connect(a, LONG), answer(&mut b, b"", 9));
    assert!(matches!(host, Err(ConnectError::Version { theirs: 9, ours: VERSION })));
}

#[tokio::test]
async fn a_pipe_that_ends_before_the_answer_is_an_error() {
    let (a, b) = UnixStream::pair().expect("pair");
    drop(b);
    assert!(matches!(Host::connect(a, LONG).await, Err(ConnectError::Pipe(_))));
}

#[tokio::test]
async fn a_guest_that_sends_beyond_the_window_ends_the_session() {
    let (host, mut raw) = host_and_raw_guest().await;
    let mut stream = host.open().expect("open");
    stream.write_all(b"x").await.expect("write");
    let payload = [1; LARGEST_PAYLOAD];
    let flood = encoded(&[Frame::Data(1, &payload)]);
    while raw.write_all(&flood).await.is_ok() {}
    assert_eq!(host.ended().await, End::Violation(Violation::BeyondWindow));
    let mut got = Vec::new();
    assert!(stream.read_to_end(&mut got).await.is_err());
    assert!(got.len() <= WINDOW);
    assert_eq!(host.open().expect_err("ended"), OpenError::Ended(End::Violation(Violation::BeyondWindow)));
}

#[tokio::test]
async fn garbage_ends_the_session() {
    let (host, mut raw) = host_and_raw_guest().await;
    raw.write_all(b"HTTP/1.1 200 OK\r\n").await.expect("write");
    assert_eq!(host.ended().await, End::Violation(Violation::Unknown));
}

#[tokio::test]
async fn a_guest_that_never_reads_holds_writers_and_not_the_host() {
    let (host, raw) = host_and_raw_guest().await;
    let mut writers = Vec::new();
    for _ in 0..100 {
        let mut stream = host.open().expect("open");
        writers.push(tokio::spawn(async move { stream.write_all(&vec![1; 1 << 20]).await }));
    }
    let refused = loop {
        match host.open() {
            Ok(stream) => drop(stream),
            Err(error) => break error,
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(refused, OpenError::Stalled);
    writers.iter().for_each(|writer| assert!(!writer.is_finished()));
    drop(raw);
    for writer in writers {
        assert!(writer.await.expect("task").is_err());
    }
}

#[tokio::test]
async fn a_host_that_lets_go_of_a_guest_that_never_reads_lets_go_of_the_pipe() {
    let (host, mut raw) = host_and_raw_guest().await;
    let mut stream = host.open().expect("open");
    let writer = tokio::spawn(async move { stream.write_all(&vec![1; 4 << 20]).await });
    // The pipe is full when the first bytes of it came and nobody reads on.
    raw.read_u8().await.expect("read");
    writer.abort();
    drop(host);
    assert!(writer.await.is_err());
    let mut rest = Vec::new();
    raw.read_to_end(&mut rest).await.expect("the end");
}
