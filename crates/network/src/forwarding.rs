//! Lets the interfaces that lead to the internet forward, and takes it back.
//!
//! The smallest change that works. `net.ipv4.ip_forward` stays as it is: with it the host would
//! route between all its networks. Only the interfaces of the default routes are switched
//! (`net.ipv4.conf.IF.forwarding`, and from Linux 6.17 on `net.ipv6.conf.IF.force_forwarding`), so
//! that answers can come back; the sandboxes' own wires are switched when they are made. An older
//! kernel forwards IPv6 only as a whole: there `net.ipv6.conf.all.forwarding` is set, after the
//! uplinks were told to go on listening to router advertisements (`accept_ra` 2), which a
//! forwarding host otherwise ignores.
//!
//! What was switched is written into the nft table `garth_forwarding`, which lives exactly as long
//! as the settings do, and which keeps everybody else from using them: a new connection from such
//! an interface to anything but a sandbox is dropped, unless the host itself redirected it. When
//! somebody (Docker, a VPN) later switches the whole host on, the record is dropped: it is theirs.

use std::collections::BTreeSet;

use garth_kernel::netlink::Socket;
use garth_kernel::rtnl::{self, Link, ListedRoute};

use crate::config::{ANY_GATEWAY, ANY_WIRE};
use crate::{Error, ErrorKind, ruleset, sysctl};

/// The table that all daemons of a host share.
pub(crate) const TABLE: &str = "garth_forwarding";
const WHOLE4: &str = "ipv4/ip_forward";
const WHOLE6: &str = "ipv6/conf/all/forwarding";

type Interfaces = BTreeSet<String>;

/// How the host's forwarding was found, and what was changed.
#[derive(Debug, Default)]
pub(crate) struct Forwarding {
    uplinks: Uplinks,
    record: Record,
}

/// Interfaces that lead to the internet.
#[derive(Debug, Default, PartialEq, Eq)]
struct Uplinks {
    ipv4: Interfaces,
    ipv6: Interfaces,
    smallest_mtu: Option<u32>,
}

/// Interfaces by what was done to them: the sets of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Record {
    /// `opened4`: `net.ipv4.conf.IF.forwarding` was 0.
    opened4: Interfaces,
    /// `opened6`: IPv6 was not forwarded from here.
    opened6: Interfaces,
    /// `advertised6`: `accept_ra` was 1 and is 2.
    advertised6: Interfaces,
}

impl Record {
    fn add(&mut self, other: Self) {
        self.opened4.extend(other.opened4);
        self.opened6.extend(other.opened6);
        self.advertised6.extend(other.advertised6);
    }

    fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        for names in [&mut self.opened4, &mut self.opened6, &mut self.advertised6] {
            names.retain(|name| keep(name));
        }
    }

    fn sets(&self) -> [(&'static str, &Interfaces); 3] {
        [("opened4", &self.opened4), ("opened6", &self.opened6), ("advertised6", &self.advertised6)]
    }
}

/// One value below `/proc/sys/net`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    name: String,
    value: &'static str,
}

impl Forwarding {
    /// The largest packet that every uplink takes: 1500 where there is none or they take more.
    pub(crate) fn mtu(&self) -> u32 {
        self.uplinks.smallest_mtu.unwrap_or(1500).clamp(1280, 1500)
    }

    /// The uplinks for IPv4 and IPv6 as they are now; changes nothing.
    pub(crate) fn look(socket: &mut Socket) -> Result<[Vec<String>; 2], Error> {
        let found = find(socket)?;
        Ok([found.ipv4, found.ipv6].map(|names| names.into_iter().collect()))
    }

    /// Switches on what is not. The calling thread must be in the host's network namespace; the
    /// caller holds the lock among daemons.
    pub(crate) fn follow(&mut self, socket: &mut Socket) -> Result<(), Error> {
        self.uplinks = find(socket)?;
        let links = rtnl::links(socket).map_err(|error| Error::kernel("cannot list interfaces", error))?;
        let others = links.into_iter().map(|link| link.name).filter(|name| !is_ours(name)).collect();
        let kept = recorded()?;
        // The kernel's record is the truth; ours is for when somebody has flushed it.
        let mut record = kept.clone().unwrap_or_else(|| self.record.clone());
        // Somebody else switched the whole host on: it is not ours to guard or to switch off.
        if sysctl::is_on(WHOLE4) {
            record.opened4.clear();
        }
        if by_interface() && sysctl::is_on(WHOLE6) {
            record.opened6.clear();
        }
        let missing = missing(&self.uplinks, &others);
        record.add(missing.clone());
        // First the record and the guard, then the change: a crash in between leaves nothing open.
        if kept.unwrap_or_default() != record {
            ruleset::load(&script(&record))?;
        }
        apply(&switch_on(&missing, by_interface()))?;
        self.record = record;
        Ok(())
    }
}

