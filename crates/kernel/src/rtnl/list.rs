use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::{Error, Message, Socket, attributes};

/// An interface that exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Largest packet in bytes.
    pub mtu: u32,
}

/// An address that an interface has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The interface.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of its network's prefix.
    pub prefix: u8,
}

/// A route of any table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedRoute {
    /// Destination and its prefix length.
    pub to: (IpAddr, u8),
    /// The interfaces it leaves by: several for a multipath route, none for one that refuses.
    pub devices: Vec<u32>,
    /// `RTN_UNICAST` and so on.
    pub kind: u8,
}

impl ListedRoute {
    /// Whether it leads to the internet: to everything, or to one of the two halves into which
    /// VPNs split everything to come before the real one.
    pub fn is_default(&self) -> bool {
        self.to.1 <= 1 && self.kind == libc::RTN_UNICAST
    }
}

/// Every interface of the socket's namespace.
///
/// # Errors
/// Those of the socket.
pub fn links(socket: &mut Socket) -> Result<Vec<Link>, Error> {
    let mut found = Vec::new();
    socket.dump(&Message::new("list interfaces", libc::RTM_GETLINK, 0, &[0; 16]), |kind, payload| {
        if kind == libc::RTM_NEWLINK {
            found.extend(link(payload));
        }
    })?;
    Ok(found)
}

/// The index of the interface with this name, if there is one, in the socket's namespace.
pub fn index(socket: &Socket, name: &str) -> Option<u32> {
    rustix::net::netdevice::name_to_index(socket, name).ok()
}

/// Whether an interface is not only up but also sends.
///
/// When the other end of a veth pair goes up, this one is told by a work queue (linkwatch); until
/// then it drops what it is given. From Linux 6.8 on, asking makes the kernel do that work first.
///
/// # Errors
/// Those of the socket; `ENODEV` when there is no such interface.
pub fn is_operational(socket: &mut Socket, index: u32) -> Result<bool, Error> {
    /// `IF_OPER_UP` of linux/if.h and `RTEXT_FILTER_SKIP_STATS` of linux/rtnetlink.h.
    const UP: u8 = 6;
    const WITHOUT_STATISTICS: u32 = 8;
    let mut body = [0u8; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let request = Message::new("look at an interface", libc::RTM_GETLINK, 0, &body)
        .attribute(libc::IFLA_EXT_MASK, &WITHOUT_STATISTICS.to_ne_bytes());
    let mut operational = false;
    socket.get(&request, |_, payload| {
        let mut found = attributes(payload.get(16..).unwrap_or_default());
        operational = found.any(|attribute| attribute == (libc::IFLA_OPERSTATE, &[UP]));
    })?;
    Ok(operational)
}

/// Every address of the socket's namespace.
///
/// # Errors
/// Those of the socket.
pub fn addresses(socket: &mut Socket) -> Result<Vec<Address>, Error> {
    let mut found = Vec::new();
    socket.dump(&Message::new("list addresses", libc::RTM_GETADDR, 0, &[0; 8]), |kind, payload| {
        if kind == libc::RTM_NEWADDR {
            found.extend(address(payload));
        }
    })?;
    Ok(found)
}

/// Every route, IPv4 and IPv6, of every table of the socket's namespace.
///
/// # Errors
/// Those of the socket.
pub fn routes(socket: &mut Socket) -> Result<Vec<ListedRoute>, Error> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut body = [0u8; 12];
        body[0] = family as u8;
        socket.dump(&Message::new("list routes", libc::RTM_GETROUTE, 0, &body), |kind, payload| {
            if kind == libc::RTM_NEWROUTE {
                found.extend(route(payload));
            }
        })?;
    }
    Ok(found)
}

fn link(payload: &[u8]) -> Option<Link> {
    let mut link = Link { index: number(payload.get(4..8)?)?, name: String::new(), mtu: 0 };
    for (kind, value) in attributes(payload.get(16..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = String::from_utf8_lossy(value).trim_end_matches('\0').to_owned(),
            libc::IFLA_MTU => link.mtu = number(value)?,
            _ => {}
        }
    }
    Some(link)
}

fn address(payload: &[u8]) -> Option<Address> {
    let (prefix, index) = (*payload.get(1)?, number(payload.get(4..8)?)?);
    // IFA_LOCAL is the interface's own address; IPv6 has only IFA_ADDRESS, which on a
    // point-to-point interface with IPv4 is the other side's.
    let of = |wanted| attributes(payload.get(8..).unwrap_or_default()).find(|(kind, _)| *kind == wanted);
    let (_, value) = of(libc::IFA_LOCAL).or_else(|| of(libc::IFA_ADDRESS))?;
    Some(Address { index, address: ip(value)?, prefix })
}

/// A route from the payload of `RTM_NEWROUTE` or `RTM_DELROUTE`; `None` for what is not well
/// formed.
pub fn route(payload: &[u8]) -> Option<ListedRoute> {
    let (family, prefix, kind) = (*payload.first()?, *payload.get(1)?, *payload.get(7)?);
    let mut destination = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        _ => return None,
    };
    let mut devices = Vec::new();
    for (kind, value) in attributes(payload.get(12..)?) {
        match kind {
            libc::RTA_DST => destination = ip(value)?,
            libc::RTA_OIF => devices.extend(number(value)),
            libc::RTA_MULTIPATH => devices.extend(next_hops(value)),
            _ => {}
        }
    }
    Some(ListedRoute { to: (destination, prefix), devices, kind })
}

/// The interfaces in a list of `struct rtnexthop`: u16 length, flags, hops, i32 index.
fn next_hops(mut bytes: &[u8]) -> Vec<u32> {
    let mut devices = Vec::new();
    while let (Some(length), Some(index)) = (bytes.get(..2), bytes.get(4..8)) {
        let length = usize::from(u16::from_ne_bytes([length[0], length[1]]));
        devices.extend(number(index));
        bytes = bytes.get(length.max(8).next_multiple_of(4)..).unwrap_or_default();
    }
    devices
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(four) = <[u8; 4]>::try_from(bytes) {
        return Some(IpAddr::from(four));
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_legs_of_a_multipath_route_are_seen() {
        let hop = |index: u32| [[8, 0, 0, 0], index.to_ne_bytes()].concat();
        let message = Message::new("x", libc::RTM_NEWROUTE, 0, &[2, 0, 0, 0, 254, 0, 0, 1, 0, 0, 0, 0])
            .attribute(libc::RTA_MULTIPATH, &[hop(3), hop(9)].concat());
        let bytes = message.encode(1, 0);
        let route = route(&bytes[16..]).unwrap();
        assert_eq!((route.to, route.devices), ((IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0), vec![3, 9]));
    }
}
