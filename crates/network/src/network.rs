use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use garth_kernel::netns;
use garth_spec::SandboxId;

use crate::config::Names;
use crate::queue::{Found, Request, Shared};
use crate::slot::{self, Ready};
use crate::{Error, ErrorKind, Finding, Lease, LeaseRecord, NetworkConfig, probe};

/// The sandboxes' network of one data directory.
///
/// All calls are synchronous and may come from any thread; what they do happens in the network
/// namespace of the thread that called [`Network::open`]. Dropping it leaves running sandboxes
/// connected.
#[derive(Debug)]
pub struct Network {
    shared: Arc<Shared>,
}

impl Network {
    /// Checks the configuration. Touches nothing in the kernel: that is for the first lease.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidTag`]; [`ErrorKind::Kernel`] where `/proc` is not mounted.
    pub fn open(config: NetworkConfig) -> Result<Self, Error> {
        let names = Names::new(&config.tag)?;
        let home = netns::current().map_err(|error| Error::kernel("cannot open the network namespace", error))?;
        Ok(Self { shared: Arc::new(Shared::new(config, names, home)) })
    }

    /// A connected network namespace for this sandbox. Takes one that is ready (microseconds); when
    /// there is none, makes it (milliseconds), and the first time sets the host up (tens of them).
    ///
    /// Needs `CAP_NET_ADMIN` and `CAP_SYS_ADMIN`. Fails closed: no rule that could not be applied is
    /// left out.
    ///
    /// # Errors
    /// Any [`ErrorKind`] but [`ErrorKind::InvalidTag`].
    pub fn lease(&self, id: SandboxId) -> Result<Lease, Error> {
        if self.shared.queue().leases.contains_key(&id) {
            return Err(Error::new(ErrorKind::AlreadyLeased, format!("sandbox {id} has a network already")));
        }
        let ready = match self.shared.take_warm(id) {
            Some(ready) => ready,
            None => self.shared.ask(|reply| Request::Make(id, reply))?,
        };
        Ok(lease(ready))
    }

    /// Takes over the lease of an earlier daemon, from what [`Lease::record`] gave. `false` when its
    /// wire is gone, with the sandbox that held it.
    ///
    /// # Errors
    /// As [`Network::lease`]: the host is set up again, because rules and DNS must be there.
    pub fn recover(&self, id: SandboxId, record: &LeaseRecord) -> Result<bool, Error> {
        let found = self.shared.ask(|reply| Request::Adopt(record.clone(), reply))?;
        if found == Found::Alive {
            self.shared.queue().leases.insert(id, record.clone());
        }
        Ok(found == Found::Alive)
    }

    /// Ends a lease, if there is one. The wire is removed soon after, in another thread, and its
    /// address is not used again before.
    pub fn release(&self, id: SandboxId) {
        let record = self.shared.queue().leases.remove(&id);
        if let Some(record) = record {
            self.shared.release(record);
        }
    }

    /// Removes what belongs to no sandbox in `keep`: leases, and wires that an earlier daemon left;
    /// all that was made on the host, when no lease remains. Returns when it is gone.
    ///
    /// # Errors
    /// As [`Network::lease`].
    pub fn sweep(&self, keep: &[SandboxId]) -> Result<(), Error> {
        let keep = {
            let mut queue = self.shared.queue();
            queue.leases.retain(|id, _| keep.contains(id));
            queue.leases.values().map(|record| record.slot).collect()
        };
        self.shared.ask(|reply| Request::Sweep(keep, reply))
    }

    /// Removes everything if no lease is left, and gives no lease any more. Waits for it.
    ///
    /// # Errors
    /// As [`Network::lease`].
    pub fn close(&self) -> Result<(), Error> {
        self.shared.ask(Request::Close)
    }

    /// A network namespace with nothing but loopback, up, for a sandbox without a network. Needs
    /// `CAP_SYS_ADMIN`.
    ///
    /// # Errors
    /// [`ErrorKind::NotPermitted`], [`ErrorKind::Kernel`].
    pub fn loopback_only() -> Result<OwnedFd, Error> {
        netns::with_loopback(slot::allow_ping_and_low_ports)
            .map_err(|error| Error::kernel("cannot make a network namespace", error))
    }

    /// What the network needs from this host, for `doctor`. Changes nothing on it; the trial is made
    /// in a namespace of its own and takes about 50 ms.
    pub fn probe() -> Vec<Finding> {
        probe::probe()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.shared.join();
    }
}

fn lease(ready: Ready) -> Lease {
    let Ready { netns, gateway, record } = ready;
    Lease { netns, ipv4: record.ipv4, ipv6: record.ipv6, nameserver: IpAddr::V4(gateway), record }
}
