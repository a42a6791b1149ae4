//! The destinations that no sandbox may reach: whatever is not the public internet.
//!
//! Sources: the IANA IPv4 and IPv6 special-purpose address registries (every block that is not
//! "globally reachable"), and the metadata services that clouds put at public-looking addresses.

/// A range and why it is here.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) network: &'static str,
    #[cfg_attr(not(test), expect(dead_code, reason = "read by people, and by a test that it is there"))]
    pub(crate) why: &'static str,
}

const fn block(network: &'static str, why: &'static str) -> Block {
    Block { network, why }
}

/// IPv4 ranges; none overlaps another.
pub(crate) const BLOCKED4: &[Block] = &[
    block("0.0.0.0/8", "this network; 0.0.0.0 reaches the local host on Linux (RFC 791)"),
    block("10.0.0.0/8", "private: LANs, VPNs, other containers, other sandboxes (RFC 1918)"),
    block("100.64.0.0/10", "shared: carriers, Tailscale, cloud services; Alibaba metadata 100.100.100.200 (RFC 6598)"),
    block("127.0.0.0/8", "loopback: services that trust whoever can connect (RFC 1122)"),
    block("168.63.129.16/32", "Azure's WireServer: hands out a machine's configuration and certificates"),
    block("169.254.0.0/16", "link-local; metadata and credentials at 169.254.169.254 (RFC 3927)"),
    block("172.16.0.0/12", "private: Docker's own bridges among them (RFC 1918)"),
    block("192.0.0.0/24", "protocol assignments; Oracle metadata 192.0.0.192 (RFC 6890)"),
    block("192.0.2.0/24", "documentation; virtual machines' internal networks use it (RFC 5737)"),
    block("192.88.99.0/24", "6to4 relays: a way around the IPv6 list (RFC 7526)"),
    block("192.168.0.0/16", "private: home and office LANs, routers' admin pages (RFC 1918)"),
    block("198.18.0.0/15", "benchmarking; proxies' internal addresses (RFC 2544)"),
    block("198.51.100.0/24", "documentation (RFC 5737)"),
    block("203.0.113.0/24", "documentation (RFC 5737)"),
    block("224.0.0.0/4", "multicast (RFC 5771)"),
    block("240.0.0.0/4", "reserved, used inside some clouds; broadcast 255.255.255.255 (RFC 1112)"),
];

/// IPv6 ranges outside 2000::/3, the only part that is assigned to the public internet: unspecified,
/// loopback, ::ffff:0:0/96 (IPv4 mapped), 64:ff9b::/96 (NAT64, which would reach private IPv4),
/// fc00::/7 (private; AWS metadata fd00:ec2::254), fe80::/10, ff00::/8.
pub(crate) const NOT_GLOBAL6: &[Block] = &[
    block("::/3", "unspecified, loopback, IPv4-mapped, NAT64 (RFC 4291, RFC 6052)"),
    block("4000::/2", "unassigned"),
    block("8000::/1", "unassigned, private, link-local, multicast (RFC 4193, RFC 4291)"),
];

/// IPv6 ranges inside 2000::/3.
pub(crate) const BLOCKED6: &[Block] = &[
    block("2001::/23", "protocol assignments; Teredo carries IPv4 addresses (RFC 4380)"),
    block("2001:db8::/32", "documentation (RFC 3849)"),
    block("2002::/16", "6to4: carries any IPv4 address, private ones too (RFC 3056)"),
    block("3fff::/20", "documentation (RFC 9637)"),
];

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::address::Network;

    fn blocked(address: &str) -> bool {
        let address: IpAddr = address.parse().unwrap();
        let all = BLOCKED4.iter().chain(NOT_GLOBAL6).chain(BLOCKED6);
        all.map(|b| b.network.parse::<Network>().unwrap()).any(|n| n.contains(address))
    }

    #[test]
    fn every_special_address_is_in_a_block() {
        for address in [
            "0.0.0.0",
            "10.1.2.3",
            "100.100.100.200",
            "127.0.0.53",
            "168.63.129.16",
            "169.254.169.254",
            "172.17.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.251",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "fd00:ec2::254",
            "fc00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "2002:a00:1::1",
            "5f00::1",
        ] {
            assert!(blocked(address), "{address}");
        }
    }

    #[test]
    fn public_addresses_are_in_none() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "128.0.0.1",
            "168.63.129.17",
            "169.253.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "192.167.1.1",
            "198.17.0.1",
            "223.255.255.255",
            "2606:4700:4700::1111",
            "2a00:1450::1",
            "2001:200::1",
            "2003::1",
            "3ffe::1",
        ] {
            assert!(!blocked(address), "{address}");
        }
    }

    #[test]
    fn every_block_says_why() {
        assert!(BLOCKED4.iter().chain(NOT_GLOBAL6).chain(BLOCKED6).all(|b| b.why.len() > 9));
    }
}
