use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use garth_kernel::netns;
use garth_spec::{ByteSize, SandboxId};

use crate::config::Names;
use crate::queue::{Found, Request, Shared};
use crate::slot::{self, Place, Ready};
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
        self.refuse_second(id)?;
        let ready = match self.shared.take_warm(id) {
            Some(ready) => ready,
            None => self.shared.ask(|reply| Request::Make(id, Place::New, reply))?,
        };
        Ok(lease(ready))
    }

    /// As [`Network::lease`], into a network namespace that somebody else has made, which
    /// [`Lease::netns`] is then: one that belongs to the sandbox's user namespace, so that root
    /// inside configures it. It must be empty (`lo`, down, and nothing else), and nothing that is not
    /// trusted may run in it before the return. Takes milliseconds, because nothing can be ready for
    /// a namespace that was not there.
    ///
    /// Root inside can undo all that is set there. The host's rules hold against it; the second wall,
    /// routes that refuse, is its own to take down.
    ///
    /// # Errors
    /// As [`Network::lease`]; and [`ErrorKind::HostNamespace`], [`ErrorKind::Kernel`] where the
    /// descriptor is no network namespace or has an `eth0`.
    pub fn lease_in(&self, id: SandboxId, netns: OwnedFd) -> Result<Lease, Error> {
        self.refuse_second(id)?;
        refuse_same(&netns, &self.shared.home)?;
        self.shared.ask(|reply| Request::Make(id, Place::Given(netns), reply)).map(lease)
    }

    fn refuse_second(&self, id: SandboxId) -> Result<(), Error> {
        match self.shared.queue().leases.contains_key(&id) {
            true => Err(Error::new(ErrorKind::AlreadyLeased, format!("sandbox {id} has a network already"))),
            false => Ok(()),
        }
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

    /// Holds a lease to so many bytes a second each way, or to none; nothing where there is no lease. It begins at once and
    /// lasts until the lease ends. What comes faster is lost. Root in the sandbox cannot undo it.
    ///
    /// # Errors
    /// As [`Network::lease`].
    pub fn limit(&self, id: SandboxId, rate: Option<ByteSize>) -> Result<(), Error> {
        let queue = self.shared.queue();
        let (Some(wire), limited) = (queue.leases.get(&id).map(|record| record.wire), queue.limited.contains(&id))
        else {
            return Ok(());
        };
        drop(queue);
        let Some(rate) = rate else {
            if limited {
                self.shared.ask(|reply| Request::Limit(wire, None, reply))?;
                self.shared.queue().limited.remove(&id);
            }
            return Ok(());
        };
        self.shared.ask(|reply| Request::Limit(wire, Some(rate.bytes()), reply))?;
        self.shared.queue().limited.insert(id);
        Ok(())
    }

    /// Ends a lease, if there is one. The wire is removed soon after, in another thread, and its
    /// address is not used again before.
    pub fn release(&self, id: SandboxId) {
        let mut queue = self.shared.queue();
        let (record, limited) = (queue.leases.remove(&id), queue.limited.remove(&id));
        drop(queue);
        if let Some(record) = record {
            if limited {
                self.shared.forget_rate(record.wire);
            }
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
            queue.limited.retain(|id| keep.contains(id));
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

    /// The same with a tap, `tap0`, that leads nowhere: for a machine that is to have an interface and no network. Both go
    /// with the namespace.
    ///
    /// # Errors
    /// [`ErrorKind::NotPermitted`]; [`ErrorKind::Kernel`], also without /dev/net/tun.
    pub fn tap_only() -> Result<(OwnedFd, OwnedFd), Error> {
        let netns = Self::loopback_only()?;
        let tap = crate::tap::alone(netns.as_fd());
        let tap = tap.map_err(|error| Error::kernel("cannot make a tap for a virtual machine", error))?;
        Ok((netns, tap))
    }

    /// As [`Network::loopback_only`], in a network namespace that somebody else has made for a
    /// sandbox.
    ///
    /// # Errors
    /// [`ErrorKind::HostNamespace`] where it is the calling thread's, [`ErrorKind::NotPermitted`],
    /// [`ErrorKind::Kernel`].
    pub fn loopback_in(netns: BorrowedFd<'_>) -> Result<(), Error> {
        let home = netns::current().map_err(|error| Error::kernel("cannot open the network namespace", error))?;
        refuse_same(netns, &home)?;
        slot::loopback_in(netns).map_err(|error| Error::kernel("cannot configure a network namespace", error))
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

/// What is set in a sandbox's namespace must never be set in the host's.
fn refuse_same(netns: impl AsFd, home: impl AsFd) -> Result<(), Error> {
    match slot::is_same(netns.as_fd(), home.as_fd()) {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::new(ErrorKind::HostNamespace, "the network namespace is the host's, not a sandbox's")),
        Err(error) => Err(Error::kernel("cannot look at a network namespace", error)),
    }
}

fn lease(ready: Ready) -> Lease {
    let Ready { netns, link, record } = ready;
    Lease { netns, ipv4: record.ipv4, ipv6: record.ipv6, link, nameserver: IpAddr::V4(link.gateway4), record }
}
