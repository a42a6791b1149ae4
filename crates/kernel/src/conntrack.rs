//! Tracked connections: forgetting those of an address that is no longer used.

use std::net::IpAddr;

use crate::netlink::Message;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`.
const DELETE: u16 = (1 << 8) | 2;

/// linux/netfilter/nfnetlink_conntrack.h.
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_IP: u16 = 1;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_FILTER: u16 = 25;
const CTA_FILTER_ORIG_FLAGS: u16 = 1;
const CTA_FILTER_REPLY_FLAGS: u16 = 2;

/// `CTA_FILTER_F_CTA_IP_SRC` of the kernel's nf_internals.h: compare the source address only.
const BY_SOURCE: u32 = 1;

/// Forgets every connection that this address opened; for a [`crate::netlink::Socket::netfilter`].
///
/// Kernels before 5.9 cannot select and refuse (`EINVAL`); they forget nothing.
pub fn forget(source: IpAddr) -> Message {
    let (family, kind, octets) = match source {
        IpAddr::V4(v4) => (libc::AF_INET, CTA_IP_V4_SRC, v4.octets().to_vec()),
        IpAddr::V6(v6) => (libc::AF_INET6, CTA_IP_V6_SRC, v6.octets().to_vec()),
    };
    // `struct nfgenmsg`; version 1 says that the family counts.
    Message::new("forget an address's connections", DELETE, 0, &[family as u8, 1, 0, 0])
        .nested(CTA_TUPLE_ORIG | NESTED, |tuple| tuple.nested(CTA_TUPLE_IP | NESTED, |ip| ip.attribute(kind, &octets)))
        .nested(CTA_FILTER | NESTED, |filter| {
            filter
                .attribute(CTA_FILTER_ORIG_FLAGS, &BY_SOURCE.to_ne_bytes())
                .attribute(CTA_FILTER_REPLY_FLAGS, &0u32.to_ne_bytes())
        })
}

const NESTED: u16 = libc::NLA_F_NESTED as u16;
