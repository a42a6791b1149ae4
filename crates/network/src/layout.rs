//! Which addresses one daemon uses: chosen once among those that are free, and kept.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::address::Network;
use crate::{Error, ErrorKind};

/// Length of the IPv4 subnet's prefix: 4,096 addresses.
const PREFIX4: u8 = 20;

/// The first and last slot: address 1 is the gateway's, the last one of a /20 its broadcast.
pub(crate) const SLOTS: std::ops::RangeInclusive<u16> = 2..=4094;

/// Ranges to choose from, in this order: the later ones are for hosts whose VPN claims all of 10/8.
const CANDIDATES: [&str; 4] = ["10.128.0.0/9", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"];

/// `network.json`: the subnets of one data directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Layout {
    version: u32,
    /// Base of the IPv4 subnet, a /20.
    subnet4: Ipv4Addr,
    /// Base of the IPv6 subnet, a /64 below fd00::/8.
    subnet6: Ipv6Addr,
    /// Where the DNS forwarder listens on the gateway address.
    pub(crate) dns_port: u16,
}

impl Layout {
    /// The kept layout; `None` when there is none yet.
    pub(crate) fn load(path: &Path) -> Result<Option<Self>, Error> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(record("read", path, error)),
        };
        let layout: Self = serde_json::from_slice(&bytes).map_err(|error| record("understand", path, error))?;
        if layout.version != 1 || layout != Self::at(layout.subnet4, layout.subnet6).with_dns_port(layout.dns_port) {
            return Err(Error::new(ErrorKind::Record, format!("{} is not of this version", path.display())));
        }
        Ok(Some(layout))
    }

    /// Writes the file whole or not at all.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Error> {
        let write = || {
            let temporary = path.with_extension("json.new");
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            file.sync_all()?;
            fs::rename(&temporary, path)
        };
        write().map_err(|error| record("write", path, error))
    }

    /// A layout that overlaps none of `taken`.
    pub(crate) fn choose(taken: &[Network]) -> Result<Self, Error> {
        let random = random().map_err(|error| Error::kernel("read random bytes", error))?;
        Self::choose_from(taken, random)
    }

    fn choose_from(taken: &[Network], random: u64) -> Result<Self, Error> {
        let ranges = CANDIDATES.iter().filter_map(|range| range.parse::<Network>().ok());
        let subnet4 = ranges.flat_map(|range| subnets(range, random as u32)).find(|&base| {
            let subnet = Network::new(IpAddr::V4(base), PREFIX4);
            !taken.iter().any(|other| other.overlaps(&subnet))
        });
        let subnet4 = subnet4.ok_or_else(|| {
            Error::new(ErrorKind::NoFreeSubnet, "every private range overlaps a network of this host")
        })?;
        Ok(Self::at(subnet4, subnet6(random)))
    }

    fn at(subnet4: Ipv4Addr, subnet6: Ipv6Addr) -> Self {
        let base = |network: Network| network.address;
        let (IpAddr::V4(subnet4), IpAddr::V6(subnet6)) =
            (base(Network::new(subnet4.into(), PREFIX4)), base(Network::new(subnet6.into(), 64)))
        else {
            unreachable!("masking keeps the family")
        };
        Self { version: 1, subnet4, subnet6, dns_port: 0 }
    }

    pub(crate) fn with_dns_port(self, dns_port: u16) -> Self {
        Self { dns_port, ..self }
    }

    pub(crate) fn overlaps(&self, taken: &[Network]) -> bool {
        taken.iter().any(|other| other.overlaps(&self.network4()))
    }

    pub(crate) fn network4(&self) -> Network {
        Network { address: self.subnet4.into(), prefix: PREFIX4 }
    }

    pub(crate) fn network6(&self) -> Network {
        Network { address: self.subnet6.into(), prefix: 64 }
    }

    pub(crate) fn gateway4(&self) -> Ipv4Addr {
        self.ipv4(1)
    }

    pub(crate) fn gateway6(&self) -> Ipv6Addr {
        self.ipv6(1)
    }

    pub(crate) fn ipv4(&self, slot: u16) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.subnet4.to_bits() + u32::from(slot))
    }

    pub(crate) fn ipv6(&self, slot: u16) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.subnet6.to_bits() + u128::from(slot))
    }
}

/// Every /20 of `range`, from a random one on and around.
fn subnets(range: Network, random: u32) -> impl Iterator<Item = Ipv4Addr> {
    let base = match range.address {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(_) => 0,
    };
    let count = 1u32 << (PREFIX4 - range.prefix);
    (0..count).map(move |n| Ipv4Addr::from_bits(base + ((random.wrapping_add(n) % count) << (32 - PREFIX4))))
}

/// fd00::/8 with 40 random bits, as RFC 4193 wants it.
fn subnet6(random: u64) -> Ipv6Addr {
    let global = u128::from(random >> 24);
    Ipv6Addr::from_bits((0xfd << 120) | (global << 80))
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

fn record(verb: &str, path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::because(ErrorKind::Record, format!("cannot {verb} {}", path.display()), source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(ranges: &[&str]) -> Vec<Network> {
        ranges.iter().map(|range| range.parse().unwrap()).collect()
    }

    #[test]
    fn a_subnet_of_the_host_is_avoided() {
        let first = Layout::choose_from(&[], 7).unwrap();
        let second = Layout::choose_from(&[first.network4()], 7).unwrap();
        assert!(!second.overlaps(&[first.network4()]));
        assert!(second.network4().to_string().starts_with("10."));
    }

    #[test]
    fn a_vpn_over_all_of_ten_leaves_the_next_range() {
        let layout = Layout::choose_from(&taken(&["10.0.0.0/8"]), 7).unwrap();
        assert!(layout.network4().to_string().starts_with("172."), "{}", layout.network4());
    }

    #[test]
    fn no_free_range_is_an_error_and_not_an_overlap() {
        let all = taken(&["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"]);
        assert_eq!(Layout::choose_from(&all, 7).map_err(|e| e.kind()), Err(ErrorKind::NoFreeSubnet));
    }

    #[test]
    fn every_slot_is_inside_both_subnets() {
        let layout = Layout::choose_from(&[], u64::MAX).unwrap();
        for slot in [1, *SLOTS.start(), *SLOTS.end()] {
            assert!(layout.network4().contains(layout.ipv4(slot).into()));
            assert!(layout.network6().contains(layout.ipv6(slot).into()));
        }
        assert_ne!(layout.ipv4(*SLOTS.end()).octets()[3], 255);
    }

    #[test]
    fn the_layout_survives_its_file() {
        let directory = std::env::temp_dir().join(format!("garth-layout-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join("network.json");
        assert_eq!(Layout::load(&path).unwrap(), None);
        let layout = Layout { dns_port: 5300, ..Layout::choose_from(&[], 3).unwrap() };
        layout.save(&path).unwrap();
        assert_eq!(Layout::load(&path).unwrap(), Some(layout));
        fs::write(&path, "{").unwrap();
        assert_eq!(Layout::load(&path).map_err(|e| e.kind()), Err(ErrorKind::Record));
        fs::remove_dir_all(&directory).unwrap();
    }
}
