//! What a sandbox with network `internet` must not reach. Nothing is sent outside this machine: every target is an
//! address of this host or of another sandbox.

use std::net::TcpListener;
use std::process::Command;

use crate::yard::Yard;

fn reaches(yard: &Yard, from: &str, address: &str, port: u16) -> bool {
    let line = format!("import socket; socket.create_connection(('{address}', {port}), 2)");
    yard.garth(&["exec", from, "--", "python3", "-c", &line]).code == 0
}

/// One more address of the host, on its loopback device, gone with the guard.
struct HostAddress(&'static str);

impl HostAddress {
    fn new(address: &'static str) -> Self {
        let added = Command::new("ip").args(["addr", "add", address, "dev", "lo"]).status().expect("ip");
        assert!(added.success());
        Self(address)
    }
}

impl Drop for HostAddress {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["addr", "del", self.0, "dev", "lo"]).status();
    }
}

#[test]
fn guest_cannot_reach_the_host_on_any_of_its_addresses() {
    let yard = Yard::new();
    yard.ok(&["create", "n"]);
    let _private = HostAddress::new("10.211.55.78/32");
    let server = TcpListener::bind("0.0.0.0:0").expect("listen");
    let port = server.local_addr().expect("address").port();
    assert!(std::net::TcpStream::connect(("10.211.55.78", port)).is_ok(), "the host reaches itself");
    let gateway = yard.sh("n", "ip route show default 2>/dev/null | cut -d' ' -f3 || true");
    for address in ["10.211.55.78", "127.0.0.1", "169.254.169.254", gateway.trim()] {
        if !address.is_empty() {
            assert!(!reaches(&yard, "n", address, port), "{address}");
        }
    }
}

#[test]
fn guest_cannot_reach_another_sandbox() {
    let yard = Yard::new();
    yard.ok(&["create", "a"]);
    yard.ok(&["create", "b"]);
    yard.ok(&["exec", "-d", "a", "--", "python3", "-m", "http.server", "--bind", "0.0.0.0", "8000"]);
    crate::yard::eventually("the server answers itself", || reaches(&yard, "a", "127.0.0.1", 8000));
    yard.sh("b", "true");
    let address = yard.json(&["inspect", "a"])["addresses"]["ipv4"].as_str().expect("an address").to_owned();
    assert!(reaches(&yard, "a", &address, 8000));
    assert!(!reaches(&yard, "b", &address, 8000));
}

#[test]
fn network_none_has_loopback_and_nothing_else() {
    let yard = Yard::new();
    yard.ok(&["create", "n", "--network", "none"]);
    assert_eq!(yard.sh("n", "ls /sys/class/net"), "lo");
    assert!(!reaches(&yard, "n", "10.211.55.78", 80));
}
