//! Leases into namespaces that somebody else has made.

use garth_network::{ErrorKind, Network, NetworkConfig};

use crate::owned::{Owned, owned, wire};
use crate::world::{INTERNET4, INTERNET6, UPLINK4, UPLINK6, eventually, id, inside, open, sh, tcp, udp, world};

#[test]
fn a_given_namespace_is_complete_when_it_is_leased() {
    let Some((world, owned, lease)) = owned("a_given_namespace_is_complete_when_it_is_leased") else { return };
    assert!(owned.is(&lease.netns));
    let made = world.network.lease(id()).unwrap();
    let state = "ip -o link | sed 's/ link.*//' | sed 's/@if[0-9]*//'; ip route | grep prohibit; ip -6 route | grep prohibit;
                 cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start; ip -br addr show lo";
    assert_eq!(sh(&lease.netns, state), sh(&made.netns, state));
    assert_eq!(tcp(&lease.netns, INTERNET4).unwrap(), UPLINK4);
    assert_eq!(tcp(&lease.netns, INTERNET6).unwrap(), UPLINK6);
    assert!(udp(&lease.netns, INTERNET4) && udp(&lease.netns, INTERNET6));
}

#[test]
fn root_inside_configures_its_network() {
    let Some((_world, owned, lease)) = owned("root_inside_configures_its_network") else { return };
    owned.root(
        "ip link add br0 type bridge && ip addr add 172.17.0.1/16 dev br0 && ip link set br0 up &&
         echo 1 > /proc/sys/net/ipv4/ip_forward && nft add table ip mine && ip route add 9.9.9.9 via 172.17.0.2",
    );
    assert_eq!(tcp(&lease.netns, INTERNET4).unwrap(), UPLINK4);
}

#[test]
fn loopback_alone_in_a_given_namespace() {
    let Some(_world) = world("loopback_alone_in_a_given_namespace") else { return };
    let owned = Owned::new();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            Network::loopback_in(std::os::fd::AsFd::as_fd(&owned.netns)).unwrap();
            garth_kernel::netns::current().unwrap()
        });
        assert!(!owned.is(&thread.join().unwrap()), "the caller stays where it is");
    });
    assert!(owned.root("ip addr show lo").contains("127.0.0.1/8"));
    assert_eq!(owned.root("ip -br link | wc -l; ip route"), "1\n");
    // Whoever reads it sees it in the groups of their own user namespace.
    assert_eq!(sh(&owned.netns, "cat /proc/sys/net/ipv4/ping_group_range"), "0\t2147483647\n");
    assert_eq!(owned.root("cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "0\n");
}

#[test]
fn the_hosts_namespace_is_refused() {
    let Some(world) = world("the_hosts_namespace_is_refused") else { return };
    let refused = world.network.lease_in(id(), world.host.try_clone().unwrap()).map_err(|error| error.kind());
    assert_eq!(refused.unwrap_err(), ErrorKind::HostNamespace);
    let refused = inside(&world.host, || Network::loopback_in(std::os::fd::AsFd::as_fd(&world.host)));
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::HostNamespace));
    let no_namespace = std::fs::File::open("/dev/null").unwrap();
    assert_eq!(
        world.network.lease_in(id(), no_namespace.into()).map_err(|error| error.kind()).unwrap_err(),
        ErrorKind::Kernel
    );
    assert_eq!(sh(&world.host, "cat /proc/sys/net/ipv4/conf/eth0/forwarding 2>/dev/null || echo none"), "none\n");
    assert!(world.network.lease(id()).is_ok(), "and nothing is broken");
}

#[test]
fn a_namespace_that_is_not_empty_is_an_error_that_leaves_nothing() {
    let Some(world) = world("a_namespace_that_is_not_empty_is_an_error_that_leaves_nothing") else { return };
    let owned = Owned::new();
    owned.root("ip link add eth0 type bridge");
    let sandbox = id();
    let error = world.network.lease_in(sandbox, owned.netns.try_clone().unwrap()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Kernel, "{error}");
    assert!(!sh(&world.host, "ip -br link").contains("gvt1-"));
    owned.root("ip link del eth0");
    world.network.lease_in(sandbox, owned.netns.try_clone().unwrap()).unwrap();
}

#[test]
fn a_restarted_daemon_recovers_a_given_namespace() {
    let Some(mut world) = world("a_restarted_daemon_recovers_a_given_namespace") else { return };
    let owneds = [Owned::new(), Owned::new()];
    let ids = [id(), id()];
    let lease = |n: usize| world.network.lease_in(ids[n], owneds[n].netns.try_clone().unwrap()).unwrap();
    let [kept, swept] = [lease(0), lease(1)];
    drop(world.network);
    world.network = open(&world.host, NetworkConfig::new(world.data.path(), "t1"));
    assert!(world.network.recover(ids[0], &kept.record()).unwrap());
    world.network.sweep(&[ids[0]]).unwrap();
    assert_eq!(tcp(&kept.netns, INTERNET4).unwrap(), UPLINK4);
    assert!(!owneds[1].root("ip -br link").contains("eth0"), "its wire is gone");
    assert!(!world.network.recover(ids[1], &swept.record()).unwrap());
}

#[test]
fn a_wire_that_root_inside_deleted_is_released_like_any_other() {
    let Some(world) = world("a_wire_that_root_inside_deleted_is_released_like_any_other") else { return };
    let links = "ip -o link | sed 's/ .*@/ @/' | cut -d' ' -f1-2; ip route show table all; nft list ruleset";
    let before = sh(&world.host, links);
    let owneds: Vec<_> = (0..4).map(|_| Owned::new()).collect();
    let ids: Vec<_> = owneds.iter().map(|_| id()).collect();
    let lease = |n: usize| world.network.lease_in(ids[n], owneds[n].netns.try_clone().unwrap()).unwrap();
    let leases = [lease(0), lease(1), lease(2)];
    owneds[0].root("ip link del eth0");
    // Another one in its place, which is not ours, and whose name is nobody's business.
    owneds[0].root("ip link add eth0 type bridge && ip addr add 10.0.0.1/24 dev eth0 && ip link set eth0 up");
    // And one that was moved to a namespace within, which then ends.
    owneds[1].root(
        "unshare -n sh -c 'nsenter --net=/proc/$PPID/ns/net ip link set eth0 netns $$ name moved; ip link show moved'; true",
    );
    assert!(!owneds[1].root("ip -br link").contains("eth0"));
    assert!(!world.network.recover(ids[0], &leases[0].record()).unwrap());
    ids[..3].iter().for_each(|id| world.network.release(*id));
    let wires = || sh(&world.host, "ip -br link").matches("gvt1-").count();
    eventually("all three wires to go", || wires() == 0);
    owneds[0].root("ip link del eth0");
    assert_eq!(tcp(&lease(0).netns, INTERNET4).unwrap(), UPLINK4, "the namespace may be used again");
    let fresh = lease(3);
    assert!(wire(&world, &fresh).starts_with("gvt1-"));
    assert_eq!(tcp(&fresh.netns, INTERNET4).unwrap(), UPLINK4);
    world.network.release(ids[0]);
    world.network.release(ids[3]);
    world.network.close().unwrap();
    assert_eq!(sh(&world.host, links), before);
}
