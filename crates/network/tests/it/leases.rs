use crate::world::{INTERNET4, INTERNET6, UPLINK4, UPLINK6, id, tcp, udp, world};

#[test]
fn a_sandbox_reaches_the_internet_as_the_host() {
    let Some(world) = world("a_sandbox_reaches_the_internet_as_the_host") else { return };
    let lease = world.network.lease(id()).unwrap();
    assert_eq!(tcp(&lease.netns, INTERNET4).unwrap(), UPLINK4);
    assert_eq!(tcp(&lease.netns, INTERNET6).unwrap(), UPLINK6);
    assert!(udp(&lease.netns, INTERNET4));
    assert!(udp(&lease.netns, INTERNET6));
}
