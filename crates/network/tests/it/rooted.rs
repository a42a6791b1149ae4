//! Each test is named for what it denies. The attacker is root of the user namespace that owns the
//! leased network namespace: it changes routes, addresses and hardware addresses at will, and sends
//! any frame.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;
use std::time::Duration;

use garth_network::Lease;

use crate::frames::{ICMP, ICMPV6, IPV4, Mac, datagram, datagram_to_port, ethernet, packet, packet4};
use crate::owned::{Owned, owned, wire};
use crate::world::{
    HOST, INTERNET4, INTERNET6, NEIGHBOUR4, NEIGHBOUR6, PRIVATE, UPLINK4, UPLINK6, World, id, inside, reached, serve,
    sh, tcp, udp,
};

const EVERYBODY: Mac = [0xff; 6];
const SOMEBODY: Mac = [2, 0, 0, 0, 0, 0x99];

/// Frames from one end of a wire to the other.
struct Link {
    host: Mac,
    sandbox: Mac,
}

impl Link {
    fn of(world: &World, owned: &Owned, lease: &Lease) -> Self {
        let host = sh(&world.host, &format!("ip -br link show {}", wire(world, lease)));
        Self { host: mac(&host), sandbox: mac(&owned.root("ip -br link show eth0")) }
    }

    fn frame(&self, (protocol, packet): (u16, Vec<u8>)) -> Vec<u8> {
        ethernet(self.host, self.sandbox, protocol, &packet)
    }
}

fn mac(brief: &str) -> Mac {
    let text = brief.split_whitespace().nth(2).unwrap();
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    bytes.try_into().unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Counts what comes by here and is so.
fn count(netns: &OwnedFd, hook: &str, what: &str) {
    sh(
        netns,
        &format!(
            "nft 'add table inet ear; add chain inet ear {hook} {{ type filter hook {hook} priority 400; }};
             add rule inet ear {hook} {what} counter'"
        ),
    );
}

/// What [`count`] has counted in this namespace.
fn counted(netns: &OwnedFd) -> u64 {
    let rules = sh(netns, "nft list table inet ear");
    let numbers = rules.split("packets ").skip(1).map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap());
    numbers.sum()
}

/// How many packets `eth0` has received.
fn received(owned: &Owned) -> u64 {
    let links = owned.root("cat /proc/net/dev");
    let eth0 = links.lines().find_map(|line| line.trim().strip_prefix("eth0:")).unwrap();
    eth0.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// Sends the frames, then an honest datagram of each family, which must arrive outside as the first.
fn send_all(world: &World, owned: &Owned, lease: &Lease, frames: &[Vec<u8>]) {
    let link = Link::of(world, owned, lease);
    let sinks = [INTERNET4, INTERNET6].map(|to| inside(&world.outside, || UdpSocket::bind((to, 8888)).unwrap()));
    let honest = |from: IpAddr, to: &str| link.frame(datagram(from, ip(to), b"honest"));
    let last = [honest(lease.ipv4.into(), INTERNET4), honest(lease.ipv6.unwrap().into(), INTERNET6)];
    owned.send(&[frames, &last].concat());
    for sink in sinks {
        sink.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; 16];
        let length = sink.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"honest");
    }
}

fn gateways(lease: &Lease) -> [String; 2] {
    let mut v6 = lease.ipv6.unwrap().octets();
    v6[14..].copy_from_slice(&[0, 1]);
    [lease.nameserver.to_string(), IpAddr::from(v6).to_string()]
}

#[test]
fn without_its_inner_wall_it_reaches_the_internet_and_nothing_else() {
    let Some((world, owned, lease)) = owned("without_its_inner_wall_it_reaches_the_internet_and_nothing_else") else {
        return;
    };
    owned.root("ip route flush type prohibit; ip -6 route flush type prohibit");
    assert!(!owned.root("ip route; ip -6 route").contains("prohibit"));
    let victim = world.network.lease(id()).unwrap();
    let victims = [victim.ipv4.to_string(), victim.ipv6.unwrap().to_string()];
    serve(&victim.netns, &[victims[0].as_str(), victims[1].as_str()]);
    let gateways = gateways(&lease);
    let refused = PRIVATE.iter().chain(&[NEIGHBOUR4, NEIGHBOUR6]).chain(&HOST).copied();
    for address in refused.chain(victims.iter().chain(&gateways).map(String::as_str)) {
        assert!(!reached(&lease.netns, address), "{address}");
    }
    assert_eq!(tcp(&lease.netns, INTERNET4).unwrap(), UPLINK4);
    assert_eq!(tcp(&lease.netns, INTERNET6).unwrap(), UPLINK6);
    assert!(tcp(&world.host, &victims[0]).is_ok(), "the victim answers whoever may ask");
}

