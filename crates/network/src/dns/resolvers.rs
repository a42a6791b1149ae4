//! Where questions go: the host's own resolvers.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

/// As many as resolv.conf(5) looks at.
const MOST: usize = 3;

const PORT: u16 = 53;

/// The resolvers to ask, in order.
#[derive(Debug)]
pub(crate) enum Resolvers {
    /// Given by the configuration.
    Fixed(Vec<SocketAddr>),
    /// Read from a file like `/etc/resolv.conf`, again whenever it changes.
    File { path: PathBuf, seen: Option<Seen> },
}

#[derive(Debug)]
pub(crate) struct Seen {
    version: Version,
    list: Vec<SocketAddr>,
}

/// Device, inode, size and change time: NetworkManager and systemd-resolved replace the file.
type Version = (u64, u64, u64, i64, i64);

impl Resolvers {
    pub(crate) fn of_the_host() -> Self {
        Self::File { path: PathBuf::from("/etc/resolv.conf"), seen: None }
    }

    /// The resolvers as of now.
    pub(crate) fn now(&mut self) -> Vec<SocketAddr> {
        match self {
            Self::Fixed(list) => list.clone(),
            Self::File { path, seen } => {
                let version =
                    fs::metadata(&*path).ok().map(|m| (m.dev(), m.ino(), m.size(), m.ctime(), m.ctime_nsec()));
                match (version, seen.as_ref()) {
                    (Some(version), Some(seen)) if seen.version == version => return seen.list.clone(),
                    _ => {}
                }
                let list = parse(&fs::read_to_string(&*path).unwrap_or_default());
                *seen = version.map(|version| Seen { version, list: list.clone() });
                list
            }
        }
    }
}

/// resolv.conf(5): the local machine when no resolver is named.
fn parse(text: &str) -> Vec<SocketAddr> {
    let named: Vec<SocketAddr> = text
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("nameserver"))
        .filter(|rest| rest.starts_with([' ', '\t']))
        .filter_map(|rest| address(rest.split_whitespace().next()?))
        .take(MOST)
        .collect();
    if named.is_empty() { vec![SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))] } else { named }
}

/// An address, for link-local ones with the interface after `%`.
fn address(text: &str) -> Option<SocketAddr> {
    let Some((address, interface)) = text.split_once('%') else {
        return text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT));
    };
    let scope = interface.parse().ok().or_else(|| {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
        rustix::net::netdevice::name_to_index(&socket, interface).ok()
    })?;
    Some(SocketAddrV6::new(address.parse().ok()?, PORT, 0, scope).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: &[&str]) {
        let list: Vec<String> = parse(text).iter().map(ToString::to_string).collect();
        assert_eq!(list, expected);
    }

    #[test]
    fn resolvers_are_read_in_order_and_at_most_three() {
        check(
            "# x\nsearch a b\nnameserver 1.1.1.1\n nameserver\t::1 # y\nnameserverx 2.2.2.2\n",
            &["1.1.1.1:53", "[::1]:53"],
        );
        check(
            "nameserver 1.0.0.1\nnameserver 1.0.0.2\nnameserver 1.0.0.3\nnameserver 1.0.0.4",
            &["1.0.0.1:53", "1.0.0.2:53", "1.0.0.3:53"],
        );
    }

    #[test]
    fn a_link_local_resolver_keeps_its_interface() {
        check("nameserver fe80::1%lo\n", &["[fe80::1%1]:53"]);
        check("nameserver fe80::1%7\n", &["[fe80::1%7]:53"]);
    }

    #[test]
    fn without_one_the_local_machine_is_asked() {
        check("nameserver nonsense\n", &["127.0.0.1:53"]);
    }

    #[test]
    fn a_replaced_file_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        let mut resolvers = Resolvers::File { path: path.clone(), seen: None };
        assert_eq!(resolvers.now(), parse(""));
        for text in ["nameserver 9.9.9.9", "nameserver 8.8.8.8"] {
            let new = directory.path().join("new");
            fs::write(&new, text).unwrap();
            fs::rename(&new, &path).unwrap();
            assert_eq!(resolvers.now(), parse(text));
        }
    }
}
