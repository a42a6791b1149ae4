//! The thread that takes ended leases apart, all that are waiting at a time.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use garth_kernel::netlink::{self, Socket};
use garth_kernel::{conntrack, rtnl};
use rustix::io::Errno;

use crate::queue::Shared;
use crate::{Error, LeaseRecord};

/// Interfaces that are about to be removed are put into this group ("grth"), so that one request
/// removes all of them. Whichever daemon sends it: what is in the group is condemned.
const CONDEMNED: u32 = 0x6772_7468;

/// Runs until the network is closed.
#[derive(Debug)]
pub(crate) struct Remover {
    thread: Option<JoinHandle<()>>,
}

impl Remover {
    /// Starts it; its sockets belong to the network namespace of the calling thread.
    pub(crate) fn start(shared: &Arc<Shared>) -> Result<Self, Error> {
        let start = || {
            let mut sockets = Sockets { links: Socket::route()?, connections: Socket::netfilter()? };
            let shared = Arc::clone(shared);
            let run = move || {
                while let Some(ended) = shared.next_released() {
                    shared.removed(&sockets.remove(&shared, ended));
                }
            };
            std::thread::Builder::new().name("garth-remove".to_owned()).spawn(run)
        };
        let thread = start().map_err(|error: io::Error| Error::kernel("cannot start removing wires", error))?;
        Ok(Self { thread: Some(thread) })
    }
}

impl Drop for Remover {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.take() {
            // A panic there was printed when it happened.
            drop(thread.join());
        }
    }
}

/// Removes these interfaces, of which some may have gone by themselves.
pub(crate) fn remove_links(socket: &mut Socket, indexes: &[u32]) -> Result<(), netlink::Error> {
    if indexes.is_empty() {
        return Ok(());
    }
    let condemn: Vec<_> = indexes.iter().map(|index| rtnl::set_group(*index, CONDEMNED)).collect();
    unless_gone(socket.apply(&condemn))?;
    unless_gone(socket.apply(&[rtnl::delete_group(CONDEMNED)]))
}

fn unless_gone(outcome: Result<(), netlink::Error>) -> Result<(), netlink::Error> {
    match outcome {
        Err(error) if error.errno() == Some(Errno::NODEV.raw_os_error()) => Ok(()),
        outcome => outcome,
    }
}

struct Sockets {
    links: Socket,
    connections: Socket,
}

impl Sockets {
    /// Returns those whose wire is gone.
    fn remove(&mut self, shared: &Shared, ended: Vec<LeaseRecord>) -> Vec<LeaseRecord> {
        let indexes: Vec<u32> = ended.iter().map(|record| record.wire).collect();
        if let Err(error) = remove_links(&mut self.links, &indexes) {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot remove the wires of ended sandboxes");
        }
        let remains =
            |record: &LeaseRecord| rtnl::index(&self.links, &shared.names.wire(record.slot)) == Some(record.wire);
        let gone: Vec<LeaseRecord> = ended.into_iter().filter(|record| !remains(record)).collect();
        gone.iter().for_each(|record| self.forget_connections(record));
        gone
    }

    /// Tracked connections outlive the sandbox, TCP ones by five days. A sandbox that is started
    /// again and again could fill the host's table with them, and the next holder of the address
    /// would find its share used.
    fn forget_connections(&mut self, record: &LeaseRecord) {
        let addresses = [Some(IpAddr::V4(record.ipv4)), record.ipv6.map(IpAddr::V6)];
        let requests: Vec<_> = addresses.into_iter().flatten().map(conntrack::forget).collect();
        match self.connections.apply(&requests) {
            // There were none.
            Err(error) if error.errno() == Some(Errno::NOENT.raw_os_error()) => {}
            Err(error) => tracing::debug!(error = &error as &dyn std::error::Error, "connections are left to time out"),
            Ok(()) => {}
        }
    }
}
