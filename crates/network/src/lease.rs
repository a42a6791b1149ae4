use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{BorrowedFd, OwnedFd};

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
    /// What `eth0` is set to, for a guest that sets its own.
    pub link: Link,
    /// What goes into `/etc/resolv.conf`.
    pub nameserver: IpAddr,
    pub(crate) record: LeaseRecord,
}

/// One end of a wire, and who is at the other. Neither asks nor answers by ARP or neighbour discovery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// The hardware address that the sandbox must have.
    pub mac: [u8; 6],
    /// The gateway's.
    pub gateway_mac: [u8; 6],
    /// The next hop to everywhere.
    pub gateway4: Ipv4Addr,
    /// The same; `None` where IPv6 is switched off on the host.
    pub gateway6: Option<Ipv6Addr>,
    /// The largest packet, in bytes.
    pub mtu: u32,
}

impl Lease {
    /// A tap in the lease's namespace, in the place of `eth0`: for a virtual machine, which is given the descriptor and
    /// sets in itself what [`Lease::link`] says. The wire lives as long as the descriptor.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotPermitted`]; [`crate::ErrorKind::Kernel`] without /dev/net/tun.
    pub fn tap(&self) -> Result<OwnedFd, crate::Error> {
        use std::os::fd::AsFd as _;
        crate::tap::make(self.netns.as_fd(), self.link.mtu)
            .map_err(|error| crate::Error::kernel("cannot make a tap for a virtual machine", error))
    }

    /// Hands the tap to a user whose program opens it by its name, `tap0`, in the lease's namespace, and closes it here. It
    /// goes with the namespace.
    ///
    /// # Errors
    /// [`crate::ErrorKind::NotPermitted`]; [`crate::ErrorKind::Kernel`].
    pub fn give_tap(tap: OwnedFd, user: u32) -> Result<(), crate::Error> {
        use std::os::fd::AsFd as _;
        garth_kernel::tap::give(tap.as_fd(), user)
            .map_err(|error| crate::Error::kernel("cannot give a tap to a virtual machine's program", error))
    }

    /// A tap that was handed to a user's program in this namespace, and that no program has open any more.
    ///
    /// # Errors
    /// As [`Lease::tap`].
    pub fn tap_again(netns: BorrowedFd<'_>) -> Result<OwnedFd, crate::Error> {
        crate::tap::open(netns)
            .map_err(|error| crate::Error::kernel("cannot open the tap of a virtual machine again", error))
    }

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
