//! The local engine's drivers: the pool, the network and the sandboxes of this host, behind one closed
//! enum whose other variant is a fake that tests use without root.
//!
//! Everything here blocks, and everything that removes is safe to repeat.

#[cfg(any(test, feature = "fake"))]
pub(crate) mod fake;
mod host;

use std::io::Read;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use garth_runtime::Ending;
use garth_spec::{
    ByteSize, Handler, ImageConfig, ImageId, Limits, Network, ProjectId, ProjectSpec, RuntimeChoice, SandboxId,
};
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::doctor::Findings;
use crate::error::{Error, ErrorKind};
use crate::guest::{GuestReport, KernelSource, Progress};
use crate::images::{ImageEntry, ImageFormat};
use crate::project::Project;

pub(crate) use host::{Host, HostConfig};

/// What carries out the engine's decisions.
#[derive(Debug)]
pub(crate) enum Local {
    /// This host.
    Host(Box<Host>),
    /// Numbers in a file.
    #[cfg(any(test, feature = "fake"))]
    Fake(Arc<fake::Fake>),
}

/// A running sandbox: the kernel's part of it, and the way to its agent.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) sandbox: Sandbox,
    pub(crate) agent: Arc<Agent>,
}

/// The kernel's part of a sandbox.
#[derive(Debug)]
pub(crate) enum Sandbox {
    Host(Box<host::HostSandbox>),
    #[cfg(any(test, feature = "fake"))]
    Fake(fake::FakeSandbox),
}

/// How a restarted daemon finds a sandbox again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SandboxRecord {
    Host(garth_runtime::SandboxRecord),
    Container(garth_runtime::ContainerRecord),
    Machine(host::MachineRecord),
    #[cfg(any(test, feature = "fake"))]
    Fake(SandboxId),
}

/// How a restarted daemon finds a sandbox's addresses again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LeaseRecord {
    Host(garth_network::LeaseRecord),
    #[cfg(any(test, feature = "fake"))]
    Fake(SandboxId),
}

/// How a paused sandbox is woken, by this daemon or a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum PausedRecord {
    /// It is all there and does not run: the same processes go on.
    Frozen,
    /// Its memory is on disk, and nothing of it runs or takes memory.
    Saved,
}

/// A sandbox at rest.
#[derive(Debug)]
pub(crate) struct Rest {
    pub(crate) record: PausedRecord,
    /// The sandbox itself, where its processes are still there: what is killed when it is stopped.
    pub(crate) live: Option<Arc<Live>>,
}

/// A sandbox that is awake again.
#[derive(Debug)]
pub(crate) struct Woken {
    pub(crate) live: Arc<Live>,
    /// Its addresses, where it has got others.
    pub(crate) lease: Option<(Option<LeaseRecord>, Option<Addresses>)>,
}

/// Where a sandbox is reached, from this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Addresses {
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address, where the host has IPv6.
    pub ipv6: Option<Ipv6Addr>,
}

/// What a sandbox uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Bytes of memory, page cache included.
    pub memory: u64,
    /// Microseconds of processor time.
    pub cpu_micros: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Times the kernel killed something in it for memory.
    pub oom_kills: u64,
}

/// What a disk uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskUse {
    /// Bytes used.
    pub used: u64,
    /// The hard limit; none where the pool has no quotas.
    pub limit: Option<ByteSize>,
}

/// A network namespace for a sandbox, and what that was made with.
#[derive(Debug)]
pub(crate) struct Lease {
    /// What the sandbox will run in, where its network namespace belongs to that.
    pub(crate) prepared: Option<Prepared>,
    /// To be entered; nothing only in tests.
    pub(crate) netns: Option<OwnedFd>,
    pub(crate) record: Option<LeaseRecord>,
    pub(crate) addresses: Option<Addresses>,
    /// The other end of the wire, for a machine: its interface, and what that is set to.
    pub(crate) tap: Option<OwnedFd>,
    pub(crate) link: Option<garth_network::Link>,
    /// The contents of `/etc/resolv.conf`; none without network.
    pub(crate) resolv_conf: Option<String>,
}

/// What a sandbox will run in.
#[derive(Debug)]
pub(crate) enum Prepared {
    Native(Box<garth_runtime::Prepared>),
    Container(garth_runtime::PreparedContainer),
}

impl Prepared {
    /// The network namespace that belongs to it.
    pub(crate) fn netns(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::Native(prepared) => prepared.netns(),
            Self::Container(prepared) => prepared.netns(),
        }
    }
}

/// A sandbox to make.
pub(crate) struct Order<'a> {
    pub(crate) id: SandboxId,
    pub(crate) project: &'a Project,
    pub(crate) lease: Lease,
}

/// An image that stands in the pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) id: ImageId,
    pub(crate) config: ImageConfig,
    pub(crate) size: Option<u64>,
}

