//! What a channel costs over a socket pair: the round trip and the throughput, beside the bare pair.
//!
//! `cargo run --release -p garth-channel --example channel_speed`
#![forbid(unsafe_code)]

use std::time::{Duration, Instant};

use garth_channel::{Guest, Host};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

const TRIPS: usize = 20_000;
const MUCH: usize = 1 << 30;

#[tokio::main]
async fn main() {
    let (a, b) = UnixStream::pair().expect("pair");
    measure("bare", a, b).await;
    let (a, b) = UnixStream::pair().expect("pair");
    let mut guest = Guest::new(b);
    let host = Host::connect(a, Duration::from_secs(5)).await.expect("connect");
    let mut ours = host.open().expect("open");
    ours.write_all(b"!").await.expect("write");
    let mut theirs = guest.accept().await.expect("accept");
    theirs.read_u8().await.expect("read");
    measure("channel", ours, theirs).await;
}

/// The other side echoes until the trips are over, then swallows.
async fn measure<D>(name: &str, mut near: D, mut far: D)
where
    D: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let other = tokio::spawn(async move {
        let mut message = [0; 64];
        for _ in 0..TRIPS {
            far.read_exact(&mut message).await.expect("read");
            far.write_all(&message).await.expect("write");
        }
        let (mut block, mut left) = (vec![0; 256 << 10], MUCH);
        while left > 0 {
            left -= far.read(&mut block).await.expect("read");
        }
        far.write_all(b"!").await.expect("write");
    });
    let mut message = [7; 64];
    let mut trips = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let begun = Instant::now();
        near.write_all(&message).await.expect("write");
        near.read_exact(&mut message).await.expect("read");
        trips.push(begun.elapsed());
    }
    trips.sort();
    let (block, begun) = (vec![7; 256 << 10], Instant::now());
    for _ in 0..MUCH / block.len() {
        near.write_all(&block).await.expect("write");
    }
    near.read_u8().await.expect("read");
    let speed = MUCH as f64 / begun.elapsed().as_secs_f64() / f64::from(1 << 20);
    println!("{name}: trip p50 {:?} p99 {:?}, {speed:.0} MiB/s", trips[TRIPS / 2], trips[TRIPS * 99 / 100]);
    other.await.expect("other side");
}