/// Loads the guard around nothing, to see whether it can be loaded.
pub(crate) fn try_out() -> Result<(), Error> {
    ruleset::load(&script(&Record::default()))
}

/// Switches off what was switched on, unless another daemon's sandboxes still need it.
pub(crate) fn close(socket: &mut Socket, own_gateway: &str) -> Result<(), Error> {
    let links = rtnl::links(socket).map_err(|error| Error::kernel("cannot list interfaces", error))?;
    if links.iter().any(|link| link.name.starts_with(ANY_GATEWAY) && link.name != own_gateway) {
        return Ok(());
    }
    let Some(mut record) = recorded()? else { return Ok(()) };
    record.retain(|name| links.iter().any(|link| link.name == name));
    apply(&switch_off(&record, by_interface(), sysctl::is_on(WHOLE4)))?;
    ruleset::load(&ruleset::removal(TABLE))
}

fn find(socket: &mut Socket) -> Result<Uplinks, Error> {
    let failed = |error| Error::kernel("cannot list the host's routes", error);
    let links = rtnl::links(socket).map_err(failed)?;
    Ok(uplinks(&links, &rtnl::routes(socket).map_err(failed)?))
}

fn uplinks(links: &[Link], routes: &[ListedRoute]) -> Uplinks {
    let mut uplinks = Uplinks::default();
    for route in routes.iter().filter(|route| route.is_default()) {
        for link in links.iter().filter(|link| route.devices.contains(&link.index) && !is_ours(&link.name)) {
            let side = if route.to.0.is_ipv4() { &mut uplinks.ipv4 } else { &mut uplinks.ipv6 };
            side.insert(link.name.clone());
            let smallest = uplinks.smallest_mtu.map_or(link.mtu, |mtu| mtu.min(link.mtu));
            uplinks.smallest_mtu = Some(smallest);
        }
    }
    uplinks
}

/// Interfaces that are switched by other means, or never.
fn is_ours(name: &str) -> bool {
    name == "lo" || name.starts_with(ANY_WIRE) || name.starts_with(ANY_GATEWAY)
}

/// Linux 6.17 and later; "IPv6: per-interface force_forwarding".
fn by_interface() -> bool {
    matches!(sysctl::read("ipv6/conf/default/force_forwarding"), Ok(Some(_)))
}

/// What has to be switched on now.
fn missing(uplinks: &Uplinks, all: &Interfaces) -> Record {
    let off = |name: &str| matches!(sysctl::read(name), Ok(Some(value)) if value == "0");
    let opened4 = chosen(&uplinks.ipv4, |name| off(&format!("ipv4/conf/{name}/forwarding")));
    if uplinks.ipv6.is_empty() || !off(WHOLE6) {
        return Record { opened4, ..Record::default() };
    }
    if by_interface() {
        let opened6 = chosen(&uplinks.ipv6, |name| off(&format!("ipv6/conf/{name}/force_forwarding")));
        return Record { opened4, opened6, ..Record::default() };
    }
    let advertised6 = chosen(&uplinks.ipv6, |name| sysctl::is_on(&format!("ipv6/conf/{name}/accept_ra")));
    // The whole host will forward, so every interface is guarded.
    Record { opened4, opened6: chosen(all, |_| true), advertised6 }
}

fn chosen(names: &Interfaces, wanted: impl Fn(&str) -> bool) -> Interfaces {
    names.iter().filter(|name| is_plain(name) && wanted(name)).cloned().collect()
}

/// The kernel allows quotes and braces in a name; the record is a script, so they are left alone.
fn is_plain(name: &str) -> bool {
    let plain = name.bytes().all(|c| c.is_ascii_alphanumeric() || b".-_@:+".contains(&c));
    if !plain {
        tracing::warn!(interface = name, "not used as an uplink: its name cannot be written into a ruleset");
    }
    plain
}

/// The guard, with exactly these interfaces in its sets.
fn script(record: &Record) -> String {
    let mut script = String::from(include_str!("forwarding.nft"));
    for (set, names) in record.sets() {
        script.push_str(&format!("flush set inet {TABLE} {set}\n"));
        if !names.is_empty() {
            let names: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
            script.push_str(&format!("add element inet {TABLE} {set} {{ {} }}\n", names.join(", ")));
        }
    }
    script
}

fn switch_on(record: &Record, by_interface: bool) -> Vec<Setting> {
    let mut settings = each(&record.opened4, "ipv4", "forwarding", "1");
    if by_interface {
        settings.extend(each(&record.opened6, "ipv6", "force_forwarding", "1"));
    } else if !record.opened6.is_empty() {
        settings.extend(each(&record.advertised6, "ipv6", "accept_ra", "2"));
        settings.push(Setting { name: WHOLE6.to_owned(), value: "1" });
    }
    settings
}

