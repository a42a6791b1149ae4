//! Links, addresses, routes and neighbours as netlink requests, and the lists of those that exist;
//! rtnetlink(7). Every function here only makes a [`Message`]; [`Socket::apply`] sends it.

mod list;

use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

pub use list::{Address, Link, ListedRoute, addresses, index, is_operational, links, route, routes};

use crate::netlink::Message;
#[expect(unused_imports, reason = "named in the documentation")]
use crate::netlink::Socket;

/// The index of `lo` in every network namespace (the kernel makes it first).
pub const LOOPBACK: u32 = 1;

/// A hardware address.
pub type Mac = [u8; 6];

const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const REPLACE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_REPLACE) as u16;

/// linux/if_link.h and linux/veth.h, where libc lacks them.
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
const ADDR_GEN_MODE_NONE: u8 = 1;
const VETH_INFO_PEER: u16 = 1;
const IPV4_DEVCONF_FORWARDING: u16 = 1;
const IPV4_DEVCONF_ACCEPT_REDIRECTS: u16 = 4;
const IPV4_DEVCONF_RP_FILTER: u16 = 8;
const IPV4_DEVCONF_ACCEPT_SOURCE_ROUTE: u16 = 9;
const RTNH_F_ONLINK: u32 = 4;
const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NUD_PERMANENT: u16 = 0x80;

/// A pair of connected interfaces, veth(4).
#[derive(Debug, Clone, Copy)]
pub struct VethPair<'a> {
    /// Name of the end in the socket's namespace, at most 15 bytes.
    pub name: &'a str,
    /// Its hardware address.
    pub mac: Mac,
    /// Name, hardware address and namespace of the other end.
    pub peer_name: &'a str,
    /// See `peer_name`.
    pub peer_mac: Mac,
    /// See `peer_name`.
    pub peer_netns: BorrowedFd<'a>,
    /// Largest packet, in bytes, of both.
    pub mtu: u32,
}

/// Makes both ends, down, with one queue each: the default is one per processor, which costs
/// memory and time that a sandbox does not need.
pub fn add_veth(pair: &VethPair<'_>) -> Message {
    let common = |message: Message, name: &str, mac: &Mac| {
        message
            .text(libc::IFLA_IFNAME, name)
            .attribute(libc::IFLA_ADDRESS, mac)
            .attribute(libc::IFLA_MTU, &pair.mtu.to_ne_bytes())
            .attribute(libc::IFLA_NUM_TX_QUEUES, &1u32.to_ne_bytes())
            .attribute(libc::IFLA_NUM_RX_QUEUES, &1u32.to_ne_bytes())
    };
    let message = Message::new("make a veth pair", libc::RTM_NEWLINK, CREATE, &link_body(0, 0, 0));
    common(message, pair.name, &pair.mac).nested(libc::IFLA_LINKINFO, |info| {
        info.text(libc::IFLA_INFO_KIND, "veth").nested(libc::IFLA_INFO_DATA, |data| {
            data.nested(VETH_INFO_PEER, |peer| {
                common(peer.raw(&link_body(0, 0, 0)), pair.peer_name, &pair.peer_mac)
                    .attribute(libc::IFLA_NET_NS_FD, &pair.peer_netns.as_raw_fd().to_ne_bytes())
            })
        })
    })
}

/// Makes an interface of this kind (`bridge`, `dummy`), down.
pub fn add_link(name: &str, kind: &str) -> Message {
    Message::new("make an interface", libc::RTM_NEWLINK, CREATE, &link_body(0, 0, 0))
        .text(libc::IFLA_IFNAME, name)
        .nested(libc::IFLA_LINKINFO, |info| info.text(libc::IFLA_INFO_KIND, kind))
}

/// Removes an interface; of a veth pair both ends.
pub fn delete_link(index: u32) -> Message {
    Message::new("remove an interface", libc::RTM_DELLINK, 0, &link_body(index, 0, 0))
}

/// Puts an interface into a group, for [`delete_group`].
pub fn set_group(index: u32, group: u32) -> Message {
    Message::new("put an interface into a group", libc::RTM_NEWLINK, 0, &link_body(index, 0, 0))
        .attribute(libc::IFLA_GROUP, &group.to_ne_bytes())
}

