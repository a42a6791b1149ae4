//! Each test is named for what it denies. The attacker is stronger than any sandbox: root with
//! every capability inside the leased namespace.

use std::net::{SocketAddr, UdpSocket};

use garth_network::NetworkConfig;

use crate::world::{
    HOST, INTERNET4, INTERNET6, LONG, METADATA, NEIGHBOUR4, NEIGHBOUR6, PATIENCE, PRIVATE, World, eventually, id,
    inside, open, reached, serve, sh, tcp, udp, world,
};

/// Takes the routes away that refuse inside the sandbox, so that only the host's rules are left.
fn without_inner_wall(lease: &garth_network::Lease) {
    sh(&lease.netns, "ip route flush type prohibit; ip -6 route flush type prohibit");
    let left = sh(&lease.netns, "ip route; ip -6 route");
    assert!(!left.contains("prohibit"), "{left}");
}

/// Stops everything that the daemon does, and removes the host's rules, so that only the inner wall
/// is left. NAT stays, without which nothing would come back anyway.
fn without_outer_wall(world: World, lease: &garth_network::Lease) -> World {
    let World { host, outside, neighbour, data, network } = world;
    drop(network);
    let subnet = lease.ipv4;
    let masquerade = "add table ip n; add chain ip n p { type nat hook postrouting priority 100; }; add rule ip n p";
    sh(&host, &format!("nft flush ruleset; nft '{masquerade} ip saddr {subnet} masquerade'"));
    let network = open(&host, NetworkConfig::new(data.path(), "unused"));
    World { host, outside, neighbour, data, network }
}

#[test]
fn private_and_metadata_addresses_are_refused_by_the_host() {
    let Some(world) = world("private_and_metadata_addresses_are_refused_by_the_host") else { return };
    let lease = world.network.lease(id()).unwrap();
    without_inner_wall(&lease);
    assert!(tcp(&world.host, METADATA).is_ok(), "the host itself must reach it for this test to mean something");
    for address in PRIVATE.iter().chain(&[NEIGHBOUR4, NEIGHBOUR6]) {
        assert!(!reached(&lease.netns, address), "{address}");
    }
    assert!(tcp(&lease.netns, INTERNET4).is_ok());
}

#[test]
fn private_addresses_stay_refused_while_the_host_has_no_rules() {
    let Some(world) = world("private_addresses_stay_refused_while_the_host_has_no_rules") else { return };
    let lease = world.network.lease(id()).unwrap();
    let world = without_outer_wall(world, &lease);
    assert!(tcp(&lease.netns, INTERNET4).is_ok());
    for address in PRIVATE.iter().chain(&[NEIGHBOUR4, NEIGHBOUR6]) {
        assert!(!reached(&lease.netns, address), "{address}");
    }
    without_inner_wall(&lease);
    assert!(tcp(&lease.netns, METADATA).is_ok(), "without either wall it is reached");
    drop(world);
}

#[test]
fn a_refusal_comes_at_once() {
    let Some(world) = world("a_refusal_comes_at_once") else { return };
    let lease = world.network.lease(id()).unwrap();
    for wall in ["inner", "outer"] {
        let start = std::time::Instant::now();
        let error = tcp(&lease.netns, METADATA).unwrap_err();
        assert_ne!(error.kind(), std::io::ErrorKind::TimedOut, "{wall}: {error}");
        assert!(start.elapsed() < std::time::Duration::from_secs(3), "{wall}");
        without_inner_wall(&lease);
    }
}

#[test]
fn the_host_is_not_reached_on_any_of_its_addresses() {
    let Some(world) = world("the_host_is_not_reached_on_any_of_its_addresses") else { return };
    let lease = world.network.lease(id()).unwrap();
    without_inner_wall(&lease);
    let gateway = lease.nameserver.to_string();
    let gateway6 = sh(&lease.netns, "ip -6 route show default | cut -d' ' -f3");
    for address in HOST.iter().copied().chain([gateway.as_str(), gateway6.trim()]) {
        assert!(!reached(&lease.netns, address), "{address}");
        assert!(tcp(&world.host, address).is_ok(), "the host's own server answers the host at {address}");
    }
}

