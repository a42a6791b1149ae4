//! What a sandbox can reach, for the engine: a network namespace of its own with an address, a way
//! to the public internet, and none to anything private.
//!
//! ```text
//!  engine --lease(id)--> Network --takes a ready one--> Lease { netns, addresses, nameserver }
//!                           |
//!            builder thread | makes the next one: netns + veth pair + addresses + routes (netlink)
//!                           |
//!  sandbox: eth0 ===veth=== gv<tag>-<n>  --routing-->  nft table inet garth_<tag>  --NAT-->  uplink
//!                                             |
//!                           garth-<tag>: gateway address, DNS forwarder (a thread of the daemon)
//! ```
//!
//! The wires are routed, not bridged: every sandbox hangs on a pair of its own with one /32 and one
//! /128 route to it, so no frame of one sandbox can arrive at another, there is no ARP, neighbour
//! discovery or router advertisement to forge, and a bridge's limit of 1,024 ports does not apply.
//! What may pass is decided in one ruleset that is loaded once and never changed per sandbox
//! (`ruleset.nft`, a reason with every chain); a second wall, routes that refuse, stands inside each
//! sandbox's namespace. A sandbox whose user namespace owns its network namespace
//! ([`Network::lease_in`]) can take that one down, and can send any frame; the ruleset is made to hold
//! alone. When somebody flushes the host's rules they are loaded again.
//!
//! Four threads, all asleep while nothing happens: one makes wires, one takes them apart, one hears
//! from the kernel what others changed, one forwards DNS.
//!
//! What it changes on a host, all of it taken back by [`Network::close`]: the interfaces
//! `garth-<tag>` and `gv<tag>-*` with their addresses and routes; the nft tables `garth_<tag>` and,
//! shared by all daemons, `garth_forwarding`; `net.ipv4.conf.IF.forwarding` and
//! `net.ipv6.conf.IF.force_forwarding` of the interfaces with a default route (before Linux 6.17
//! `net.ipv6.conf.all.forwarding` with `accept_ra` 2 instead); beside Docker two rules in
//! `DOCKER-USER`. Two files: `network.json` in the data directory, `/run/garth/network.lock`.
//!
//! It does not start sandboxes, keep leases over a restart (the engine stores a [`LeaseRecord`] and
//! gives it back), or publish ports. Everything it makes in the kernel is named
//! after the data directory's tag, so several daemons live side by side.
#![forbid(unsafe_code)]

mod address;
mod blocked;
mod builder;
mod config;
mod dns;
mod docker;
mod error;
mod forwarding;
mod host;
mod layout;
mod lease;
mod network;
mod probe;
mod program;
mod queue;
mod remover;
mod ruleset;
mod slot;
mod sysctl;
mod tap;
mod watch;

pub use config::NetworkConfig;
pub use error::{Error, ErrorKind};
pub use lease::{Lease, LeaseRecord, Link};
pub use network::Network;
pub use probe::Finding;