#[test]
fn a_forged_source_in_any_frame_is_dropped() {
    let Some((world, owned, lease)) = owned("a_forged_source_in_any_frame_is_dropped") else { return };
    let victim = world.network.lease(id()).unwrap();
    let link = Link::of(&world, &owned, &lease);
    let known = [victim.ipv4.to_string(), victim.ipv6.unwrap().to_string()];
    let odd = ["0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "8.8.8.8", "::", "::1", "fe80::bad", "ff02::1"];
    let unleased = [Ipv4Addr::from_bits(lease.ipv4.to_bits() | 0xf00).to_string()];
    let gateways = gateways(&lease);
    let forged = known.iter().chain(&gateways).chain(&unleased).map(String::as_str);
    let forged = forged.chain(HOST).chain(odd).chain([INTERNET4, INTERNET6, NEIGHBOUR4, NEIGHBOUR6]);
    let mut frames = Vec::new();
    for from in forged.map(ip) {
        let targets = [INTERNET4, UPLINK4, NEIGHBOUR4, &known[0], INTERNET6, UPLINK6, NEIGHBOUR6, &known[1]];
        for to in targets.map(ip).into_iter().filter(|to| to.is_ipv4() == from.is_ipv4()) {
            let (protocol, packet) = datagram(from, to, b"forged");
            frames.push(ethernet(link.host, link.sandbox, protocol, &packet));
            frames.push(ethernet(link.host, SOMEBODY, protocol, &packet));
            frames.push(ethernet(EVERYBODY, SOMEBODY, protocol, &packet));
            // VLAN 0 is no VLAN: the tag is taken off and the packet received.
            frames.push(ethernet(
                link.host,
                link.sandbox,
                0x8100,
                &[&[0, 0], &protocol.to_be_bytes()[..], &packet].concat(),
            ));
            frames.push(ethernet(
                link.host,
                link.sandbox,
                0x8100,
                &[&[0, 7], &protocol.to_be_bytes()[..], &packet].concat(),
            ));
        }
    }
    for netns in [&world.host, &victim.netns, &world.neighbour] {
        count(netns, "input", "udp dport 8888");
    }
    send_all(&world, &owned, &lease, &frames);
    for netns in [&world.host, &victim.netns, &world.neighbour] {
        assert_eq!(counted(netns), 0);
    }
}

#[test]
fn its_own_address_in_any_frame_opens_nothing_else() {
    let Some((world, owned, lease)) = owned("its_own_address_in_any_frame_opens_nothing_else") else { return };
    let victim = world.network.lease(id()).unwrap();
    let link = Link::of(&world, &owned, &lease);
    let known = [victim.ipv4.to_string(), victim.ipv6.unwrap().to_string()];
    let gateways = gateways(&lease);
    let host_link_local = sh(&world.host, "ip -6 -br addr show dev up0 scope link");
    let host_link_local = host_link_local.split_whitespace().nth(2).unwrap().split('/').next().unwrap();
    let others = ["224.0.0.1", "255.255.255.255", "127.0.0.1", "0.0.0.0", "ff02::1", "ff05::2", "::1", "fe80::1"];
    let denied = known.iter().chain(&gateways).map(String::as_str).chain(others).chain([host_link_local]);
    let denied = denied.chain(HOST).chain([NEIGHBOUR4, NEIGHBOUR6]).chain(PRIVATE);
    let mut frames = Vec::new();
    for to in denied.map(ip) {
        let from = if to.is_ipv4() { IpAddr::V4(lease.ipv4) } else { IpAddr::V6(lease.ipv6.unwrap()) };
        let (protocol, packet) = datagram(from, to, b"denied");
        frames.push(ethernet(link.host, link.sandbox, protocol, &packet));
        frames.push(ethernet(EVERYBODY, link.sandbox, protocol, &packet));
    }
    let own = IpAddr::V4(lease.ipv4);
    for to in [UPLINK4, &gateways[0]] {
        // IGMP, IPv4 and IPv6 in IPv4, TCP, GRE, ESP, SCTP.
        for protocol in [2, 4, 41, 6, 47, 50, 132] {
            frames.push(link.frame(packet(own, ip(to), protocol, &[0x45; 40])));
        }
    }
    frames.push(link.frame(datagram_to_port(53, own, ip(UPLINK4), b"a name server of the host")));
    for netns in [&victim.netns, &world.neighbour] {
        count(netns, "input", "udp dport 8888");
    }
    count(&world.host, "input", "iifname \"gv*\"");
    count(&world.outside, "input", "udp dport 8888");
    send_all(&world, &owned, &lease, &frames);
    for netns in [&world.host, &victim.netns, &world.neighbour] {
        assert_eq!(counted(netns), 0);
    }
    assert_eq!(counted(&world.outside), 2, "the honest ones");
    owned.send(&[link.frame(datagram_to_port(53, own, ip(&gateways[0]), b"a question"))]);
    assert_eq!(counted(&world.host), 1, "DNS alone reaches the host");
}

#[test]
fn a_forged_fragment_takes_no_memory_of_the_host() {
    let Some((world, owned, lease)) = owned("a_forged_fragment_takes_no_memory_of_the_host") else { return };
    let link = Link::of(&world, &owned, &lease);
    let internet: Ipv4Addr = INTERNET4.parse().unwrap();
    let fragment = |from: Ipv4Addr| {
        const MORE: u16 = 0x2000;
        ethernet(link.host, link.sandbox, IPV4, &packet4(from, internet, 17, MORE, &[0; 64]))
    };
    let waiting = || {
        let sockets = sh(&world.host, "cat /proc/net/sockstat");
        let line = sockets.lines().find(|line| line.starts_with("FRAG:")).unwrap();
        line.split_whitespace().nth(2).unwrap().parse::<u32>().unwrap()
    };
    send_all(&world, &owned, &lease, &[fragment("8.8.8.8".parse().unwrap())]);
    assert_eq!(waiting(), 0);
    send_all(&world, &owned, &lease, &[fragment(lease.ipv4)]);
    assert_eq!(waiting(), 1, "an honest one waits for the rest");
}

/// ICMPv6 messages of RFC 4861 that would change what the host believes, each with `SOMEBODY` as
/// the hardware address of the host's router.
fn beliefs() -> Vec<Vec<u8>> {
    let router = match ip("2001:7f8:50::1") {
        IpAddr::V6(router) => router.octets(),
        IpAddr::V4(_) => unreachable!(),
    };
    let address = |kind: u8| [&[kind, 1], &SOMEBODY[..]].concat();
    let message = |head: [u8; 8], rest: &[&[u8]]| [&head[..], &rest.concat()].concat();
    vec![
        message([133, 0, 0, 0, 0, 0, 0, 0], &[&address(1)]),
        message([134, 0, 0, 0, 64, 0, 0x07, 0x08], &[&[0; 8], &address(1)]),
        message([135, 0, 0, 0, 0, 0, 0, 0], &[&router, &address(1)]),
        message([136, 0, 0, 0, 0xe0, 0, 0, 0], &[&router, &address(2)]),
        message([137, 0, 0, 0, 0, 0, 0, 0], &[&router, &router, &address(2)]),
        // Multicast listener report, version 2.
        message([143, 0, 0, 0, 0, 0, 0, 0], &[]),
    ]
}

#[test]
fn neighbour_and_router_messages_change_nothing_on_the_host() {
    let Some((world, owned, lease)) = owned("neighbour_and_router_messages_change_nothing_on_the_host") else { return };
    let link = Link::of(&world, &owned, &lease);
    assert!(tcp(&lease.netns, INTERNET4).is_ok() && tcp(&lease.netns, INTERNET6).is_ok(), "the routers are known");
    let state =
        || sh(&world.host, "ip route show table all; ip -6 route show table all; ip -br addr; ip neigh; ip maddr");
    let stable = |state: String| {
        // The router asks from its own link's address whether the host is still there.
        let lines = state.lines().filter(|line| !(line.starts_with("fe80::") && line.contains("dev up0")));
        let state = lines.collect::<Vec<_>>().join("\n");
        state.replace(" REACHABLE", "").replace(" STALE", "").replace(" DELAY", "").replace(" PROBE", "")
    };
    let before = stable(state());
    let wire = wire(&world, &lease);
    assert!(!sh(&world.host, &format!("ip addr show {wire}")).contains("fe80"), "the host's end has no such address");
    let own = lease.ipv6.unwrap().to_string();
    let mut frames = Vec::new();
    for from in [own.as_str(), "fe80::bad", "::", "2001:7f8:50::1"] {
        for to in ["ff02::1", "ff02::2", UPLINK6, "fe80::1"] {
            for message in beliefs() {
                let frame = packet(ip(from), ip(to), ICMPV6, &message);
                frames.push(link.frame(frame.clone()));
                frames.push(ethernet(EVERYBODY, SOMEBODY, frame.0, &frame.1));
            }
        }
    }
    // ICMP redirect: to the internet by way of the attacker.
    let wanted = packet4(UPLINK4.parse().unwrap(), INTERNET4.parse().unwrap(), 17, 0, &[0; 8]);
    for from in ["192.168.50.1", &lease.ipv4.to_string()] {
        let head = [&[5, 1, 0, 0], &lease.ipv4.octets()[..], &wanted].concat();
        frames.push(link.frame(packet(ip(from), ip(UPLINK4), ICMP, &head)));
    }
    frames.extend(arp(&lease));
    send_all(&world, &owned, &lease, &frames);
    assert_eq!(stable(state()), before);
}

/// Requests and unasked answers for addresses of the host, its router, and the sandbox.
fn arp(lease: &Lease) -> Vec<Vec<u8>> {
    let own = lease.ipv4.to_string();
    let mut frames = Vec::new();
    for target in [UPLINK4, "192.168.50.1", "10.99.0.1", &lease.nameserver.to_string(), &own] {
        for (operation, sender) in [(1, own.as_str()), (1, "0.0.0.0"), (2, target), (1, target)] {
            let octets = |text: &str| text.parse::<Ipv4Addr>().unwrap().octets();
            let head = [0, 1, 8, 0, 6, 4, 0, operation];
            let body = [&head[..], &SOMEBODY, &octets(sender), &[0; 6], &octets(target)].concat();
            frames.push(ethernet(EVERYBODY, SOMEBODY, 0x0806, &body));
        }
    }
    frames
}

#[test]
fn arp_and_frames_of_other_protocols_get_no_answer() {
    let Some((world, owned, lease)) = owned("arp_and_frames_of_other_protocols_get_no_answer") else { return };
    let link = Link::of(&world, &owned, &lease);
    let mut frames = arp(&lease);
    let inner = datagram(lease.ipv4.into(), ip(UPLINK4), b"inner").1;
    // LLC test and XID commands, spanning tree, RARP, AppleTalk, IPX, loop-back, MPLS, PPPoE, 802.1X,
    // TIPC, 802.1ad, LLDP, MACsec, batman, FCoE, RoCE, DSA.
    let protocols = [
        0x0003, 0x0026, 0x8035, 0x809b, 0x8137, 0x9000, 0x8847, 0x8863, 0x8864, 0x888e, 0x88ca, 0x88a8, 0x88cc, 0x88e5,
        0x4305, 0x8906, 0x8915, 0xdada,
    ];
    for protocol in protocols {
        for to in [link.host, EVERYBODY, [1, 0x80, 0xc2, 0, 0, 0], [1, 0x80, 0xc2, 0, 0, 0xe]] {
            frames.push(ethernet(to, link.sandbox, protocol, &[&[0, 0, 0xf3][..], &inner].concat()));
        }
    }
    let before = received(&owned);
    send_all(&world, &owned, &lease, &frames);
    assert_eq!(received(&owned), before);
    owned.send(&[link.frame(datagram(lease.ipv4.into(), ip(UPLINK4), b"?"))]);
    assert_eq!(received(&owned), before + 1, "a refusal is an answer, so this test can fail");
}

#[test]
fn an_untracked_message_does_not_leave_the_host_untranslated() {
    let Some((world, owned, lease)) = owned("an_untracked_message_does_not_leave_the_host_untranslated") else {
        return;
    };
    let link = Link::of(&world, &owned, &lease);
    count(&world.outside, "prerouting", "ip6 saddr fc00::/7");
    count(&world.outside, "prerouting", "ip saddr != 192.168.50.0/24");
    let from = lease.ipv6.unwrap().into();
    let frames: Vec<_> =
        beliefs().iter().map(|message| link.frame(packet(from, ip(INTERNET6), ICMPV6, message))).collect();
    send_all(&world, &owned, &lease, &frames);
    assert_eq!(counted(&world.outside), 0);
}

#[test]
fn an_error_about_somebody_elses_connection_is_dropped() {
    let Some((world, owned, lease)) = owned("an_error_about_somebody_elses_connection_is_dropped") else { return };
    let link = Link::of(&world, &owned, &lease);
    let victim = world.network.lease(id()).unwrap();
    count(&world.outside, "prerouting", "icmp type destination-unreachable");
    let mut frames = Vec::new();
    for netns in [&victim.netns, &world.host] {
        let socket = inside(netns, || UdpSocket::bind("0.0.0.0:0").unwrap());
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(b"?", (INTERNET4, 7777)).unwrap();
        socket.recv(&mut [0; 8]).unwrap();
        // Masquerading keeps the port where it is free.
        let port = socket.local_addr().unwrap().port();
        let ports = [7777u16, port, 9, 0].map(u16::to_be_bytes).concat();
        let answer = packet4(INTERNET4.parse().unwrap(), UPLINK4.parse().unwrap(), 17, 0, &ports);
        for code in [3, 4] {
            let error = [&[3, code, 0, 0, 0, 0, 2, 0][..], &answer].concat();
            frames.push(link.frame(packet(lease.ipv4.into(), ip(INTERNET4), ICMP, &error)));
        }
    }
    send_all(&world, &owned, &lease, &frames);
    assert_eq!(counted(&world.outside), 0);
}

#[test]
fn another_hardware_address_harms_nobody_else() {
    let Some((world, owned, lease)) = owned("another_hardware_address_harms_nobody_else") else { return };
    let victim = world.network.lease(id()).unwrap();
    let theirs = mac(&sh(&victim.netns, "ip -br link show eth0"));
    let theirs = theirs.map(|byte| format!("{byte:02x}")).join(":");
    let neighbours = format!("ip neigh | grep -E '({}|{}) '; true", wire(&world, &lease), wire(&world, &victim));
    let before = sh(&world.host, &neighbours);
    assert_eq!(before.matches("PERMANENT").count(), 4);
    owned.root(&format!("ip link set eth0 down && ip link set eth0 address {theirs} promisc on arp on up"));
    assert!(!reached(&lease.netns, UPLINK4));
    assert!(udp(&victim.netns, INTERNET4) && udp(&victim.netns, INTERNET6));
    assert_eq!(sh(&world.host, &neighbours), before);
}

#[test]
fn a_forged_source_is_dropped_by_the_wire_when_no_rule_does() {
    let Some((world, owned, lease)) = owned("a_forged_source_is_dropped_by_the_wire_when_no_rule_does") else { return };
    let link = Link::of(&world, &owned, &lease);
    let World { host, outside: _outside, neighbour: _neighbour, data: _data, network } = world;
    drop(network);
    sh(&host, "nft flush ruleset");
    let sink = inside(&host, || UdpSocket::bind((UPLINK4, 8888)).unwrap());
    let frame = |from: &str, said: &[u8]| link.frame(datagram(ip(from), ip(UPLINK4), said));
    let forged = [NEIGHBOUR4, "192.168.50.1", "8.8.8.8"].map(|from| frame(from, b"forged"));
    owned.send(&[&forged[..], &[frame(&lease.ipv4.to_string(), b"honest")]].concat());
    sink.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut buffer = [0; 16];
    let length = sink.recv(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"honest", "which shows that no rule is there");
}
