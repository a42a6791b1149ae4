//! Beside other people's firewalls.

use garth_network::Network;

use crate::world::{INTERNET4, INTERNET6, World, attempt, eventually, id, inside, reached, sh, tcp, world};

/// What Docker does to a host, as far as others notice.
const DOCKER: &str = "for t in iptables ip6tables; do $t -P FORWARD DROP && $t -N DOCKER-USER && $t -A DOCKER-USER -j RETURN \
                      && $t -A FORWARD -j DOCKER-USER || exit 1; done";

fn with_iptables(test: &str) -> Option<World> {
    let world = world(test)?;
    if !attempt(&world.host, "iptables -S && ip6tables -S").2 {
        eprintln!("SKIP {test}: iptables");
        return None;
    }
    Some(world)
}

#[test]
fn docker_lets_sandboxes_through_and_is_left_as_it_was() {
    let Some(world) = with_iptables("docker_lets_sandboxes_through_and_is_left_as_it_was") else { return };
    sh(&world.host, DOCKER);
    let before = sh(&world.host, "iptables -S; ip6tables -S");
    let sandbox = id();
    let lease = world.network.lease(sandbox).unwrap();
    assert!(tcp(&lease.netns, INTERNET4).is_ok());
    assert!(tcp(&lease.netns, INTERNET6).is_ok());
    assert!(inside(&world.host, Network::probe).iter().all(|finding| finding.ok));
    world.network.release(sandbox);
    world.network.close().unwrap();
    assert_eq!(sh(&world.host, "iptables -S; ip6tables -S"), before);
}

#[test]
fn docker_may_come_later() {
    let Some(world) = with_iptables("docker_may_come_later") else { return };
    let lease = world.network.lease(id()).unwrap();
    sh(&world.host, DOCKER);
    eventually("Docker's firewall to let it through", || reached(&lease.netns, INTERNET4));
}

#[test]
fn a_firewall_that_drops_is_reported_with_a_fix_that_works() {
    let Some(world) = world("a_firewall_that_drops_is_reported_with_a_fix_that_works") else { return };
    assert!(inside(&world.host, Network::probe).iter().all(|finding| finding.ok), "nothing is wrong yet");
    sh(&world.host, "nft 'add table inet f; add chain inet f c { type filter hook forward priority 0; policy drop; }'");
    let lease = world.network.lease(id()).unwrap();
    assert!(!reached(&lease.netns, INTERNET4));
    let findings = inside(&world.host, Network::probe);
    let wrong: Vec<_> = findings.iter().filter(|finding| !finding.ok).collect();
    assert_eq!(wrong.len(), 1, "{findings:?}");
    sh(&world.host, wrong[0].fix.as_ref().unwrap());
    assert!(tcp(&lease.netns, INTERNET4).is_ok());
    assert!(inside(&world.host, Network::probe).iter().all(|finding| finding.ok));
}

#[test]
fn a_host_without_a_network_is_told_so() {
    let Some(world) = world("a_host_without_a_network_is_told_so") else { return };
    sh(&world.host, "ip route del default");
    let findings = inside(&world.host, Network::probe);
    let wrong: Vec<_> = findings.iter().filter(|finding| !finding.ok).map(|finding| finding.name).collect();
    assert_eq!(wrong, ["IPv4 uplink"], "{findings:?}");
}
