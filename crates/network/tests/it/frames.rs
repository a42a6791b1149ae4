//! Ethernet frames, made by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const IPV4: u16 = 0x0800;
pub const IPV6: u16 = 0x86dd;
pub const ICMP: u8 = 1;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

pub type Mac = [u8; 6];

/// A frame of any protocol.
pub fn ethernet(to: Mac, from: Mac, protocol: u16, payload: &[u8]) -> Vec<u8> {
    [&to[..], &from, &protocol.to_be_bytes(), payload].concat()
}

/// A UDP datagram to this address, port 8888, as an IP packet, and its Ethernet protocol.
pub fn datagram(from: IpAddr, to: IpAddr, said: &[u8]) -> (u16, Vec<u8>) {
    datagram_to_port(8888, from, to, said)
}

/// As [`datagram`], to another port.
pub fn datagram_to_port(port: u16, from: IpAddr, to: IpAddr, said: &[u8]) -> (u16, Vec<u8>) {
    let length = (8 + said.len()) as u16;
    let header = [1111, port, length, 0].map(u16::to_be_bytes).concat();
    packet(from, to, UDP, &[&header, said].concat())
}

/// An IP packet with the checksums that its protocol wants, with a hop limit of 255, and its
/// Ethernet protocol.
pub fn packet(from: IpAddr, to: IpAddr, protocol: u8, payload: &[u8]) -> (u16, Vec<u8>) {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (IPV4, packet4(from, to, protocol, 0, payload)),
        (IpAddr::V6(from), IpAddr::V6(to)) => (IPV6, packet6(from, to, protocol, payload)),
        _ => unreachable!("two families in one packet"),
    }
}

/// As [`packet`], with the field of the fragment's flags and offset.
pub fn packet4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    if protocol == ICMP {
        let sum = checksum(&payload);
        payload[2..4].copy_from_slice(&sum);
    }
    let length = (20 + payload.len()) as u16;
    let mut header = vec![0x45, 0];
    header.extend(length.to_be_bytes());
    header.extend([0x12, 0x34]);
    header.extend(fragment.to_be_bytes());
    header.extend([255, protocol, 0, 0]);
    header.extend(from.octets());
    header.extend(to.octets());
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [header, payload].concat()
}

fn packet6(from: Ipv6Addr, to: Ipv6Addr, protocol: u8, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u16;
    let mut payload = payload.to_vec();
    let pseudo = [&from.octets()[..], &to.octets(), &u32::from(length).to_be_bytes(), &[0, 0, 0, protocol], &payload];
    let sum = checksum(&pseudo.concat());
    match protocol {
        ICMPV6 => payload[2..4].copy_from_slice(&sum),
        UDP => payload[6..8].copy_from_slice(&sum),
        _ => {}
    }
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([protocol, 255]);
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(payload);
    packet
}

/// RFC 1071; the field that it goes into is 0 until then.
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(pair).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
