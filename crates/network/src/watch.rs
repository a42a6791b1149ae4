//! Hears from the kernel that the host's default routes, its forwarding or its firewall changed.
//!
//! Another program's `nft flush ruleset` (the nftables service does it when it restarts) would
//! leave the host's own services open to the sandboxes; a laptop that changes from cable to Wi-Fi
//! has a new uplink. Both are put right by the builder within milliseconds.

use std::io::{self, PipeReader, PipeWriter};
use std::sync::Arc;
use std::thread::JoinHandle;

use garth_kernel::netlink::{Event, Socket, attributes};
use garth_kernel::rtnl;
use rustix::event::{PollFd, PollFlags};

use crate::queue::{Check, Shared};
use crate::{Error, docker, forwarding};

/// `1 << (group - 1)` of linux/rtnetlink.h: IPv4 routes 7, IPv6 routes 11, IPv4 settings 24, IPv6
/// settings 25.
const ROUTE_GROUPS: u32 = (1 << 6) | (1 << 10) | (1 << 23) | (1 << 24);

/// `NFNLGRP_NFTABLES` of linux/netfilter/nfnetlink.h.
const NFTABLES_GROUP: u32 = 1 << 6;

/// `NFNL_SUBSYS_NFTABLES << 8`, and the messages that say that something was removed from a table:
/// tables, chains, rules (linux/netfilter/nf_tables.h).
const NFTABLES: u16 = 10 << 8;
const REMOVALS: [u16; 3] = [2, 5, 8];

/// `RTM_NEWNETCONF`.
const SETTINGS_CHANGED: u16 = 80;

/// A thread that sleeps until something happens; runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Starts it in the network namespace of the calling thread. Nothing that happens after the
    /// return is missed.
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self, Error> {
        let start = || {
            let routes = Socket::route_events(ROUTE_GROUPS)?;
            let firewall = Socket::netfilter_events(NFTABLES_GROUP)?;
            let (stopped, stop) = io::pipe()?;
            let mut ears = Ears { routes, firewall, stopped, shared: Arc::clone(shared) };
            let run = move || {
                if let Err(error) = ears.listen() {
                    tracing::error!(%error, "changes of the host's network are no longer noticed");
                }
            };
            let thread = std::thread::Builder::new().name("garth-watch".to_owned()).spawn(run)?;
            Ok(Self { stop: Some(stop), thread: Some(thread) })
        };
        start().map_err(|error: io::Error| Error::kernel("cannot watch the host's network", error))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there was printed when it happened.
            drop(thread.join());
        }
    }
}

struct Ears {
    routes: Socket,
    firewall: Socket,
    stopped: PipeReader,
    shared: Arc<Shared>,
}

impl Ears {
    fn listen(&mut self) -> io::Result<()> {
        let table = self.shared.names.table();
        let matters = |event: &Event| {
            removes_from(event, &table) || removes_from(event, forwarding::TABLE) || adds_chain(event, docker::CHAIN)
        };
        loop {
            let mut fds = [
                PollFd::new(&self.stopped, PollFlags::empty()),
                PollFd::new(&self.routes, PollFlags::IN),
                PollFd::new(&self.firewall, PollFlags::IN),
            ];
            match rustix::event::poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                outcome => outcome?,
            };
            // The other end of the pipe was closed.
            if !fds[0].revents().is_empty() {
                return Ok(());
            }
            // When some were lost, they are taken to have mattered.
            if self.routes.events()?.is_none_or(|events| events.iter().any(moves_uplink)) {
                self.shared.check(Check::Uplinks);
            }
            if self.firewall.events()?.is_none_or(|events| events.iter().any(matters)) {
                self.shared.check(Check::Rules);
            }
        }
    }
}

fn moves_uplink(event: &Event) -> bool {
    match event.kind {
        SETTINGS_CHANGED => is_of_the_whole_host(&event.payload),
        _ => rtnl::route(&event.payload).is_some_and(|route| route.is_default()),
    }
}

/// Not of one interface: every wire that is made announces its own.
fn is_of_the_whole_host(payload: &[u8]) -> bool {
    /// `NETCONFA_IFINDEX` of linux/netconf.h, and the index that stands for all.
    const INDEX: u16 = 1;
    const ALL: [u8; 4] = (-1i32).to_ne_bytes();
    attributes(payload.get(4..).unwrap_or_default()).any(|attribute| attribute == (INDEX, &ALL))
}

fn removes_from(event: &Event, table: &str) -> bool {
    /// `NFTA_TABLE_NAME`, `NFTA_CHAIN_TABLE` and `NFTA_RULE_TABLE` are all 1.
    const NAME: u16 = 1;
    let is_removal = event.kind & 0xff00 == NFTABLES && REMOVALS.contains(&(event.kind & 0xff));
    is_removal && says(event, NAME, table)
}

/// Docker has started after us.
fn adds_chain(event: &Event, chain: &str) -> bool {
    /// `NFT_MSG_NEWCHAIN` and `NFTA_CHAIN_NAME`.
    const NEW_CHAIN: u16 = 3;
    const NAME: u16 = 3;
    event.kind == NFTABLES | NEW_CHAIN && says(event, NAME, chain)
}

/// `nfgenmsg` is 4 bytes; strings end with a NUL.
fn says(event: &Event, attribute: u16, text: &str) -> bool {
    attributes(event.payload.get(4..).unwrap_or_default())
        .any(|(kind, value)| kind == attribute && value.strip_suffix(&[0]) == Some(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, table: &str) -> Event {
        let mut payload = vec![1, 0, 0, 0];
        payload.extend_from_slice(&(table.len() as u16 + 5).to_ne_bytes());
        payload.extend_from_slice(&1u16.to_ne_bytes());
        payload.extend_from_slice(table.as_bytes());
        payload.push(0);
        Event { kind, payload }
    }

    #[test]
    fn only_removals_from_the_named_table_count() {
        assert!(removes_from(&event(NFTABLES | 2, "garth_ab"), "garth_ab"));
        assert!(removes_from(&event(NFTABLES | 8, "garth_ab"), "garth_ab"));
        assert!(!removes_from(&event(NFTABLES, "garth_ab"), "garth_ab"));
        assert!(!removes_from(&event(NFTABLES | 2, "garth_abc"), "garth_ab"));
        assert!(!removes_from(&event(2, "garth_ab"), "garth_ab"));
    }
}
