use std::collections::BTreeSet;

use garth_network::{ErrorKind, Network, NetworkConfig};

use crate::world::{INTERNET4, INTERNET6, UPLINK4, UPLINK6, World, eventually, id, open, reached, sh, tcp, udp, world};

/// Everything that Garth changes on a host.
fn state(world: &World) -> String {
    sh(
        &world.host,
        "ip -o link | sed 's/ .*@/ @/' | cut -d' ' -f1-2; ip addr | grep inet; ip route show table all; ip -6 route show table all;
         ip neigh | grep PERMANENT; nft list ruleset; for f in /proc/sys/net/ipv[46]/conf/*/*forwarding; do echo $f $(cat $f); done",
    )
}

fn wires(world: &World) -> usize {
    sh(&world.host, "ip -br link").lines().filter(|line| line.starts_with("gvt1-")).count()
}

#[test]
fn a_sandbox_reaches_the_internet_as_the_host() {
    let Some(world) = world("a_sandbox_reaches_the_internet_as_the_host") else { return };
    let lease = world.network.lease(id()).unwrap();
    assert_eq!(tcp(&lease.netns, INTERNET4).unwrap(), UPLINK4);
    assert_eq!(tcp(&lease.netns, INTERNET6).unwrap(), UPLINK6);
    assert!(udp(&lease.netns, INTERNET4));
    assert!(udp(&lease.netns, INTERNET6));
}

#[test]
fn nothing_is_touched_before_the_first_lease() {
    let Some(world) = world("nothing_is_touched_before_the_first_lease") else { return };
    let before = state(&world);
    world.network.sweep(&[]).unwrap();
    world.network.close().unwrap();
    assert_eq!(state(&world), before);
    assert!(!world.data.path().join("network.json").exists());
}

#[test]
fn everything_is_gone_after_the_last_lease_and_close() {
    let Some(world) = world("everything_is_gone_after_the_last_lease_and_close") else { return };
    let before = state(&world);
    let sandboxes: Vec<_> = (0..20).map(|_| id()).collect();
    let leases: Vec<_> = sandboxes.iter().map(|id| world.network.lease(*id).unwrap()).collect();
    assert_ne!(state(&world), before);
    sandboxes.iter().for_each(|id| world.network.release(*id));
    sandboxes.iter().for_each(|id| world.network.release(*id));
    world.network.close().unwrap();
    assert_eq!(state(&world), before);
    assert_eq!(world.network.lease(id()).map_err(|error| error.kind()).unwrap_err(), ErrorKind::Closed);
    drop(leases);
}

#[test]
fn closing_leaves_running_sandboxes_connected() {
    let Some(world) = world("closing_leaves_running_sandboxes_connected") else { return };
    let lease = world.network.lease(id()).unwrap();
    world.network.close().unwrap();
    assert_eq!(tcp(&lease.netns, INTERNET4).unwrap(), UPLINK4);
}

#[test]
fn leases_differ_and_a_sandbox_has_one() {
    let Some(world) = world("leases_differ_and_a_sandbox_has_one") else { return };
    let sandboxes: Vec<_> = (0..30).map(|_| id()).collect();
    let leases: Vec<_> = sandboxes.iter().map(|id| world.network.lease(*id).unwrap()).collect();
    let addresses: BTreeSet<_> = leases.iter().map(|lease| (lease.ipv4, lease.ipv6)).collect();
    assert_eq!(addresses.len(), leases.len());
    let again = world.network.lease(sandboxes[0]);
    assert_eq!(again.map_err(|error| error.kind()).unwrap_err(), ErrorKind::AlreadyLeased);
}

#[test]
fn a_released_wire_goes_and_its_address_waits() {
    let Some(world) = world("a_released_wire_goes_and_its_address_waits") else { return };
    let sandbox = id();
    let lease = world.network.lease(sandbox).unwrap();
    let route = format!("ip route show {}", lease.ipv4);
    assert!(sh(&world.host, &route).contains("gvt1-"));
    world.network.release(sandbox);
    eventually("the wire to go", || sh(&world.host, &route).is_empty());
    for _ in 0..20 {
        assert_ne!(world.network.lease(id()).unwrap().ipv4, lease.ipv4);
    }
}

#[test]
fn a_namespace_is_complete_when_it_is_leased() {
    let Some(world) = world("a_namespace_is_complete_when_it_is_leased") else { return };
    let lease = world.network.lease(id()).unwrap();
    let links = sh(&lease.netns, "ip -br link");
    assert_eq!(links.lines().count(), 2, "{links}");
    assert!(sh(&lease.netns, "ip link show eth0").contains("mtu 1400"), "the uplink's");
    assert!(!sh(&lease.netns, "ip -6 addr show eth0").contains("fe80"));
    assert_eq!(sh(&lease.netns, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"), "0\n");
    assert_eq!(sh(&lease.netns, "cat /proc/sys/net/ipv4/ping_group_range"), "0\t2147483647\n");
    assert!(tcp(&lease.netns, "127.0.0.1").is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused));
}

#[test]
fn loopback_only_is_just_that() {
    let Some(_world) = world("loopback_only_is_just_that") else { return };
    let netns = Network::loopback_only().unwrap();
    assert!(sh(&netns, "ip -br addr").starts_with("lo "), "and nothing before it");
    assert!(sh(&netns, "ip addr show lo").contains("127.0.0.1/8"));
    assert_eq!(sh(&netns, "ip -br link | wc -l; ip route"), "1\n");
    assert_eq!(sh(&netns, "cat /proc/sys/net/ipv4/ping_group_range"), "0\t2147483647\n");
}

#[test]
fn a_restarted_daemon_recovers_its_leases_and_sweeps_the_rest() {
    let Some(mut world) = world("a_restarted_daemon_recovers_its_leases_and_sweeps_the_rest") else { return };
    let before = state(&world);
    let [kept, lost, dead] = [id(), id(), id()];
    let [kept_lease, lost_lease, dead_lease] = [kept, lost, dead].map(|id| world.network.lease(id).unwrap());
    let dead_record = dead_lease.record();
    drop(dead_lease);
    let stored = serde_json::to_string(&kept_lease.record()).unwrap();
    drop(world.network);

    world.network = open(&world.host, NetworkConfig::new(world.data.path(), "t1"));
    assert!(world.network.recover(kept, &serde_json::from_str(&stored).unwrap()).unwrap());
    eventually("the dead sandbox's wire to go", || !world.network.recover(dead, &dead_record).unwrap());
    world.network.sweep(&[kept]).unwrap();
    assert_eq!(wires(&world), 1);
    assert_eq!(tcp(&kept_lease.netns, INTERNET4).unwrap(), UPLINK4);
    assert!(!reached(&lost_lease.netns, INTERNET4));
    let next = world.network.lease(id()).unwrap();
    assert_ne!(next.ipv4, kept_lease.ipv4);
    assert_eq!(tcp(&next.netns, INTERNET4).unwrap(), UPLINK4);

    world.network.sweep(&[]).unwrap();
    assert_eq!(state(&world), before);
    assert!(!world.network.recover(kept, &kept_lease.record()).unwrap());
}

#[test]
fn what_a_killed_daemon_left_is_swept_without_a_lease() {
    let Some(mut world) = world("what_a_killed_daemon_left_is_swept_without_a_lease") else { return };
    let before = state(&world);
    let lease = world.network.lease(id()).unwrap();
    drop(world.network);
    drop(lease);
    world.network = open(&world.host, NetworkConfig::new(world.data.path(), "t1"));
    world.network.sweep(&[]).unwrap();
    assert_eq!(state(&world), before);
}

#[test]
fn daemons_side_by_side_do_not_disturb_each_other() {
    let Some(world) = world("daemons_side_by_side_do_not_disturb_each_other") else { return };
    let before = state(&world);
    let data = tempfile::tempdir().unwrap();
    let other = open(&world.host, NetworkConfig::new(data.path(), "t12"));
    let [sandbox, stranger] = [id(), id()];
    let first = world.network.lease(sandbox).unwrap();
    let second = other.lease(stranger).unwrap();
    assert_ne!(first.ipv4.octets()[..3], second.ipv4.octets()[..3]);
    world.network.release(sandbox);
    world.network.close().unwrap();
    assert_eq!(tcp(&second.netns, INTERNET4).unwrap(), UPLINK4);
    assert_eq!(tcp(&second.netns, INTERNET6).unwrap(), UPLINK6);
    other.release(stranger);
    other.close().unwrap();
    assert_eq!(state(&world), before);
}

#[test]
fn a_new_uplink_is_followed() {
    let Some(world) = world("a_new_uplink_is_followed") else { return };
    let lease = world.network.lease(id()).unwrap();
    sh(&world.host, "ip link add name up1 type veth peer name peer1 && ip addr add 192.168.60.2/24 dev up1");
    sh(&world.host, "ip link set up1 up; ip link set peer1 up; ip route replace default via 192.168.60.1 dev up1");
    let forwards = "cat /proc/sys/net/ipv4/conf/up1/forwarding";
    eventually("the new uplink to forward", || sh(&world.host, forwards) == "1\n");
    drop(lease);
}

#[test]
fn forwarding_that_others_switch_off_comes_back() {
    let Some(world) = world("forwarding_that_others_switch_off_comes_back") else { return };
    let lease = world.network.lease(id()).unwrap();
    sh(&world.host, "echo 1 > /proc/sys/net/ipv4/ip_forward");
    let guarded = "nft list set inet garth_forwarding opened4";
    eventually("the guard to be lifted", || !sh(&world.host, guarded).contains("up0"));
    sh(&world.host, "echo 0 > /proc/sys/net/ipv4/ip_forward");
    eventually("the guard to be back", || sh(&world.host, guarded).contains("up0"));
    eventually("the sandbox to be connected", || reached(&lease.netns, INTERNET4));
}

#[test]
fn a_host_without_ipv6_gives_ipv4_alone() {
    let Some(world) = world("a_host_without_ipv6_gives_ipv4_alone") else { return };
    sh(
        &world.host,
        "echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6",
    );
    let lease = world.network.lease(id()).unwrap();
    assert_eq!(lease.ipv6, None);
    assert_eq!(tcp(&lease.netns, INTERNET4).unwrap(), UPLINK4);
    assert!(!reached(&lease.netns, INTERNET6));
}

#[test]
fn rules_that_cannot_be_loaded_mean_no_lease() {
    let Some(world) = world("rules_that_cannot_be_loaded_mean_no_lease") else { return };
    // A set of this name and another type: the kernel refuses the record of the uplinks.
    sh(&world.host, "nft 'add table inet garth_forwarding; add set inet garth_forwarding opened4 { type mark; }'");
    let error = world.network.lease(id()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::RulesetRefused, "{error}");
    assert!(error.hint().is_some());
    assert_eq!(wires(&world), 0);
    assert_eq!(sh(&world.host, "cat /proc/sys/net/ipv4/conf/up0/forwarding"), "0\n");
    sh(&world.host, "nft delete table inet garth_forwarding");
    assert!(world.network.lease(id()).is_ok(), "and it is tried again");
}

#[test]
fn a_damaged_record_is_an_error_that_names_it() {
    let Some(world) = world("a_damaged_record_is_an_error_that_names_it") else { return };
    std::fs::write(world.data.path().join("network.json"), "{}").unwrap();
    let error = world.network.lease(id()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Record);
    assert!(error.to_string().contains("network.json"), "{error}");
}

#[test]
fn the_first_packet_over_a_fresh_wire_arrives() {
    let Some(mut world) = world("the_first_packet_over_a_fresh_wire_arrives") else { return };
    world.network = open(&world.host, NetworkConfig { warm: 0, ..NetworkConfig::new(world.data.path(), "t1") });
    // The first answer of the outside world may take longer: it looks for the host's address.
    let first = world.network.lease(id()).unwrap();
    assert!(tcp(&first.netns, INTERNET4).is_ok() && tcp(&first.netns, INTERNET6).is_ok());
    for _ in 0..10 {
        let lease = world.network.lease(id()).unwrap();
        assert!(udp(&lease.netns, INTERNET4));
        let lease = world.network.lease(id()).unwrap();
        assert!(udp(&lease.netns, INTERNET6));
    }
}

/// Runs itself again where something that is no program lies over `nft`.
#[test]
fn without_nft_there_is_no_lease_and_a_hint() {
    const NAME: &str = "without_nft_there_is_no_lease_and_a_hint";
    let Some(world) = world(NAME) else { return };
    if std::env::var_os("GARTH_WITHOUT_NFT").is_none() {
        let script = "mount --bind /dev/null $(readlink -f /usr/sbin/nft) && GARTH_WITHOUT_NFT=1 exec \"$0\" \"$1\"";
        let itself = std::env::current_exe().unwrap();
        let test =
            std::process::Command::new("unshare").args(["-m", "sh", "-c", script]).arg(itself).arg(NAME).output();
        assert!(test.as_ref().is_ok_and(|output| output.status.success()), "{test:?}");
        return;
    }
    let error = world.network.lease(id()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NftMissing);
    assert!(error.hint().is_some_and(|hint| hint.contains("apt install nftables")));
    assert_eq!(wires(&world), 0);
    assert!(Network::probe().iter().any(|finding| finding.name == "nft" && !finding.ok));
}