#[test]
fn sandboxes_do_not_reach_each_other() {
    let Some(world) = world("sandboxes_do_not_reach_each_other") else { return };
    let data = tempfile::tempdir().unwrap();
    let other_daemon = open(&world.host, NetworkConfig::new(data.path(), "t12"));
    let [attacker, victim] = [id(), id()].map(|id| world.network.lease(id).unwrap());
    let stranger = other_daemon.lease(id()).unwrap();
    without_inner_wall(&attacker);
    for victim in [&victim, &stranger] {
        let (v4, v6) = (victim.ipv4.to_string(), victim.ipv6.unwrap().to_string());
        serve(&victim.netns, &[v4.as_str(), v6.as_str()]);
        for address in [&v4, &v6] {
            assert!(!reached(&attacker.netns, address), "{address}");
            assert!(tcp(&world.host, address).is_ok(), "the host reaches {address}");
        }
    }
}

#[test]
fn nobody_outside_reaches_a_sandbox() {
    let Some(world) = world("nobody_outside_reaches_a_sandbox") else { return };
    let lease = world.network.lease(id()).unwrap();
    let (v4, v6) = (lease.ipv4.to_string(), lease.ipv6.unwrap().to_string());
    serve(&lease.netns, &[v4.as_str(), v6.as_str()]);
    for netns in [&world.outside, &world.neighbour] {
        for address in [&v4, &v6] {
            assert!(!reached(netns, address), "{address}");
        }
    }
}

#[test]
fn a_forged_source_address_is_dropped() {
    let Some(world) = world("a_forged_source_address_is_dropped") else { return };
    let [attacker, victim] = [id(), id()].map(|id| world.network.lease(id).unwrap());
    let sink4 = inside(&world.outside, || UdpSocket::bind((INTERNET4, 8888)).unwrap());
    let sink6 = inside(&world.outside, || UdpSocket::bind((INTERNET6, 8888)).unwrap());
    let victims = [victim.ipv4.to_string(), victim.ipv6.unwrap().to_string()];
    let forged = victims.iter().map(String::as_str).chain(HOST).chain(["8.8.8.8", NEIGHBOUR4, "2001:4860::8888"]);
    for address in forged {
        let length = if address.contains(':') { 128 } else { 32 };
        sh(&attacker.netns, &format!("ip addr add {address}/{length} dev eth0 nodad"));
        let to = if address.contains(':') { sink6.local_addr() } else { sink4.local_addr() }.unwrap();
        send(&attacker.netns, (address, 0), to, b"forged");
    }
    let own = [attacker.ipv4.to_string(), attacker.ipv6.unwrap().to_string()];
    for (sink, own) in [(&sink4, &own[0]), (&sink6, &own[1])] {
        send(&attacker.netns, (own, 0), sink.local_addr().unwrap(), b"honest");
        sink.set_read_timeout(Some(LONG)).unwrap();
        let mut buffer = [0; 16];
        let length = sink.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"honest");
    }
}

fn send(netns: &std::os::fd::OwnedFd, from: (&str, u16), to: SocketAddr, what: &[u8]) {
    inside(netns, || {
        let socket = UdpSocket::bind(from).unwrap();
        drop(socket.send_to(what, to));
    });
}

#[test]
fn a_wire_knows_its_neighbour_and_answers_no_arp() {
    let Some(world) = world("a_wire_knows_its_neighbour_and_answers_no_arp") else { return };
    let lease = world.network.lease(id()).unwrap();
    // The attacker claims the neighbour's address with another hardware address, loudly.
    sh(&lease.netns, "ip link set eth0 down; ip link set eth0 address 02:00:00:00:00:99; ip link set eth0 arp on up");
    let route = sh(&world.host, &format!("ip route show {}", lease.ipv4));
    let wire = route.split_whitespace().skip_while(|word| *word != "dev").nth(1).unwrap();
    assert!(sh(&world.host, &format!("ip link show {wire}")).contains("NOARP"));
    let neighbours = sh(&world.host, &format!("ip neigh show {}", lease.ipv4));
    assert!(neighbours.contains("PERMANENT") && !neighbours.contains("02:00:00:00:00:99"), "{neighbours}");
    sh(&lease.netns, &format!("ip route replace {} dev eth0", lease.nameserver));
    assert!(!reached(&lease.netns, &lease.nameserver.to_string()));
}

