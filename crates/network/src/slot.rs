//! One sandbox's wire: a network namespace, a veth pair, and everything that is set on it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use garth_kernel::netlink::{Message, Socket};
use garth_kernel::netns;
use garth_kernel::rtnl::{self, Mac, Route, VethPair};

use crate::address::Network;
use crate::blocked::{BLOCKED4, BLOCKED6, NOT_GLOBAL6};
use crate::layout::SLOTS;
use crate::lease::Link;
use crate::{Error, ErrorKind, LeaseRecord, sysctl};

/// The interface's name inside, as everywhere.
pub(crate) const INSIDE: &str = "eth0";

/// How often an older kernel is asked whether the link is up, and for how long.
const LINK_POLL: Duration = Duration::from_millis(1);
const LINK_DEADLINE: Duration = Duration::from_secs(5);

/// Where a wire's end for the sandbox is made.
#[derive(Debug)]
pub(crate) enum Place {
    /// In a network namespace that is made for it.
    New,
    /// In this one, which has nothing but loopback yet.
    Given(OwnedFd),
}

/// A wire that no sandbox has yet. Dropping it removes everything, if nobody else has its namespace:
/// that goes then.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) netns: OwnedFd,
    pub(crate) link: Link,
    pub(crate) record: LeaseRecord,
}

/// Everything that decides what one wire looks like.
#[derive(Debug, Clone)]
pub(crate) struct Wire {
    pub(crate) slot: u16,
    /// The host's end.
    pub(crate) name: String,
    pub(crate) mtu: u32,
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) gateway4: Ipv4Addr,
    /// The sandbox's address and the gateway's; `None` where the host has no IPv6.
    pub(crate) ipv6: Option<(Ipv6Addr, Ipv6Addr)>,
}

impl Wire {
    /// Makes it. Leaves the calling thread in `home`, or fails with [`ErrorKind::Closed`] when it
    /// could not return there, after which the thread must not be used any more.
    pub(crate) fn make(&self, place: Place, host: &mut Socket, home: &OwnedFd) -> Result<Ready, Error> {
        let doing = |what: &str| format!("cannot {what} for a sandbox's network");
        let prepared = prepare(place);
        netns::enter(home.as_fd()).map_err(|error| {
            Error::because(ErrorKind::Closed, "cannot return to the host's network namespace", error)
        })?;
        let (netns, mut inside) = prepared.map_err(|error| Error::kernel(doing("prepare a namespace"), error))?;

        host.apply(&[self.pair(&netns)]).map_err(|error| Error::kernel(doing("make a veth pair"), error))?;
        let index = find(host, &self.name)?;
        // Not always 2, after `lo`: the kernel puts its tunnels (`sit0`, `tunl0`) into every new
        // namespace once somebody has used one.
        let eth0 = find(&inside, INSIDE)?;
        inside.apply(&self.inside(eth0)).map_err(|error| Error::kernel(doing("configure eth0"), error))?;
        self.harden().map_err(|error| Error::kernel(doing("set sysctls"), error))?;
        host.apply(&self.outside(index)).map_err(|error| Error::kernel(doing("configure the veth"), error))?;
        await_link(&mut inside, eth0).map_err(|error| Error::kernel(doing("wait for the link"), error))?;
        let ipv6 = self.ipv6.map(|(address, _)| address);
        let record = LeaseRecord { slot: self.slot, wire: index, ipv4: self.ipv4, ipv6 };
        Ok(Ready { netns, link: self.link(), record })
    }

    fn link(&self) -> Link {
        Link {
            mac: self.mac(End::Sandbox),
            gateway_mac: self.mac(End::Host),
            gateway4: self.gateway4,
            gateway6: self.ipv6.map(|(_, gateway)| gateway),
            mtu: self.mtu,
        }
    }

    fn pair(&self, netns: &OwnedFd) -> Message {
        rtnl::add_veth(&VethPair {
            name: &self.name,
            mac: self.mac(End::Host),
            peer_name: INSIDE,
            peer_mac: self.mac(End::Sandbox),
            peer_netns: netns.as_fd(),
            mtu: self.mtu,
        })
    }

    /// Requests for the socket inside the namespace.
    fn inside(&self, eth0: u32) -> Vec<Message> {
        let mut requests = vec![rtnl::set_up(rtnl::LOOPBACK)];
        if self.ipv6.is_some() {
            requests.push(rtnl::without_link_local(eth0));
        }
        requests.push(rtnl::set_up_without_arp(eth0));
        self.join(&mut requests, eth0, self.ipv4.into(), self.gateway4.into());
        requests.extend(prohibited(BLOCKED4.iter().map(|block| block.network)));
        if let Some((address, gateway)) = self.ipv6 {
            self.join(&mut requests, eth0, address.into(), gateway.into());
            requests.push(rtnl::add_local(eth0, address));
            requests.extend(prohibited(NOT_GLOBAL6.iter().chain(BLOCKED6).map(|block| block.network)));
        }
        requests
    }

