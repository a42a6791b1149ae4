//! The host's side that all sandboxes of one daemon share: gateway interface, ruleset, forwarding.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use garth_kernel::netlink::Socket;
use garth_kernel::rtnl;
use rustix::io::Errno;

use crate::address::Network;
use crate::config::Names;
use crate::forwarding::{self, Forwarding};
use crate::layout::{Layout, SLOTS};
use crate::queue::Shared;
use crate::remover;
use crate::ruleset::Rates;
use crate::slot::{Place, Ready, Wire};
use crate::watch::Watch;
use crate::{Error, ErrorKind, LeaseRecord, ruleset, sysctl};
use crate::{dns, docker};

/// Serialises what daemons do to what they share: the choice of a subnet and the forwarding of the
/// uplinks. In `/run`, because it must be gone after a reboot exactly as the kernel's settings are.
const LOCK_DIRECTORY: &str = "/run/garth";

/// Everything is set up while this exists, and stays when it is dropped.
#[derive(Debug)]
pub(crate) struct Host {
    socket: Socket,
    names: Names,
    layout: Layout,
    forwarding: Forwarding,
    ipv6: bool,
    /// The ruleset as the kernel had it after it was loaded.
    rules: String,
    rates: Rates,
    _dns: dns::Service,
    _watch: Watch,
}

impl Host {
    /// Makes what is missing and adopts what an earlier daemon of this data directory left. The
    /// calling thread must be in the host's network namespace.
    pub(crate) fn set_up(shared: &Arc<Shared>) -> Result<Self, Error> {
        let (config, names) = (&shared.config, &shared.names);
        let _lock = lock()?;
        let mut socket = open_socket()?;
        let path = config.data_dir.join("network.json");
        let layout = choose_layout(&mut socket, &path, names)?;
        let ipv6 = has_ipv6();
        let gateway = Gateway { names, layout: &layout, ipv6 };
        gateway.raise(&mut socket)?;
        let sockets = dns::bind(layout.gateway4(), layout.dns_port)?;
        let layout = layout.with_dns_port(sockets.port);
        layout.save(&path)?;
        // Before what it watches is looked at, so that no change falls between.
        let watch = Watch::start(shared)?;
        let rates = Rates::new();
        let rules = load_rules(names, &layout, &rates)?;
        let mut forwarding = Forwarding::default();
        forwarding.follow(&mut socket)?;
        docker::accept(names);
        let dns = dns::Service::start(sockets, config.upstream.as_deref())?;
        Ok(Self { socket, names: names.clone(), layout, forwarding, ipv6, rules, rates, _dns: dns, _watch: watch })
    }

    /// Loads the ruleset again if it is not as it was; Docker may have come, too.
    pub(crate) fn check_rules(&mut self) -> Result<(), Error> {
        if ruleset::loaded(&self.names)?.as_ref() != Some(&self.rules) {
            tracing::warn!(
                table = self.names.table(),
                "the sandboxes' rules were changed from outside; loading them again"
            );
            self.rules = load_rules(&self.names, &self.layout, &self.rates)?;
        }
        docker::accept(&self.names);
        self.follow_uplinks()
    }

    /// Lets the interfaces that lead to the internet, and every wire, forward; for when the host's
    /// routes or settings have changed.
    pub(crate) fn follow_uplinks(&mut self) -> Result<(), Error> {
        let _lock = lock()?;
        self.forwarding.follow(&mut self.socket)?;
        // Switching net.ipv4.ip_forward off switches every interface off.
        for (slot, index) in self.wires()? {
            if !sysctl::is_on(&format!("ipv4/conf/{}/forwarding", self.names.wire(slot))) {
                // A wire that has gone since needs nothing.
                drop(self.socket.apply(&[rtnl::forward_ipv4(index)]));
            }
        }
        Ok(())
    }

    /// Makes the wire of one slot.
    pub(crate) fn make(&mut self, slot: u16, place: Place, home: &OwnedFd) -> Result<Ready, Error> {
        let ipv6 = self.ipv6.then(|| (self.layout.ipv6(slot), self.layout.gateway6()));
        let wire = Wire {
            slot,
            name: self.names.wire(slot),
            mtu: self.forwarding.mtu(),
            ipv4: self.layout.ipv4(slot),
            gateway4: self.layout.gateway4(),
            ipv6,
        };
        wire.make(place, &mut self.socket, home)
    }