fn switch_off(record: &Record, by_interface: bool, whole4: bool) -> Vec<Setting> {
    let mut settings = Vec::new();
    if !whole4 {
        settings.extend(each(&record.opened4, "ipv4", "forwarding", "0"));
    }
    if by_interface {
        settings.extend(each(&record.opened6, "ipv6", "force_forwarding", "0"));
    } else if !record.opened6.is_empty() {
        settings.push(Setting { name: WHOLE6.to_owned(), value: "0" });
        settings.extend(each(&record.advertised6, "ipv6", "accept_ra", "1"));
    }
    settings
}

fn each(names: &Interfaces, family: &str, key: &str, value: &'static str) -> Vec<Setting> {
    names.iter().map(|name| Setting { name: format!("{family}/conf/{name}/{key}"), value }).collect()
}

fn apply(settings: &[Setting]) -> Result<(), Error> {
    for Setting { name, value } in settings {
        sysctl::write(name, value)
            .map_err(|error| Error::kernel(format!("cannot set net/{name} to {value}"), error))?;
    }
    Ok(())
}

/// The record in the kernel; `None` when there is no table.
fn recorded() -> Result<Option<Record>, Error> {
    let Some(json) = ruleset::list(&["-j", "list", "table", "inet", TABLE])? else { return Ok(None) };
    let json: serde_json::Value = serde_json::from_str(&json)
        .map_err(|error| Error::because(ErrorKind::RulesetRefused, "cannot understand what nft lists", error))?;
    Ok(Some(Record {
        opened4: elements(&json, "opened4"),
        opened6: elements(&json, "opened6"),
        advertised6: elements(&json, "advertised6"),
    }))
}

fn elements(json: &serde_json::Value, set: &str) -> Interfaces {
    let objects = json["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    objects
        .iter()
        .filter(|object| object["set"]["name"] == set)
        .filter_map(|object| object["set"]["elem"].as_array())
        .flatten()
        .filter_map(|element| element.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Interfaces {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn check(settings: Vec<Setting>, expected: &[(&str, &str)]) {
        let settings: Vec<_> = settings.iter().map(|s| (s.name.as_str(), s.value)).collect();
        assert_eq!(settings, expected);
    }

    #[test]
    fn a_new_kernel_is_switched_by_interface_only() {
        let record = Record { opened4: names(&["eth0"]), opened6: names(&["wlan0"]), ..Record::default() };
        let (v4, v6) = ("ipv4/conf/eth0/forwarding", "ipv6/conf/wlan0/force_forwarding");
        check(switch_on(&record, true), &[(v4, "1"), (v6, "1")]);
        check(switch_off(&record, true, false), &[(v4, "0"), (v6, "0")]);
    }

    #[test]
    fn an_old_kernel_goes_on_listening_to_router_advertisements() {
        let record = Record { opened6: names(&["eth0", "eth1"]), advertised6: names(&["eth0"]), ..Record::default() };
        check(switch_on(&record, false), &[("ipv6/conf/eth0/accept_ra", "2"), (WHOLE6, "1")]);
        check(switch_off(&record, false, false), &[(WHOLE6, "0"), ("ipv6/conf/eth0/accept_ra", "1")]);
    }

    #[test]
    fn forwarding_that_somebody_else_needs_is_not_switched_off() {
        let record = Record { opened4: names(&["eth0"]), ..Record::default() };
        check(switch_off(&record, true, true), &[]);
    }

    #[test]
    fn the_record_is_read_back_from_what_nft_lists() {
        let json = serde_json::json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            {"set": {"family": "inet", "name": "opened4", "elem": ["eth0", "wlan0"]}},
            {"set": {"family": "inet", "name": "opened6"}},
        ]});
        assert_eq!(elements(&json, "opened4"), names(&["eth0", "wlan0"]));
        assert_eq!(elements(&json, "opened6"), names(&[]));
    }

    #[test]
    fn the_guard_is_loaded_with_exactly_what_is_recorded() {
        let record = Record { opened4: names(&["eth0", "wlan0"]), ..Record::default() };
        let script = script(&record);
        assert!(script.contains("flush set inet garth_forwarding opened6\n"));
        assert!(script.contains("add element inet garth_forwarding opened4 { \"eth0\", \"wlan0\" }\n"));
    }

    #[test]
    fn an_interface_name_cannot_add_to_the_script() {
        assert_eq!(chosen(&names(&["eth0.7", "x\"}; flush ruleset"]), |_| true), names(&["eth0.7"]));
    }
}