    /// An address, the gateway's hardware address, and the way to and by it.
    fn join(&self, requests: &mut Vec<Message>, eth0: u32, address: IpAddr, gateway: IpAddr) {
        let (whole, everywhere): (u8, IpAddr) = match address {
            IpAddr::V4(_) => (32, Ipv4Addr::UNSPECIFIED.into()),
            IpAddr::V6(_) => (128, Ipv6Addr::UNSPECIFIED.into()),
        };
        requests.extend([
            rtnl::add_address(eth0, address, whole),
            rtnl::add_neighbour(eth0, gateway, &self.mac(End::Host)),
            rtnl::add_route(&Route { to: (gateway, whole), via: None, device: eth0, source: None }),
            rtnl::add_route(&Route { to: (everywhere, 0), via: Some(gateway), device: eth0, source: None }),
        ]);
    }

    /// Requests for the host's socket.
    fn outside(&self, index: u32) -> Vec<Message> {
        let mut requests = Vec::new();
        if self.ipv6.is_some() {
            requests.push(rtnl::without_link_local(index));
        }
        // The ruleset pins sources, too; this holds while no ruleset is loaded. Before the interface
        // is up, so that nothing comes sooner.
        requests.extend([rtnl::distrust_ipv4(index), rtnl::set_up_without_arp(index), rtnl::forward_ipv4(index)]);
        let mac = self.mac(End::Sandbox);
        let mut connect = |address: IpAddr, gateway: IpAddr, whole: u8| {
            requests.push(rtnl::add_neighbour(index, address, &mac));
            // The gateway's address as the source, so that the host's own addresses do not show in
            // the ICMP messages that it sends.
            let source = Some(gateway);
            requests.push(rtnl::add_route(&Route { to: (address, whole), via: None, device: index, source }));
        };
        connect(self.ipv4.into(), self.gateway4.into(), 32);
        if let Some((address, gateway)) = self.ipv6 {
            connect(address.into(), gateway.into(), 128);
        }
        requests
    }

    /// What netlink cannot set on the host's end.
    fn harden(&self) -> std::io::Result<()> {
        if self.ipv6.is_none() {
            return Ok(());
        }
        // A router advertisement from a sandbox must never become the host's default route. The
        // ruleset drops it too; this holds while no ruleset is loaded.
        sysctl::write(&format!("ipv6/conf/{}/accept_ra", self.name), "0")?;
        // Linux 6.17 and later forward IPv6 by interface; before, the host as a whole must.
        let by_interface = format!("ipv6/conf/{}/force_forwarding", self.name);
        match sysctl::read(&by_interface)? {
            Some(_) => sysctl::write(&by_interface, "1"),
            None => Ok(()),
        }
    }

    /// Locally administered, and different for every wire of every daemon of a host.
    fn mac(&self, end: End) -> Mac {
        let [a, b, c, d] = self.ipv4.octets();
        [0x02, end as u8, a, b, c, d]
    }
}

#[derive(Clone, Copy)]
enum End {
    Host = 0x67,
    Sandbox = 0x68,
}

/// A second wall behind the host's ruleset: routes that refuse what may not be reached. It holds
/// while somebody flushes the host's rules, in a namespace whose routes the sandbox may not change;
/// one that owns its namespace can take it down, and meets the host's rules alone.
fn prohibited<'a>(networks: impl Iterator<Item = &'a str>) -> Vec<Message> {
    networks
        .filter_map(|network| network.parse::<Network>().ok())
        .map(|network| rtnl::add_prohibited(network.address, network.prefix))
        .collect()
}

fn find(socket: &Socket, name: &str) -> Result<u32, Error> {
    rtnl::index(socket, name)
        .ok_or_else(|| Error::new(ErrorKind::Kernel, format!("{name} vanished while a sandbox's network was made")))
}