    /// Holds a wire to a rate, or to none.
    pub(crate) fn limit(&mut self, wire: u32, rate: Option<u64>) -> Result<(), Error> {
        let mut rates = self.rates.clone();
        let before = match rate {
            Some(rate) => rates.insert(wire, rate),
            None => rates.remove(&wire),
        };
        if before == rate {
            return Ok(());
        }
        let changed = ruleset::load(&ruleset::change_rate(&self.names, wire, before, rate));
        // Somebody may have flushed the rules a moment ago.
        changed.or_else(|_| load_rules(&self.names, &self.layout, &rates).map(|rules| self.rules = rules))?;
        self.rates = rates;
        Ok(())
    }

    /// Forgets the rates of wires that are gone.
    pub(crate) fn forget_rates(&mut self) -> Result<(), Error> {
        if self.rates.is_empty() {
            return Ok(());
        }
        let wires: Vec<u32> = self.wires()?.into_iter().map(|(_, index)| index).collect();
        let gone: Vec<u32> = self.rates.keys().copied().filter(|wire| !wires.contains(wire)).collect();
        gone.into_iter().try_for_each(|wire| self.limit(wire, None))
    }

    /// Whether the wire of this record is still there.
    pub(crate) fn holds(&self, record: &LeaseRecord) -> bool {
        record.ipv4 == self.layout.ipv4(record.slot)
            && rtnl::index(&self.socket, &self.names.wire(record.slot)) == Some(record.wire)
    }

    /// Removes the wires of these slots; nothing happens for those that have gone by themselves.
    pub(crate) fn remove(&mut self, slots: &[u16]) -> Result<(), Error> {
        let names = slots.iter().map(|slot| self.names.wire(*slot));
        let indexes: Vec<u32> = names.filter_map(|name| rtnl::index(&self.socket, &name)).collect();
        remover::remove_links(&mut self.socket, &indexes).map_err(|error| Error::kernel("cannot remove wires", error))
    }

    /// Slot and interface of every wire of this daemon that exists.
    pub(crate) fn wires(&mut self) -> Result<Vec<(u16, u32)>, Error> {
        let prefix = self.names.wire_prefix();
        let links = rtnl::links(&mut self.socket).map_err(|error| Error::kernel("cannot list interfaces", error))?;
        let slot = |name: &str| u16::from_str_radix(name.strip_prefix(&prefix)?, 16).ok();
        Ok(links.iter().filter_map(|link| Some((slot(&link.name)?, link.index))).collect())
    }
}

/// Takes everything away that a daemon of this tag made, whether it is known or not.
pub(crate) fn clear(names: &Names) -> Result<(), Error> {
    let mut socket = open_socket()?;
    let _lock = lock()?;
    let links = rtnl::links(&mut socket).map_err(|error| Error::kernel("cannot list interfaces", error))?;
    let wires = links.iter().filter(|link| link.name.starts_with(&names.wire_prefix()));
    let wires: Vec<u32> = wires.map(|link| link.index).collect();
    remover::remove_links(&mut socket, &wires).map_err(|error| Error::kernel("cannot remove wires", error))?;
    let Some(index) = rtnl::index(&socket, &names.gateway()) else { return Ok(()) };
    ruleset::load(&ruleset::removal(&names.table()))?;
    forwarding::close(&mut socket, &names.gateway())?;
    docker::forget(names);
    // The gateway last: while it is there, a later attempt sees that something may be left.
    delete(&mut socket, index, &names.gateway())
}

/// Everything that a lease takes, but DNS and what is shared with other daemons, in a namespace
/// that is thrown away, which the calling thread must be in.
pub(crate) fn try_out(names: &Names, home: &OwnedFd) -> Result<(), Error> {
    let mut socket = open_socket()?;
    let layout = Layout::choose(&[])?;
    let ipv6 = has_ipv6();
    Gateway { names, layout: &layout, ipv6 }.raise(&mut socket)?;
    load_rules(names, &layout, &Rates::new())?;
    forwarding::try_out()?;
    let slot = *SLOTS.start();
    let ipv6 = ipv6.then(|| (layout.ipv6(slot), layout.gateway6()));
    let (ipv4, gateway4) = (layout.ipv4(slot), layout.gateway4());
    let wire = Wire { slot, name: names.wire(slot), mtu: 1500, ipv4, gateway4, ipv6 };
    wire.make(Place::New, &mut socket, home).map(drop)
}

/// Whether IPv6 is compiled in and switched on.
fn has_ipv6() -> bool {
    let on = |name| matches!(sysctl::read(name), Ok(Some(value)) if value == "0");
    on("ipv6/conf/all/disable_ipv6") && on("ipv6/conf/default/disable_ipv6")
}

struct Gateway<'a> {
    names: &'a Names,
    layout: &'a Layout,
    ipv6: bool,
}

