//! The guest's network interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use garth_kernel::netlink::{Message, Socket};
use garth_kernel::rtnl;
use garth_spec::{GuestNetwork, MacAddress};

use super::{At, GuestFailure, Kind};

/// Puts the loopback interface up, and the one to the host as it is wanted.
pub(super) fn configure(network: Option<&GuestNetwork>) -> Result<(), GuestFailure> {
    let mut socket = Socket::route().at(|| "open a network socket".to_owned())?;
    apply(&mut socket, &[rtnl::set_up(rtnl::LOOPBACK)])?;
    let Some(network) = network else { return Ok(()) };
    let links = rtnl::links(&mut socket).map_err(failed)?;
    let others: Vec<_> = links.iter().filter(|link| link.index != rtnl::LOOPBACK).collect();
    let has = |name: &str| mac_of(name) == Some(network.mac);
    let link = match (others.iter().find(|link| has(&link.name)), &others[..]) {
        (Some(link), _) => link,
        // After a restore it has that of the machine that was saved.
        (None, [only]) => only,
        (None, found) => {
            let why = format!("none of the {} interfaces has the address {}", found.len(), String::from(network.mac));
            return Err(GuestFailure::new(Kind::Failed, "find the network interface", why));
        }
    };
    apply(&mut socket, &requests(link.index, network))
}

/// Takes the interfaces to the host down, which has the kernel forget their routes and neighbours, and their addresses
/// off.
pub(super) fn forget() -> Result<(), GuestFailure> {
    let mut socket = Socket::route().at(|| "open a network socket".to_owned())?;
    let links = rtnl::links(&mut socket).map_err(failed)?;
    let addresses = rtnl::addresses(&mut socket).map_err(failed)?;
    let own = |index: u32| index != rtnl::LOOPBACK && links.iter().any(|link| link.index == index);
    let gone = addresses.iter().filter(|address| own(address.index));
    let mut requests: Vec<_> =
        gone.map(|address| rtnl::delete_address(address.index, address.address, address.prefix)).collect();
    requests.extend(links.iter().filter(|link| own(link.index)).map(|link| rtnl::set_down(link.index)));
    apply(&mut socket, &requests)
}

fn mac_of(interface: &str) -> Option<MacAddress> {
    let text = std::fs::read_to_string(Path::new("/sys/class/net").join(interface).join("address")).ok()?;
    text.trim_end().to_owned().try_into().ok()
}

fn requests(index: u32, network: &GuestNetwork) -> Vec<Message> {
    let mut requests = vec![rtnl::set_mac(index, &network.mac.0)];
    requests.extend(network.mtu.map(|mtu| rtnl::set_mtu(index, mtu)));
    requests.push(rtnl::set_up(index));
    requests.extend(network.ipv4.map(|own| rtnl::add_address(index, own.address.into(), own.prefix)));
    requests.extend(network.ipv6.map(|own| rtnl::add_address(index, own.address.into(), own.prefix)));
    // A gateway that is outside of the own network, as at the other levels, has a route of its own first.
    let (v4_gateway, v6_gateway) = (network.gateway.map(IpAddr::from), network.gateway6.map(IpAddr::from));
    for gateway in v4_gateway.into_iter().chain(v6_gateway) {
        if let Some(mac) = network.gateway_mac {
            let whole = if gateway.is_ipv4() { 32 } else { 128 };
            requests.push(rtnl::add_neighbour(index, gateway, &mac.0));
            requests.push(rtnl::add_route(&rtnl::Route {
                to: (gateway, whole),
                via: None,
                device: index,
                source: None,
            }));
        }
    }
    let v4 = network.gateway.map(|via| (IpAddr::from(Ipv4Addr::UNSPECIFIED), via.into()));
    let v6 = network.gateway6.map(|via| (IpAddr::from(Ipv6Addr::UNSPECIFIED), via.into()));
    let route = |(to, via)| rtnl::add_route(&rtnl::Route { to: (to, 0), via: Some(via), device: index, source: None });
    requests.extend(v4.into_iter().chain(v6).map(route));
    requests
}

fn apply(socket: &mut Socket, requests: &[Message]) -> Result<(), GuestFailure> {
    socket.apply(requests).map_err(failed)
}

fn failed(error: garth_kernel::netlink::Error) -> GuestFailure {
    GuestFailure::new(Kind::Failed, "configure the network", error.to_string())
}