/// Removes all interfaces of a group. The kernel waits for other processors (RCU) once for all of
/// them, which for each one takes tens of milliseconds. `ENODEV` when the group has none.
pub fn delete_group(group: u32) -> Message {
    Message::new("remove interfaces", libc::RTM_DELLINK, 0, &link_body(0, 0, 0))
        .attribute(libc::IFLA_GROUP, &group.to_ne_bytes())
}

/// Puts an interface up.
pub fn set_up(index: u32) -> Message {
    let up = libc::IFF_UP as u32;
    Message::new("put an interface up", libc::RTM_NEWLINK, 0, &link_body(index, up, up))
}

/// Takes an interface down: its routes and neighbours are forgotten.
pub fn set_down(index: u32) -> Message {
    Message::new("take an interface down", libc::RTM_NEWLINK, 0, &link_body(index, 0, libc::IFF_UP as u32))
}

/// Gives an interface another hardware address.
pub fn set_mac(index: u32, mac: &Mac) -> Message {
    Message::new("set a hardware address", libc::RTM_NEWLINK, 0, &link_body(index, 0, 0))
        .attribute(libc::IFLA_ADDRESS, mac)
}

/// Makes an interface a port of a bridge.
pub fn set_master(index: u32, bridge: u32) -> Message {
    Message::new("put an interface into a bridge", libc::RTM_NEWLINK, 0, &link_body(index, 0, 0))
        .attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes())
}

/// Sets the largest packet of an interface, in bytes.
pub fn set_mtu(index: u32, mtu: u32) -> Message {
    Message::new("set the largest packet", libc::RTM_NEWLINK, 0, &link_body(index, 0, 0))
        .attribute(libc::IFLA_MTU, &mtu.to_ne_bytes())
}

/// Puts an interface up that never asks for nor answers to hardware addresses: it ignores ARP, and
/// its neighbours are those that [`add_neighbour`] names.
pub fn set_up_without_arp(index: u32) -> Message {
    let flags = (libc::IFF_UP | libc::IFF_NOARP) as u32;
    Message::new("put an interface up", libc::RTM_NEWLINK, 0, &link_body(index, flags, flags))
}

/// Keeps the kernel from giving the interface a link-local IPv6 address when it goes up.
pub fn without_link_local(index: u32) -> Message {
    Message::new("switch off link-local addresses", libc::RTM_NEWLINK, 0, &link_body(index, 0, 0))
        .nested(libc::IFLA_AF_SPEC, |spec| {
            spec.nested(libc::AF_INET6 as u16, |v6| v6.attribute(IFLA_INET6_ADDR_GEN_MODE, &[ADDR_GEN_MODE_NONE]))
        })
}

/// Lets the host forward IPv4 packets that arrive on this interface:
/// `net.ipv4.conf.IF.forwarding`.
pub fn forward_ipv4(index: u32) -> Message {
    set_ipv4("forward what an interface receives", index, &[(IPV4_DEVCONF_FORWARDING, 1)])
}

/// Lets the host take an IPv4 packet from this interface only if it would send answers there
/// (`net.ipv4.conf.IF.rp_filter`), and neither redirects nor source routes.
pub fn distrust_ipv4(index: u32) -> Message {
    let settings =
        [(IPV4_DEVCONF_RP_FILTER, 1), (IPV4_DEVCONF_ACCEPT_REDIRECTS, 0), (IPV4_DEVCONF_ACCEPT_SOURCE_ROUTE, 0)];
    set_ipv4("distrust what an interface receives", index, &settings)
}

fn set_ipv4(request: &'static str, index: u32, settings: &[(u16, u32)]) -> Message {
    Message::new(request, libc::RTM_NEWLINK, 0, &link_body(index, 0, 0)).nested(libc::IFLA_AF_SPEC, |spec| {
        spec.nested(libc::AF_INET as u16, |v4| {
            v4.nested(IFLA_INET_CONF, |conf| {
                settings.iter().fold(conf, |conf, (setting, value)| conf.attribute(*setting, &value.to_ne_bytes()))
            })
        })
    })
}

/// Gives an interface an address; nothing happens when it has it already. IPv6 addresses are used
/// at once, without asking whether somebody else has them.
pub fn add_address(index: u32, address: IpAddr, prefix: u8) -> Message {
    let mut body = [family(address), prefix, libc::IFA_F_NODAD as u8, libc::RT_SCOPE_UNIVERSE, 0, 0, 0, 0];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let octets = octets(address);
    Message::new("add an address", libc::RTM_NEWADDR, REPLACE, &body)
        .attribute(libc::IFA_LOCAL, &octets)
        .attribute(libc::IFA_ADDRESS, &octets)
}

