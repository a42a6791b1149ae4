//! How fast bytes go between the host and a sandbox.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::yard::{Yard, eventually};

/// What is sent each way.
const BYTES: usize = 3 << 20;
/// A rate under which that takes more than two seconds: one second's worth, and some packets, pass at once.
pub const RATE: &str = "1MiB";
/// Below what it then takes, above what it takes without.
pub const SLOW: Duration = Duration::from_millis(1500);

const SERVE: &str = "
import socket
s = socket.create_server(('0.0.0.0', 8000))
while True:
    c = s.accept()[0]
    try:
        if c.recv(1) == b's':
            c.sendall(bytes(3 << 20))
        else:
            left = 3 << 20
            while left:
                got = len(c.recv(1 << 16))
                if not got: break
                left -= got
            c.sendall(b'k')
    except OSError: pass
    c.close()
";

/// Starts what answers in a project that has a network.
pub fn serve(yard: &Yard, name: &str) {
    yard.ok(&["exec", "-d", name, "--", "python3", "-c", SERVE]);
    let address = address(yard, name);
    eventually("it answers", || {
        TcpStream::connect((address.as_str(), 8000)).is_ok_and(|mut s| s.write_all(b"s").is_ok())
    });
}

fn address(yard: &Yard, name: &str) -> String {
    yard.json(&["inspect", name])["addresses"]["ipv4"].as_str().expect("an address").to_owned()
}

/// How long the sandbox takes to send, and to receive.
pub fn measure(yard: &Yard, name: &str) -> [Duration; 2] {
    let address = address(yard, name);
    let connect = || TcpStream::connect((address.as_str(), 8000)).expect("connect");
    let begun = Instant::now();
    let (mut stream, mut received) = (connect(), Vec::new());
    stream.write_all(b"s").expect("ask");
    stream.read_to_end(&mut received).expect("receive");
    assert_eq!(received.len(), BYTES);
    let sent = begun.elapsed();
    let begun = Instant::now();
    let mut stream = connect();
    stream.write_all(b"r").and_then(|()| stream.write_all(&received)).expect("send");
    stream.read_exact(&mut [0]).expect("an answer");
    [sent, begun.elapsed()]
}