/// Without this the first packets of a sandbox that starts at once would be lost, and a connection
/// take a second longer. Succeeds at the first look from Linux 6.8 on.
fn await_link(inside: &mut Socket, eth0: u32) -> Result<(), std::io::Error> {
    let deadline = Instant::now() + LINK_DEADLINE;
    while !rtnl::is_operational(inside, eth0)? {
        if Instant::now() > deadline {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(LINK_POLL);
    }
    Ok(())
}

/// Leaves the calling thread in the namespace, or where it was.
fn prepare(place: Place) -> std::io::Result<(OwnedFd, Socket)> {
    let netns = match place {
        Place::New => {
            netns::unshare()?;
            netns::current()?
        }
        Place::Given(netns) => {
            netns::enter(netns.as_fd())?;
            netns
        }
    };
    let inside = Socket::route()?;
    allow_ping_and_low_ports()?;
    Ok((netns, inside))
}

/// Puts loopback up in this namespace, and sets there what [`prepare`] does. In a thread of its own,
/// so that the caller cannot be left in the wrong namespace.
pub(crate) fn loopback_in(netns: BorrowedFd<'_>) -> std::io::Result<()> {
    let raise = || {
        netns::enter(netns)?;
        allow_ping_and_low_ports()?;
        Ok(Socket::route()?.apply(&[rtnl::set_up(rtnl::LOOPBACK)])?)
    };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("garth-netns".to_owned()).spawn_scoped(scope, raise)?;
        thread.join().map_err(|_| std::io::Error::other("the thread that enters a network namespace panicked"))?
    })
}

/// Whether both are the same namespace.
pub(crate) fn is_same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> std::io::Result<bool> {
    let [one, other] = [rustix::fs::fstat(one)?, rustix::fs::fstat(other)?];
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// What takes the place of `CAP_NET_RAW` and, for users other than root, `CAP_NET_BIND_SERVICE`.
pub(crate) fn allow_ping_and_low_ports() -> std::io::Result<()> {
    sysctl::write(
        "ipv4/ping_group_range",
        &format!("0 {}", last_group(&std::fs::read_to_string("/proc/self/gid_map")?)),
    )?;
    sysctl::write("ipv4/ip_unprivileged_port_start", "0")
}

/// The last group of this process's user namespace: what is beyond is no group there, and refused.
fn last_group(map: &str) -> u32 {
    // The highest that the setting takes (net/ipv4/ping.c).
    const MOST: u32 = i32::MAX as u32;
    let lines = map.lines().map(|line| line.split_whitespace().map(|number| number.parse().unwrap_or(0)));
    let ends = lines.filter_map(|mut numbers| {
        let (first, _, count): (u32, u32, u32) = (numbers.next()?, numbers.next()?, numbers.next()?);
        Some(first.saturating_add(count).saturating_sub(1))
    });
    ends.max().unwrap_or(0).min(MOST)
}

/// Which slots are in use. A slot that was given back is the last to be used again, so that packets
/// still under way to its former holder find nobody.
#[derive(Debug)]
pub(crate) struct Slots {
    taken: BTreeSet<u16>,
    next: u16,
}

impl Default for Slots {
    fn default() -> Self {
        Self { taken: BTreeSet::new(), next: *SLOTS.start() }
    }
}

impl Slots {
    pub(crate) fn take(&mut self) -> Result<u16, Error> {
        let around = (self.next..=*SLOTS.end()).chain(*SLOTS.start()..self.next);
        let free = around.into_iter().find(|slot| !self.taken.contains(slot));
        let slot = free.ok_or_else(|| {
            let message = format!("all {} addresses of this daemon's subnet are leased", SLOTS.len());
            Error::new(ErrorKind::AddressesExhausted, message)
        })?;
        self.taken.insert(slot);
        self.next = if slot == *SLOTS.end() { *SLOTS.start() } else { slot + 1 };
        Ok(slot)
    }

    /// Marks a slot as used by what an earlier daemon made.
    pub(crate) fn claim(&mut self, slot: u16) {
        self.taken.insert(slot);
    }

    pub(crate) fn give_back(&mut self, slot: u16) {
        self.taken.remove(&slot);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_group_is_one_that_the_user_namespace_has() {
        let cases = [
            ("         0          0 4294967295\n", 2_147_483_647),
            ("         0 1879048192      65536\n", 65_535),
            ("         0       1000          1\n         1     100000      65536\n", 65_536),
            ("", 0),
        ];
        for (map, last) in cases {
            assert_eq!(last_group(map), last, "{map}");
        }
    }

    #[test]
    fn a_slot_given_back_is_not_the_next_one_used() {
        let mut slots = Slots::default();
        let first = slots.take().unwrap();
        slots.give_back(first);
        assert_ne!(slots.take().unwrap(), first);
    }

    #[test]
    fn every_slot_is_used_once_and_then_there_is_an_error() {
        let mut slots = Slots::default();
        slots.claim(17);
        let taken: BTreeSet<u16> = std::iter::from_fn(|| slots.take().ok()).collect();
        assert_eq!(taken.len(), SLOTS.len() - 1);
        assert!(!taken.contains(&17));
        assert_eq!(slots.take().map_err(|e| e.kind()), Err(ErrorKind::AddressesExhausted));
        slots.give_back(900);
        assert_eq!(slots.take().unwrap(), 900);
    }
}
