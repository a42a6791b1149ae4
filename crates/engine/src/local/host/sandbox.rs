use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use garth_runtime::{Ending, Sandboxes};
use garth_spec::{Limits, SandboxId};
use garth_vm::Control;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::failure::Explain as _;
use super::machine::Guest;
use crate::agent::{Agent, Channel, Door};
use crate::error::{Error, ErrorKind};
use crate::local::{Live, Sandbox, SandboxRecord, Usage};

/// A sandbox on this host.
#[derive(Debug)]
pub(crate) struct HostSandbox {
    id: SandboxId,
    record: SandboxRecord,
    /// Readable once its init has ended.
    pidfd: AsyncFd<OwnedFd>,
    /// The same of each program that serves a directory to a machine.
    servers: Servers,
    /// Gone once it is destroyed.
    sandbox: Mutex<Option<Running>>,
    sandboxes: Arc<Sandboxes>,
    agent: Arc<Agent>,
}

/// What a machine cannot do without: its guest would wait for ever for a directory that nobody serves.
#[derive(Debug)]
struct Servers {
    watched: Vec<AsyncFd<OwnedFd>>,
    wanted: usize,
}

impl Servers {
    fn of(sandbox: &Running) -> Result<Self, Error> {
        let Running::Machine(guest) = sandbox else { return Ok(Self { watched: Vec::new(), wanted: 0 }) };
        let watched = guest.sandbox.servers().explain()?.into_iter().map(watch).collect::<io::Result<_>>();
        let watched = watched.map_err(|error| Error::because(ErrorKind::Start, error).step("watch"))?;
        Ok(Self { watched, wanted: guest.record.shares })
    }

    /// Done when one has ended.
    async fn one_ended(&self) {
        if self.watched.len() < self.wanted {
            return;
        }
        let ends = self.watched.iter().map(|server| Box::pin(server.readable()));
        match self.wanted {
            0 => std::future::pending().await,
            _ => drop(futures::future::select_all(ends).await),
        }
    }
}

/// When a machine ends, what serves it goes with it, and may be seen to end first.
const TOGETHER: Duration = Duration::from_secs(2);

/// Who made it.
#[derive(Debug)]
pub(crate) enum Running {
    Native(garth_runtime::Sandbox),
    Container(garth_runtime::Container),
    Machine(Box<Guest>),
}

/// Calls one function of whichever it is.
macro_rules! running {
    ($self:ident, $sandbox:ident => $call:expr) => {
        match $self {
            Running::Native($sandbox) => $call,
            Running::Container($sandbox) => $call,
            Running::Machine(guest) => {
                let $sandbox = &guest.sandbox;
                $call
            }
        }
    };
}

impl Running {
    /// One that an earlier daemon started; `None` when it is gone.
    pub(super) fn recover(sandboxes: &Sandboxes, id: SandboxId, record: &SandboxRecord) -> Result<Option<Self>, Error> {
        match record {
            SandboxRecord::Host(record) => Ok(sandboxes.recover(id, record).explain()?.map(Self::Native)),
            SandboxRecord::Container(record) => {
                Ok(sandboxes.recover_container(id, record).explain()?.map(Self::Container))
            }
            SandboxRecord::Machine(record) => {
                let found = sandboxes.recover(id, &record.sandbox).explain()?;
                let directory = sandboxes.directory(id);
                found
                    .map(|sandbox| Guest::of(sandbox, record, directory).map(|guest| Self::Machine(Box::new(guest))))
                    .transpose()
            }
            #[cfg(any(test, feature = "fake"))]
            SandboxRecord::Fake(_) => Ok(None),
        }
    }

    fn record(&self) -> SandboxRecord {
        match self {
            Self::Native(sandbox) => SandboxRecord::Host(sandbox.record()),
            Self::Container(container) => SandboxRecord::Container(container.record()),
            Self::Machine(guest) => SandboxRecord::Machine(guest.record.clone()),
        }
    }

    fn id(&self) -> SandboxId {
        running!(self, sandbox => sandbox.id())
    }

    fn pidfd(&self) -> BorrowedFd<'_> {
        running!(self, sandbox => sandbox.pidfd())
    }

    fn door(&self) -> Door {
        match self {
            Self::Native(sandbox) => Door::Socket(sandbox.agent_socket()),
            Self::Container(container) => Door::Socket(container.agent_socket()),
            Self::Machine(guest) => Door::Channel(Channel::new(guest.channel())),
        }
    }

    fn set_limits(&self, limits: &Limits, agent: &Arc<Agent>) -> Result<(), Error> {
        match self {
            Self::Native(sandbox) => sandbox.set_limits(limits).explain(),
            Self::Container(container) => container.set_limits(limits).explain(),
            Self::Machine(guest) => guest.set_limits(limits, agent),
        }
    }

    fn freeze(&self) -> Result<(), Error> {
        match self {
            Self::Native(sandbox) => sandbox.freeze().explain(),
            Self::Container(container) => container.freeze().explain(),
            Self::Machine(guest) => guest.control()?.pause().explain(),
        }
    }

    fn thaw(&self) -> Result<(), Error> {
        match self {
            Self::Native(sandbox) => sandbox.thaw().explain(),
            Self::Container(container) => container.thaw().explain(),
            Self::Machine(guest) => guest.control()?.resume().explain(),
        }
    }

    fn usage(&self) -> Result<garth_runtime::Usage, Error> {
        running!(self, sandbox => sandbox.usage().explain())
    }

    pub(super) fn destroy(self) -> Result<(), Error> {
        match self {
            Self::Native(sandbox) => sandbox.destroy().explain(),
            Self::Container(container) => container.destroy().explain(),
            Self::Machine(guest) => guest.sandbox.destroy().explain(),
        }
    }
}

