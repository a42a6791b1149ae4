use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// A network namespace, ready to be entered, and what is true inside it.
///
/// Dropping it does not end the lease; [`crate::Network::release`] does.
#[derive(Debug)]
pub struct Lease {
    /// The namespace: `lo` and `eth0` up, addresses and default routes set, `ping` and ports below
    /// 1024 allowed to every user.
    pub netns: OwnedFd,
    /// The sandbox's IPv4 address.
    pub ipv4: Ipv4Addr,
    /// The sandbox's IPv6 address; `None` where IPv6 is switched off on the host.
    pub ipv6: Option<Ipv6Addr>,
    /// What goes into `/etc/resolv.conf`.
    pub nameserver: IpAddr,
    pub(crate) record: LeaseRecord,
}

impl Lease {
    /// What to store, so that a later daemon can [`crate::Network::recover`] the lease.
    pub fn record(&self) -> LeaseRecord {
        self.record.clone()
    }
}

/// A lease as the engine stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseRecord {
    /// Which of the subnet's addresses.
    pub(crate) slot: u16,
    /// The host's end of the wire, by number: the kernel never gives one twice while it runs.
    pub(crate) wire: u32,
    /// The sandbox's IPv4 address.
    pub ipv4: Ipv4Addr,
    /// The sandbox's IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
}