impl Gateway<'_> {
    fn raise(&self, socket: &mut Socket) -> Result<(), Error> {
        let name = self.names.gateway();
        let failed = |what: &str| format!("cannot {what} the gateway interface {name}");
        // A bridge that nothing is ever plugged into: of the kinds of interface that can hold an
        // address, every host that runs containers has this one.
        if rtnl::index(socket, &name).is_none() {
            socket.apply(&[rtnl::add_link(&name, "bridge")]).map_err(|error| Error::kernel(failed("make"), error))?;
        }
        let index = rtnl::index(socket, &name).ok_or_else(|| Error::new(ErrorKind::Kernel, failed("find")))?;
        let mut requests = Vec::new();
        if self.ipv6 {
            requests.push(rtnl::without_link_local(index));
        }
        requests.push(rtnl::set_up(index));
        // With the whole subnet's prefix: other programs that look for a free range see this one,
        // and packets to addresses that nobody leases end here instead of going out of the uplink.
        let (subnet4, subnet6) = (self.layout.network4(), self.layout.network6());
        requests.push(rtnl::add_address(index, self.layout.gateway4().into(), subnet4.prefix));
        if self.ipv6 {
            requests.push(rtnl::add_address(index, self.layout.gateway6().into(), subnet6.prefix));
        }
        socket.apply(&requests).map_err(|error| Error::kernel(failed("address"), error))
    }
}

fn load_rules(names: &Names, layout: &Layout, rates: &Rates) -> Result<String, Error> {
    ruleset::load(&ruleset::text(names, layout, rates))?;
    let vanished = || Error::new(ErrorKind::RulesetRefused, "the sandboxes' rules vanished while they were loaded");
    ruleset::loaded(names)?.ok_or_else(vanished)
}

fn choose_layout(socket: &mut Socket, path: &Path, names: &Names) -> Result<Layout, Error> {
    let up = rtnl::index(socket, &names.gateway());
    let kept = Layout::load(path)?;
    let taken = taken(socket, names)?;
    match (kept, up) {
        (Some(layout), Some(_)) => return Ok(layout),
        (Some(layout), None) if !layout.overlaps(&taken) => return Ok(layout),
        // The interface of a data directory that is gone.
        (None, Some(index)) => delete(socket, index, &names.gateway())?,
        // New, or the host has since joined a network that overlaps.
        (_, None) => {}
    }
    let layout = Layout::choose(&taken)?;
    layout.save(path)?;
    Ok(layout)
}

/// Every range that this host has a route to, this daemon's own ones left out.
fn taken(socket: &mut Socket, names: &Names) -> Result<Vec<Network>, Error> {
    let failed = |error| Error::kernel("cannot list the host's networks", error);
    let links = rtnl::links(socket).map_err(failed)?;
    let own: Vec<u32> = links
        .iter()
        .filter(|link| link.name == names.gateway() || link.name.starts_with(&names.wire_prefix()))
        .map(|link| link.index)
        .collect();
    let addresses = rtnl::addresses(socket).map_err(failed)?;
    let routes = rtnl::routes(socket).map_err(failed)?;
    let addresses = addresses
        .iter()
        .filter(|address| !own.contains(&address.index))
        .map(|address| Network::new(address.address, address.prefix));
    // A default route, also one that a VPN has split into a few large halves, claims no range.
    let routes = routes
        .iter()
        .filter(|route| route.to.1 >= 8 && !route.devices.iter().any(|device| own.contains(device)))
        .map(|route| Network::new(route.to.0, route.to.1));
    Ok(addresses.chain(routes).collect())
}

fn open_socket() -> Result<Socket, Error> {
    Socket::route().map_err(|error| Error::kernel("cannot open a netlink socket", error))
}

/// Removes an interface that may have gone by itself.
fn delete(socket: &mut Socket, index: u32, name: &str) -> Result<(), Error> {
    match socket.apply(&[rtnl::delete_link(index)]) {
        Err(error) if error.errno() != Some(Errno::NODEV.raw_os_error()) => {
            Err(Error::kernel(format!("cannot remove {name}"), error))
        }
        _ => Ok(()),
    }
}

/// Held until dropped.
fn lock() -> Result<fs::File, Error> {
    let take = || {
        fs::create_dir_all(LOCK_DIRECTORY)?;
        let file = fs::File::create(PathBuf::from(LOCK_DIRECTORY).join("network.lock"))?;
        file.lock()?;
        Ok(file)
    };
    take().map_err(|error: std::io::Error| Error::kernel("cannot lock /run/garth/network.lock", error))
}
