//! The wire of a guest.

use std::net::TcpStream;

use crate::yard::eventually;
use crate::{create_with, project};

const SERVE: &str =
    "import socket; s = socket.create_server(('0.0.0.0', 8000))\nwhile True: s.accept()[0].sendall(b'hello')";

fn reaches(yard: &crate::yard::Yard, from: &str, address: &str, port: u16) -> bool {
    let line = format!("import socket; socket.create_connection(('{address}', {port}), 3)");
    yard.garth(&["exec", from, "--", "python3", "-c", &line]).code == 0
}

/// Frames go both ways, also after the machine was another's for a while.
#[test]
fn the_host_reaches_a_guest_and_a_guest_reaches_neither_the_host_nor_another() {
    let test = "the_host_reaches_a_guest_and_a_guest_reaches_neither_the_host_nor_another";
    let Some(yard) = project(test, "unused") else { return };
    create_with(&yard, "n", "internet");
    yard.ok(&["exec", "-d", "n", "--", "python3", "-c", SERVE]);
    let address = || yard.json(&["inspect", "n"])["addresses"]["ipv4"].as_str().expect("an address").to_owned();
    let answers = |address: &str| {
        let mut said = String::new();
        let mut stream = TcpStream::connect((address, 8000)).ok()?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(3))).ok()?;
        let read = std::io::Read::read_to_string(&mut stream, &mut said);
        (read.is_ok() || said == "hello").then_some(said)
    };
    eventually("the guest answers the host", || answers(&address()).is_some_and(|said| said == "hello"));
    let server = std::net::TcpListener::bind("0.0.0.0:0").expect("listen");
    let port = server.local_addr().expect("address").port();
    for host in ["127.0.0.1", "169.254.169.254", &gateway(&yard)] {
        assert!(!reaches(&yard, "n", host, port), "{host}");
    }
    create_with(&yard, "o", "internet");
    assert!(!reaches(&yard, "o", &address(), 8000), "two guests reach each other");
    yard.ok(&["pause", "n"]);
    yard.ok(&["resume", "n"]);
    eventually("the guest answers the host again", || answers(&address()).is_some_and(|said| said == "hello"));
}

fn gateway(yard: &crate::yard::Yard) -> String {
    let route = yard.sh("n", "cat /proc/net/route");
    let gateway = route
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .find(|hex| hex.len() == 8 && *hex != "00000000");
    let bytes = u32::from_str_radix(gateway.expect("a gateway"), 16).expect("hex").to_le_bytes();
    std::net::Ipv4Addr::from(bytes).to_string()
}