#[test]
fn a_rule_of_the_host_that_redirects_metadata_opens_nothing() {
    let Some(world) = world("a_rule_of_the_host_that_redirects_metadata_opens_nothing") else { return };
    let lease = world.network.lease(id()).unwrap();
    without_inner_wall(&lease);
    // As kube2iam and others do, but to a place that is allowed; and one to the host itself.
    sh(
        &world.host,
        &format!(
            "nft 'add table ip r; add chain ip r p {{ type nat hook prerouting priority -100; }};
             add rule ip r p ip daddr {METADATA} dnat to {INTERNET4}; add rule ip r p ip daddr 9.9.9.9 dnat to 172.30.0.1'"
        ),
    );
    assert!(!reached(&lease.netns, METADATA));
    assert!(!reached(&lease.netns, "9.9.9.9"));
}

#[test]
fn the_host_does_not_become_a_router_for_others() {
    let Some(world) = world("the_host_does_not_become_a_router_for_others") else { return };
    let lease = world.network.lease(id()).unwrap();
    assert!(tcp(&lease.netns, INTERNET4).is_ok());
    assert_eq!(sh(&world.host, "cat /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding"), "0\n0\n");
    assert!(!reached(&world.neighbour, INTERNET4) && !reached(&world.neighbour, INTERNET6));
    let sinks = [NEIGHBOUR4, NEIGHBOUR6].map(|ip| inside(&world.neighbour, || UdpSocket::bind((ip, 8888)).unwrap()));
    let heard = |sink: &UdpSocket| {
        let to = sink.local_addr().unwrap();
        send(&world.outside, (if to.is_ipv4() { "0.0.0.0" } else { "::" }, 0), to, b"?");
        sink.set_read_timeout(Some(PATIENCE)).unwrap();
        sink.recv(&mut [0; 8]).is_ok()
    };
    assert!(!sinks.iter().any(heard));
    drop(world.network);
    sh(&world.host, "nft delete table inet garth_forwarding");
    // Without the guard it is one, so the guard is what keeps it.
    eventually("the neighbour hears it", || sinks.iter().all(heard));
}

#[test]
fn one_sandbox_cannot_fill_the_connection_table() {
    let Some(world) = world("one_sandbox_cannot_fill_the_connection_table") else { return };
    let [greedy, modest] = [id(), id()].map(|id| world.network.lease(id).unwrap());
    inside(&greedy.netns, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        for port in 10_000..16_000u16 {
            drop(socket.send_to(b"x", (INTERNET4, port)));
        }
    });
    let flows: usize = sh(&world.host, "cat /proc/sys/net/netfilter/nf_conntrack_count").trim().parse().unwrap();
    assert!((4000..4200).contains(&flows), "{flows}");
    assert!(!reached(&greedy.netns, INTERNET4));
    assert!(tcp(&modest.netns, INTERNET4).is_ok());
}

#[test]
fn flushed_rules_come_back() {
    let Some(world) = world("flushed_rules_come_back") else { return };
    let lease = world.network.lease(id()).unwrap();
    let rules = "nft -s -t list table inet garth_t1; nft list table inet garth_forwarding";
    let before = sh(&world.host, rules);
    for blow in ["nft flush ruleset", "nft delete table inet garth_t1", "nft flush chain inet garth_t1 input"] {
        sh(&world.host, blow);
        eventually("the rules to be back", || crate::world::attempt(&world.host, rules).0 == before);
        assert!(!reached(&lease.netns, HOST[0]), "{blow}");
        assert!(tcp(&lease.netns, INTERNET4).is_ok(), "{blow}");
    }
}

#[test]
fn a_stopped_sandbox_leaves_no_tracked_connections() {
    let Some(world) = world("a_stopped_sandbox_leaves_no_tracked_connections") else { return };
    let [stopped, running] = [id(), id()];
    let leases = [stopped, running].map(|id| world.network.lease(id).unwrap());
    for lease in &leases {
        assert!(udp(&lease.netns, INTERNET4) && udp(&lease.netns, INTERNET6));
    }
    let tracked = || sh(&world.host, "cat /proc/net/nf_conntrack");
    let [gone, stays] = leases.each_ref().map(|lease| format!("src={} ", lease.ipv4));
    assert!(tracked().contains(&gone) && tracked().contains(&stays));
    world.network.release(stopped);
    eventually("the connections to be forgotten", || !tracked().contains(&gone));
    assert!(tracked().contains(&stays));
    eventually("IPv6 as well", || tracked().matches("ipv6").count() == 1);
}
