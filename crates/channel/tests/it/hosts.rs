//! Hosts that come, die and come again, as a guest sees them.

use garth_channel::frame::Frame;
use garth_channel::{Guest, Host, VERSION};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::{LONG, await_hello, encoded, greeting, stream};

/// One pipe, as of a serial port: what is at its other end may change, the pipe does not.
async fn guest_with_raw_host() -> (Guest, UnixStream) {
    let (mut raw, pipe) = UnixStream::pair().expect("pair");
    let guest = Guest::new(pipe);
    raw.write_all(&greeting([7; 16])).await.expect("greet");
    assert_eq!(await_hello(&mut raw).await.nonce, [7; 16]);
    (guest, raw)
}

#[tokio::test]
async fn a_host_that_dies_within_a_frame_is_followed_by_the_next() {
    let (mut guest, mut raw) = guest_with_raw_host().await;
    let frames = encoded(&[Frame::Open(1), Frame::Data(1, b"whole"), Frame::Data(1, b"cut off")]);
    raw.write_all(&frames[..frames.len() - 4]).await.expect("write");
    let mut old = guest.accept().await.expect("accept");
    let mut text = [0; 5];
    old.read_exact(&mut text).await.expect("read");
    assert_eq!(&text, b"whole");
    let host = Host::connect(raw, LONG).await.expect("connect");
    assert!(old.read_u8().await.is_err(), "nothing of the frame that was cut off is delivered");
    stream(&host, &mut guest).await;
}

#[tokio::test]
async fn a_new_host_ends_the_streams_of_the_old_one_taken_or_not() {
    let (mut guest, mut raw) = guest_with_raw_host().await;
    raw.write_all(&encoded(&[Frame::Open(1), Frame::Open(2), Frame::Data(2, b"x")])).await.expect("write");
    let mut old = guest.accept().await.expect("accept");
    let host = Host::connect(raw, LONG).await.expect("connect");
    assert_eq!(old.read_u8().await.expect_err("ended").kind(), std::io::ErrorKind::ConnectionReset);
    assert!(old.write_all(b"x").await.is_err());
    stream(&host, &mut guest).await;
}

#[tokio::test]
async fn noise_before_the_first_hello_means_nothing() {
    let (mut raw, pipe) = UnixStream::pair().expect("pair");
    let mut guest = Guest::new(pipe);
    let mut noise: Vec<u8> = (0..=255).cycle().take(100_000).collect();
    noise.extend(b"\x1fgarth channel\r\n");
    raw.write_all(&noise).await.expect("noise");
    let host = Host::connect(raw, LONG).await.expect("connect");
    stream(&host, &mut guest).await;
}

#[tokio::test]
async fn a_host_of_another_version_learns_it_and_one_of_this_version_may_follow() {
    let (mut raw, pipe) = UnixStream::pair().expect("pair");
    let mut guest = Guest::new(pipe);
    let mut other = greeting([9; 16]);
    let at = other.len() - 21;
    other[at..at + 4].copy_from_slice(&77_u32.to_le_bytes());
    raw.write_all(&other).await.expect("greet");
    let hello = await_hello(&mut raw).await;
    assert_eq!((hello.version, hello.nonce), (VERSION, [9; 16]));
    let host = Host::connect(raw, LONG).await.expect("connect");
    stream(&host, &mut guest).await;
}

#[tokio::test]
async fn a_host_that_breaks_the_protocol_loses_its_session_and_may_begin_again() {
    let (mut guest, mut raw) = guest_with_raw_host().await;
    raw.write_all(&encoded(&[Frame::Open(1)])).await.expect("write");
    let mut old = guest.accept().await.expect("accept");
    raw.write_all(&encoded(&[Frame::Data(9, b"no such stream")])).await.expect("write");
    assert_eq!(old.read_u8().await.expect_err("ended").kind(), std::io::ErrorKind::InvalidData);
    // So that it knows.
    assert_eq!(await_hello(&mut raw).await.nonce, [0; 16]);
    let host = Host::connect(raw, LONG).await.expect("connect");
    stream(&host, &mut guest).await;
}

#[tokio::test]
async fn a_host_that_never_reads_stops_the_writers_and_not_the_next_host() {
    let (mut guest, mut raw) = guest_with_raw_host().await;
    let ids: Vec<_> = (1..=100).collect();
    let opens: Vec<_> = ids.iter().map(|id| Frame::Open(*id)).collect();
    raw.write_all(&encoded(&opens)).await.expect("write");
    let mut writers = Vec::new();
    for _ in &ids {
        let mut stream = guest.accept().await.expect("accept");
        writers.push(tokio::spawn(async move { stream.write_all(&vec![1; 1 << 20]).await }));
    }
    let host = Host::connect(raw, LONG).await.expect("connect");
    for writer in writers {
        assert!(writer.await.expect("task").is_err());
    }
    stream(&host, &mut guest).await;
}