/// Calls one function of whichever driver there is.
macro_rules! driver {
    ($self:ident, $local:ident => $call:expr) => {
        match $self {
            Self::Host($local) => $call,
            #[cfg(any(test, feature = "fake"))]
            Self::Fake($local) => $call,
        }
    };
}

impl Local {
    /// Makes the built-in image if it is not the one that is there; `None` when it is.
    pub(crate) fn make_host_image(&self, have: Option<ImageId>) -> Result<Option<Stored>, Error> {
        driver!(self, local => local.make_host_image(have))
    }

    /// Fills a new image. Nothing is left on failure.
    pub(crate) fn import(&self, id: ImageId, format: ImageFormat, from: &mut dyn Read) -> Result<Stored, Error> {
        driver!(self, local => local.import(id, format, from))
    }

    /// An error if removing the image would take files from a disk.
    pub(crate) fn check_image_unused(&self, image: &ImageEntry) -> Result<(), Error> {
        driver!(self, local => local.check_image_unused(image))
    }

    pub(crate) fn remove_image(&self, id: ImageId) -> Result<(), Error> {
        driver!(self, local => local.remove_image(id))
    }

    pub(crate) fn images(&self) -> Result<Vec<Stored>, Error> {
        driver!(self, local => local.images())
    }

    pub(crate) fn create_disk(&self, project: ProjectId, image: ImageId, limit: ByteSize) -> Result<(), Error> {
        driver!(self, local => local.create_disk(project, image, limit))
    }

    pub(crate) fn remove_disk(&self, project: ProjectId) -> Result<(), Error> {
        driver!(self, local => local.remove_disk(project))
    }

    /// Every disk, and the image that it began as.
    pub(crate) fn disks(&self) -> Result<Vec<(ProjectId, ImageId)>, Error> {
        driver!(self, local => local.disks())
    }

    pub(crate) fn set_disk_limit(&self, project: ProjectId, limit: ByteSize) -> Result<(), Error> {
        driver!(self, local => local.set_disk_limit(project, limit))
    }

    pub(crate) fn disk_use(&self, project: ProjectId) -> Result<DiskUse, Error> {
        driver!(self, local => local.disk_use(project))
    }

    /// Whether disks are held to their limits.
    pub(crate) fn has_quotas(&self) -> bool {
        driver!(self, local => local.has_quotas())
    }

    /// Removes what a crash left half-made in the pool.
    pub(crate) fn sweep_pool(&self) -> Result<(), Error> {
        driver!(self, local => local.sweep_pool())
    }

    /// What carries a runtime out here; never anything weaker than what was asked for.
    pub(crate) fn handler(&self, choice: RuntimeChoice) -> Result<Handler, Error> {
        driver!(self, local => local.handler(choice))
    }

    /// Whether this host has, and shows, what the spec names of it.
    pub(crate) fn check(&self, spec: &ProjectSpec) -> Result<(), Error> {
        driver!(self, local => local.check(spec))
    }

    /// Whether this handler does here what the spec asks of it.
    pub(crate) fn check_handler(&self, handler: Handler, spec: &ProjectSpec) -> Result<(), Error> {
        driver!(self, local => local.check_handler(handler, spec))
    }

    /// Holds the network of a sandbox to a rate; nothing where it has none.
    pub(crate) fn limit_network(&self, id: SandboxId, rate: Option<ByteSize>) -> Result<(), Error> {
        driver!(self, local => local.limit_network(id, rate))
    }

    pub(crate) fn lease(&self, id: SandboxId, handler: Handler, network: Network) -> Result<Lease, Error> {
        driver!(self, local => local.lease(id, handler, network))
    }

    /// Sets up what the first lease would wait for; whether it works, the first lease tells.
    pub(crate) fn prepare_network(&self) {
        driver!(self, local => local.prepare_network())
    }

    pub(crate) fn release(&self, id: SandboxId) -> Result<(), Error> {
        driver!(self, local => local.release(id))
    }

    /// Makes a sandbox; done when its init has applied the plan. Nothing is left on failure.
    pub(crate) fn start(&self, order: Order<'_>) -> Result<Live, Error> {
        driver!(self, local => local.start(order))
    }

    /// Finds a sandbox and its addresses again; `None` when its init is gone.
    pub(crate) fn recover(
        &self,
        id: SandboxId,
        record: &SandboxRecord,
        lease: Option<&LeaseRecord>,
    ) -> Result<Option<Live>, Error> {
        driver!(self, local => local.recover(id, record, lease))
    }

    /// Whether what a paused sandbox had in memory is there.
    pub(crate) fn has_memory(&self, project: ProjectId) -> bool {
        match self {
            Self::Host(host) => host.has_memory(project),
            #[cfg(any(test, feature = "fake"))]
            Self::Fake(_) => false,
        }
    }

