//! Ports of this host that are open for the time of a check: a connection to them that fails was blocked, and did not
//! just find nobody.

use std::net::{IpAddr, SocketAddr, TcpListener};

use garth_kernel::{netlink::Socket, rtnl};

use crate::error::{Error, ErrorKind};

/// Addresses that are tried at most; a host with many has them for containers, behind the same rules.
const ADDRESSES: usize = 24;

/// Closed when dropped.
#[derive(Debug)]
pub(super) struct Listeners {
    listening: Vec<TcpListener>,
    addresses: Vec<SocketAddr>,
}

impl Listeners {
    /// Listens on every address of this host, on ports that are free.
    pub(super) fn open() -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::because(ErrorKind::Network, error).step("listen for the check");
        let found = Socket::route().and_then(|mut socket| Ok(rtnl::addresses(&mut socket)?)).map_err(failed)?;
        let mut listening = Vec::new();
        let mut addresses = Vec::new();
        for any in ["0.0.0.0:0", "[::]:0"] {
            // A host without IPv6 has no addresses of it either.
            let Ok(listener) = TcpListener::bind(any) else { continue };
            listener.set_nonblocking(true).map_err(failed)?;
            let own = listener.local_addr().map_err(failed)?;
            let reachable = found.iter().map(|found| found.address).filter(|found| found.is_ipv4() == own.is_ipv4());
            addresses.extend(reachable.filter(is_of_a_wire).map(|address| SocketAddr::new(address, own.port())));
            listening.push(listener);
        }
        addresses.dedup();
        addresses.truncate(ADDRESSES);
        Ok(Self { listening, addresses })
    }

    /// Every address and port.
    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Who has connected.
    pub(super) fn connected(&self) -> Vec<SocketAddr> {
        self.listening
            .iter()
            .flat_map(|listener| std::iter::from_fn(|| listener.accept().ok()))
            .map(|(_, peer)| peer)
            .collect()
    }
}

/// Loopback means the sandbox itself there, and link-local addresses need an interface that it has not.
fn is_of_a_wire(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_loopback(),
        IpAddr::V6(address) => !address.is_loopback() && !address.is_unicast_link_local(),
    }
}
