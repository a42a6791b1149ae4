//! What a sandbox with network `internet` must not reach. Nothing is sent outside this machine: every target is an
//! address of this host.

use std::net::TcpListener;
use std::process::Command;

use crate::level::Sandbox;
use crate::street::Street;

levels! {
    every: network_none_has_loopback_and_nothing_else;
}

fn network_none_has_loopback_and_nothing_else(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh("ls /sys/class/net"), "lo");
    for address in ["10.211.55.78", "127.0.0.1", "169.254.169.254"] {
        let server = TcpListener::bind("0.0.0.0:0").expect("listen");
        let port = server.local_addr().expect("address").port();
        let line = format!("import socket; socket.create_connection(('{address}', {port}), 2)");
        assert_ne!(sandbox.exec(&["python3", "-c", &line]).code, 0, "{address}");
    }
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
    let _private = HostAddress::new("10.211.55.78/32");
    let server = TcpListener::bind("0.0.0.0:0").expect("listen");
    let port = server.local_addr().expect("address").port();
    assert!(std::net::TcpStream::connect(("10.211.55.78", port)).is_ok(), "the host reaches itself");
    Street::with("guest_cannot_reach_the_host_on_any_of_its_addresses", |street| {
        for attacker in street.attackers() {
            let gateway = street.yard.sh(attacker, "ip route show default | cut -d' ' -f3");
            assert!(!gateway.is_empty(), "{attacker} has no way out");
            for address in ["10.211.55.78", "127.0.0.1", "169.254.169.254", &gateway] {
                assert!(!street.reaches(attacker, address, port), "{attacker} reaches {address}");
            }
        }
    });
}
