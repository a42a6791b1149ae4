//! A router advertisement from a sandbox must not become the host's way to the internet.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket, sockopt};

use crate::world::{eventually, id, inside, sh, world};

/// Type 134, a lifetime of 30 minutes, and nothing else; RFC 4861 §4.2. The kernel adds the
/// checksum on a raw ICMPv6 socket.
const ADVERTISEMENT: [u8; 16] = [134, 0, 0, 0, 64, 0, 0x07, 0x08, 0, 0, 0, 0, 0, 0, 0, 0];

/// Sends it to all nodes from a link-local address, with the hop limit of 255 that it must have.
fn advertise(sandbox: &OwnedFd) {
    sh(sandbox, "ip addr replace fe80::bad/64 dev eth0 nodad; ip -6 route replace ff00::/8 dev eth0 table local");
    inside(sandbox, || {
        let socket = socket(AddressFamily::INET6, SocketType::RAW, Some(ipproto::ICMPV6)).unwrap();
        let index = rustix::net::netdevice::name_to_index(&socket, "eth0").unwrap();
        sockopt::set_ipv6_multicast_hops(&socket, 255).unwrap();
        let all_nodes = SocketAddrV6::new(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1), 0, 0, index);
        let from = SocketAddrV6::new(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xbad), 0, 0, index);
        rustix::net::bind(&socket, &from).unwrap();
        sendto(&socket, &ADVERTISEMENT, SendFlags::empty(), &all_nodes).unwrap();
    });
}

#[test]
fn a_router_advertisement_of_a_sandbox_is_ignored() {
    let Some(world) = world("a_router_advertisement_of_a_sandbox_is_ignored") else { return };
    let lease = world.network.lease(id()).unwrap();
    let route = sh(&world.host, &format!("ip route show {}", lease.ipv4));
    let wire = route.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap();
    // A packet over a veth pair is delivered before sendto(2) returns.
    let taken_over = || sh(&world.host, "ip -6 route show default").contains(wire);

    advertise(&lease.netns);
    assert!(!taken_over());
    drop(world.network);
    sh(&world.host, "nft flush ruleset");
    advertise(&lease.netns);
    assert!(!taken_over(), "the wire itself must ignore it when no rule does");
    sh(&world.host, &format!("echo 1 > /proc/sys/net/ipv6/conf/{wire}/accept_ra"));
    advertise(&lease.netns);
    // Without either wall it is believed, so this test can fail.
    eventually("the host takes the route", taken_over);
}
