//! Both ends, and a raw pipe for those who break the rules.

use std::time::Duration;

use bytes::BytesMut;
use garth_channel::frame::{Frame, Hello, PREAMBLE};
use garth_channel::{Guest, Host, Stream, VERSION};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Longer than any test: what never comes must not hang the run.
pub const LONG: Duration = Duration::from_secs(60);

/// A host and a guest that found each other.
pub async fn both() -> (Host, Guest) {
    let (a, b) = UnixStream::pair().expect("pair");
    let guest = Guest::new(b);
    (Host::connect(a, LONG).await.expect("connect"), guest)
}

/// Two ends of one stream.
pub async fn stream(host: &Host, guest: &mut Guest) -> (Stream, Stream) {
    let mut ours = host.open().expect("open");
    ours.write_all(b"!").await.expect("write");
    let mut theirs = guest.accept().await.expect("accept");
    assert_eq!(theirs.read_u8().await.expect("read"), b'!');
    (ours, theirs)
}

pub fn encoded(frames: &[Frame<'_>]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frames.iter().for_each(|frame| frame.encode(&mut out));
    out.to_vec()
}

/// What a host begins with.
pub fn greeting(nonce: [u8; 16]) -> Vec<u8> {
    let mut out = BytesMut::zeroed(PREAMBLE);
    Hello { version: VERSION, nonce }.encode(&mut out);
    out.to_vec()
}

/// Waits for a hello, and throws all before it away.
pub async fn await_hello(pipe: &mut UnixStream) -> Hello {
    let mut seen = Vec::new();
    loop {
        assert_ne!(pipe.read_buf(&mut seen).await.expect("read"), 0, "no hello");
        if let (_, Some(hello)) = Hello::find(&seen) {
            return hello;
        }
    }
}

/// A guest by hand: takes the host's hello and answers it behind `stale`.
pub async fn answer(pipe: &mut UnixStream, stale: &[u8], version: u32) {
    let nonce = await_hello(pipe).await.nonce;
    let mut out = BytesMut::from(stale);
    Hello { version, nonce }.encode(&mut out);
    pipe.write_all(&out).await.expect("answer");
}

/// A host and a guest by hand, in a session.
pub async fn host_and_raw_guest() -> (Host, UnixStream) {
    let (a, mut b) = UnixStream::pair().expect("pair");
    let (host, ()) = tokio::join!(Host::connect(a, LONG), answer(&mut b, b"", VERSION));
    (host.expect("connect"), b)
}