impl HostSandbox {
    /// Takes over a sandbox that runs; destroys it if that fails.
    pub(super) fn adopt(sandboxes: Arc<Sandboxes>, sandbox: Running) -> Result<Live, Error> {
        let agent = Arc::new(Agent::behind(sandbox.door()));
        Self::adopt_with(sandboxes, sandbox, agent)
    }

    /// The same, with an agent that was talked to already.
    pub(super) fn adopt_with(sandboxes: Arc<Sandboxes>, sandbox: Running, agent: Arc<Agent>) -> Result<Live, Error> {
        let watched = sandbox.pidfd().try_clone_to_owned().and_then(watch);
        let watched = watched.map_err(|error| Error::because(ErrorKind::Start, error).step("watch"));
        let (pidfd, servers) = match watched.and_then(|pidfd| Ok((pidfd, Servers::of(&sandbox)?))) {
            Ok(both) => both,
            Err(error) => {
                sandbox.destroy()?;
                return Err(error);
            }
        };
        let (id, record) = (sandbox.id(), sandbox.record());
        let sandbox = Mutex::new(Some(sandbox));
        let sandbox = Self { id, record, pidfd, servers, sandbox, sandboxes, agent: Arc::clone(&agent) };
        Ok(Live { sandbox: Sandbox::Host(Box::new(sandbox)), agent })
    }

    pub(in crate::local) fn is_machine(&self) -> bool {
        matches!(self.record, SandboxRecord::Machine(_))
    }

    /// Orders for a machine.
    pub(super) fn control(&self) -> Result<Control, Error> {
        match self.lock().as_ref() {
            Some(Running::Machine(guest)) => guest.control(),
            _ => Err(ErrorKind::Sandbox.into()),
        }
    }

    pub(in crate::local) fn record(&self) -> SandboxRecord {
        self.record.clone()
    }

    pub(in crate::local) async fn ended(&self) {
        // An error means that the runtime goes down, and the daemon with it.
        let _ = self.pidfd.readable().await;
    }

    /// Done when a volume of its is served no more, and it goes on without.
    pub(in crate::local) async fn unserved(&self) {
        self.servers.one_ended().await;
        if tokio::time::timeout(TOGETHER, self.ended()).await.is_ok() {
            std::future::pending().await
        }
    }

    pub(in crate::local) fn set_limits(&self, limits: &Limits) -> Result<(), Error> {
        match self.lock().as_ref().ok_or(ErrorKind::Sandbox)?.set_limits(limits, &self.agent) {
            Err(error) if *error.kind() == ErrorKind::InUse => {
                let kind = ErrorKind::LimitRefused { what: "memory", limit: limits.memory.to_string() };
                Err(Error::because(kind, error).hint("end processes in it first, or ask for a larger limit"))
            }
            other => other,
        }
    }

    pub(in crate::local) fn freeze(&self) -> Result<(), Error> {
        self.lock().as_ref().ok_or(ErrorKind::Sandbox)?.freeze()
    }

    pub(in crate::local) fn thaw(&self) -> Result<(), Error> {
        self.lock().as_ref().ok_or(ErrorKind::Sandbox)?.thaw()
    }

    pub(in crate::local) fn usage(&self) -> Result<Usage, Error> {
        let usage = self.lock().as_ref().ok_or(ErrorKind::Sandbox)?.usage()?;
        Ok(Usage { memory: usage.memory, cpu_micros: usage.cpu_micros, pids: usage.pids, oom_kills: usage.oom_kills })
    }

    pub(in crate::local) fn ending(&self) -> Ending {
        match self.lock().as_ref() {
            Some(Running::Native(sandbox)) => sandbox.ending(),
            _ => Ending::Unknown,
        }
    }

    pub(in crate::local) fn destroy(&self) -> Result<(), Error> {
        let Some(sandbox) = self.lock().take() else { return Ok(()) };
        let Err(error) = sandbox.destroy() else { return Ok(()) };
        // What could not be ended is found again, so that another try is a real one.
        if let Ok(found) = Running::recover(&self.sandboxes, self.id, &self.record) {
            *self.lock() = found;
        }
        Err(error)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.sandbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[expect(deprecated, reason = "its successor is unsafe for types that lie about their descriptor; OwnedFd does not")]
pub(super) fn watch(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(fd, Interest::READABLE)
}