/// Takes an address from an interface.
pub fn delete_address(index: u32, address: IpAddr, prefix: u8) -> Message {
    let mut body = [family(address), prefix, 0, 0, 0, 0, 0, 0];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    Message::new("remove an address", libc::RTM_DELADDR, 0, &body).attribute(libc::IFA_LOCAL, &octets(address))
}

/// A route of the main table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Destination and its prefix length; the family is taken from it.
    pub to: (IpAddr, u8),
    /// The next hop, taken as reachable on `device` without a route to it.
    pub via: Option<IpAddr>,
    /// Index of the interface it leaves by.
    pub device: u32,
    /// The address that the host itself uses as the source.
    pub source: Option<IpAddr>,
}

/// Adds a route, or replaces the one to the same destination.
pub fn add_route(route: &Route) -> Message {
    let (to, prefix) = route.to;
    let scope = if route.via.is_some() { libc::RT_SCOPE_UNIVERSE } else { libc::RT_SCOPE_LINK };
    let onlink = if route.via.is_some() { RTNH_F_ONLINK } else { 0 };
    let mut message = Message::new(
        "add a route",
        libc::RTM_NEWROUTE,
        REPLACE,
        &route_body(to, prefix, scope, libc::RTN_UNICAST, onlink),
    )
    .attribute(libc::RTA_OIF, &route.device.to_ne_bytes());
    if prefix > 0 {
        message = message.attribute(libc::RTA_DST, &octets(to));
    }
    if let Some(via) = route.via {
        message = message.attribute(libc::RTA_GATEWAY, &octets(via));
    }
    if let Some(source) = route.source {
        message = message.attribute(libc::RTA_PREFSRC, &octets(source));
    }
    message
}

/// Lets packets to `address` be received on this interface now. With an IPv6 address the kernel
/// adds such a route itself, but later, in a work queue ("duplicate address detection", which also
/// runs for addresses that skip it); answers that come before are dropped.
pub fn add_local(index: u32, address: Ipv6Addr) -> Message {
    let mut body = route_body(address.into(), 128, libc::RT_SCOPE_UNIVERSE, libc::RTN_LOCAL, 0);
    body[4] = libc::RT_TABLE_LOCAL;
    Message::new("add a local route", libc::RTM_NEWROUTE, REPLACE, &body)
        .attribute(libc::RTA_DST, &address.octets())
        .attribute(libc::RTA_OIF, &index.to_ne_bytes())
}

/// Adds a route that refuses: a program that tries gets `EACCES`.
pub fn add_prohibited(to: IpAddr, prefix: u8) -> Message {
    let body = route_body(to, prefix, libc::RT_SCOPE_UNIVERSE, libc::RTN_PROHIBIT, 0);
    Message::new("add a prohibiting route", libc::RTM_NEWROUTE, REPLACE, &body).attribute(libc::RTA_DST, &octets(to))
}

/// Fixes which hardware address an address has, for ever. Such entries are not counted against the
/// kernel's limit of 1,024 neighbours (`net.ipv4.neigh.default.gc_thresh3`), which all namespaces
/// share.
pub fn add_neighbour(index: u32, address: IpAddr, mac: &Mac) -> Message {
    let mut body = [0u8; 12];
    body[0] = family(address);
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..10].copy_from_slice(&NUD_PERMANENT.to_ne_bytes());
    Message::new("add a neighbour", libc::RTM_NEWNEIGH, REPLACE, &body)
        .attribute(NDA_DST, &octets(address))
        .attribute(NDA_LLADDR, mac)
}

/// `struct ifinfomsg`: these `flags` are set for the bits in `change`.
fn link_body(index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut body = [0u8; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body[12..16].copy_from_slice(&change.to_ne_bytes());
    body
}

/// `struct rtmsg` in the main table.
fn route_body(to: IpAddr, prefix: u8, scope: u8, kind: u8, flags: u32) -> [u8; 12] {
    let mut body = [family(to), prefix, 0, 0, libc::RT_TABLE_MAIN, libc::RTPROT_STATIC, scope, kind, 0, 0, 0, 0];
    body[8..12].copy_from_slice(&flags.to_ne_bytes());
    body
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