    /// Brings a sandbox to rest: done when nothing in it runs. After an error it runs on. Its lease stays.
    pub(crate) fn pause(&self, project: &Project, live: Arc<Live>) -> Result<Rest, Error> {
        if let (Self::Host(host), Sandbox::Host(sandbox)) = (self, &live.sandbox)
            && sandbox.is_machine()
        {
            if project.sandbox.as_ref().is_some_and(|entry| !entry.volumes.is_empty()) {
                return Err(Error::because(
                    ErrorKind::Pause,
                    "what a guest has open of a volume cannot be kept with its memory",
                )
                .hint("stop it instead; or take its volumes away with `garth set --unset-volume` and restart it"));
            }
            host.save_machine(project, sandbox, &live.agent)?;
            return Ok(Rest { record: PausedRecord::Saved, live: None });
        }
        live.sandbox.freeze()?;
        Ok(Rest { record: PausedRecord::Frozen, live: Some(live) })
    }

    /// Wakes the sandbox of a paused project, as its record says. After an error it is at rest.
    pub(crate) fn resume(&self, project: &Project, live: Option<Arc<Live>>) -> Result<Woken, Error> {
        let entry = project.sandbox.as_ref().ok_or(ErrorKind::Sandbox)?;
        match (entry.paused, live) {
            (Some(PausedRecord::Frozen), Some(live)) => live.sandbox.thaw().map(|()| Woken { live, lease: None }),
            (Some(PausedRecord::Saved), None) => {
                let lease = self.lease(entry.id, entry.handler, entry.network)?;
                let leased = (lease.record.clone(), lease.addresses);
                let limited = self.limit_network(entry.id, project.spec.limits.network_rate);
                let order = Order { id: entry.id, project, lease };
                let live = limited.and_then(|()| driver!(self, local => local.wake(order)));
                match live {
                    Ok(live) => Ok(Woken { live: Arc::new(live), lease: Some(leased) }),
                    Err(error) => {
                        self.release(entry.id)?;
                        Err(error)
                    }
                }
            }
            _ => Err(ErrorKind::Sandbox.into()),
        }
    }

    /// Ends every sandbox that is not to be kept.
    pub(crate) fn sweep_sandboxes(&self, keep: &[SandboxId]) -> Result<(), Error> {
        driver!(self, local => local.sweep_sandboxes(keep))
    }

    /// Takes back the addresses of every sandbox that is not to be kept.
    pub(crate) fn sweep_leases(&self, keep: &[SandboxId]) -> Result<(), Error> {
        driver!(self, local => local.sweep_leases(keep))
    }

    /// Grows the pool or gives space back, where that is due.
    pub(crate) fn maintain(&self) -> Result<(), Error> {
        driver!(self, local => local.maintain())
    }

    /// Makes what guests start from.
    pub(crate) fn setup_microvm(
        &self,
        kernel: KernelSource,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<GuestReport, Error> {
        driver!(self, local => local.setup_microvm(kernel, progress))
    }

    /// What works here.
    pub(crate) fn findings(&self) -> Findings {
        driver!(self, local => local.findings())
    }

    /// Gives back what is kept ready, and when none runs, what sandboxes share.
    pub(crate) fn close(&self, running: usize) -> Result<(), Error> {
        driver!(self, local => local.close(running))
    }
}

impl Sandbox {
    pub(crate) fn record(&self) -> SandboxRecord {
        driver!(self, sandbox => sandbox.record())
    }

    /// Waits until its init has ended.
    pub(crate) async fn ended(&self) {
        driver!(self, sandbox => sandbox.ended().await)
    }

    /// Waits until a volume of its is served no more: whatever uses that waits for ever. Not when it ends.
    pub(crate) async fn unserved(&self) {
        match self {
            Self::Host(sandbox) => sandbox.unserved().await,
            #[cfg(any(test, feature = "fake"))]
            Self::Fake(_) => std::future::pending().await,
        }
    }

    /// Whether it has a kernel of its own.
    pub(crate) fn is_machine(&self) -> bool {
        match self {
            Self::Host(sandbox) => sandbox.is_machine(),
            #[cfg(any(test, feature = "fake"))]
            Self::Fake(_) => false,
        }
    }

    pub(crate) fn set_limits(&self, limits: &Limits) -> Result<(), Error> {
        driver!(self, sandbox => sandbox.set_limits(limits))
    }

    /// Brings its processes to rest where they are, and waits until they are.
    pub(crate) fn freeze(&self) -> Result<(), Error> {
        driver!(self, sandbox => sandbox.freeze())
    }

    /// Has them run again; nothing where they do.
    pub(crate) fn thaw(&self) -> Result<(), Error> {
        driver!(self, sandbox => sandbox.thaw())
    }

    pub(crate) fn usage(&self) -> Result<Usage, Error> {
        driver!(self, sandbox => sandbox.usage())
    }

    /// How it ended, once it has.
    pub(crate) fn ending(&self) -> Ending {
        driver!(self, sandbox => sandbox.ending())
    }

    /// Kills everything in it and waits until nothing is left.
    pub(crate) fn destroy(&self) -> Result<(), Error> {
        driver!(self, sandbox => sandbox.destroy())
    }
}
