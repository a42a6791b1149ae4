//! The one thread that changes the kernel's network state, and the queue by which others ask it.
//!
//! A thread of its own because making a namespace means entering it, because `/proc/sys/net`, child
//! processes and new sockets follow the thread's namespace, and so that a lease can be taken from
//! what it has ready without waiting for the kernel.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use garth_kernel::netns;
use garth_spec::SandboxId;

use crate::config::Names;
use crate::host::{self, Host};
use crate::slot::{Ready, Slots};
use crate::{Error, ErrorKind, LeaseRecord, NetworkConfig};

pub(crate) type Reply<T> = SyncSender<Result<T, Error>>;

/// What the thread can be asked; each answer is sent once it is done.
#[derive(Debug)]
pub(crate) enum Request {
    /// A new wire, leased to this sandbox.
    Make(SandboxId, Reply<Ready>),
    /// Whether the wire of an earlier daemon's lease is there; it is kept then.
    Adopt(LeaseRecord, Reply<Found>),
    /// Remove every wire but those of these slots; and everything, when there are none.
    Sweep(Vec<u16>, Reply<()>),
    /// As `Sweep` of nothing, if no lease is left; then end.
    Close(Reply<()>),
    /// Put right what may have changed on the host.
    Look(Check),
}

/// What may have been changed from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Check {
    /// The ruleset.
    Rules,
    /// The host's default routes, or its forwarding.
    Uplinks,
}

/// Whether a recovered lease is still good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    Alive,
    Gone,
}

/// What the thread and its clients share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: NetworkConfig,
    pub(crate) names: Names,
    /// The host's network namespace: that of the thread which opened the network.
    pub(crate) home: OwnedFd,
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    requests: VecDeque<Request>,
    /// Slots whose lease has ended.
    pub(crate) released: Vec<u16>,
    pub(crate) warm: VecDeque<Ready>,
    pub(crate) leases: BTreeMap<SandboxId, LeaseRecord>,
    last_lease: Option<Instant>,
    /// Ready wires are kept: from the first lease on, and not after one could not be made.
    warming: bool,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Thread {
    #[default]
    NotStarted,
    Running,
    Ended,
}

/// New wires wait this long after a lease, so that making them does not compete with the start of
/// the sandbox that took it.
const QUIET: Duration = Duration::from_millis(4);

impl Shared {
    pub(crate) fn new(config: NetworkConfig, names: Names, home: OwnedFd) -> Self {
        Self { config, names, home, queue: Mutex::default(), changed: Condvar::new() }
    }

    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        // Every change of the queue is one assignment, so a panic elsewhere leaves it whole.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a ready wire for this sandbox, if there is one.
    pub(crate) fn take_warm(&self, id: SandboxId) -> Option<Ready> {
        let mut queue = self.queue();
        queue.last_lease = Some(Instant::now());
        let ready = queue.warm.pop_front()?;
        queue.leases.insert(id, ready.record.clone());
        drop(queue);
        self.changed.notify_one();
        Some(ready)
    }

    /// Asks the thread, which is started by the first request, and waits for the answer.
    pub(crate) fn ask<T>(self: &Arc<Self>, request: impl FnOnce(Reply<T>) -> Request) -> Result<T, Error> {
        let (reply, answer) = std::sync::mpsc::sync_channel(1);
        self.start_thread()?;
        self.tell(request(reply));
        answer.recv().map_err(|_| closed())?
    }

    fn tell(&self, request: Request) {
        let mut queue = self.queue();
        if queue.thread == Thread::Running {
            queue.requests.push_back(request);
            drop(queue);
            self.changed.notify_one();
        }
    }

    /// Asks for a check without waiting for it. Any number of reasons that come together make one.
    pub(crate) fn check(&self, check: Check) {
        let asked = |request: &Request| matches!(request, Request::Look(already) if *already == check);
        if !self.queue().requests.iter().any(asked) {
            self.tell(Request::Look(check));
        }
    }

    /// Hands the slot of an ended lease to the thread.
    pub(crate) fn release(&self, slot: u16) {
        self.queue().released.push(slot);
        self.changed.notify_one();
    }

    /// Lets the thread end after what it is doing, and waits for it.
    pub(crate) fn join(&self) {
        self.stop();
        let handle = self.queue().handle.take();
        if let Some(handle) = handle {
            // A panic there was printed when it happened.
            drop(handle.join());
        }
    }

    fn stop(&self) {
        self.queue().thread = Thread::Ended;
        self.changed.notify_one();
    }

    fn start_thread(self: &Arc<Self>) -> Result<(), Error> {
        let mut queue = self.queue();
        match queue.thread {
            Thread::Running => return Ok(()),
            Thread::Ended => return Err(closed()),
            Thread::NotStarted => {}
        }
        let shared = Arc::clone(self);
        let handle = std::thread::Builder::new()
            .name("garth-network".to_owned())
            .spawn(move || Builder::run(&shared))
            .map_err(|error| Error::kernel("cannot start the network thread", error))?;
        queue.handle = Some(handle);
        queue.thread = Thread::Running;
        Ok(())
    }

    /// What to do next, most urgent first; waits for something to do.
    fn next(&self) -> Work {
        let mut queue = self.queue();
        loop {
            if let Some(request) = queue.requests.pop_front() {
                return Work::Answer(request);
            }
            if queue.thread == Thread::Ended {
                return Work::End;
            }
            if !queue.released.is_empty() {
                return Work::Remove(std::mem::take(&mut queue.released));
            }
            let quiet_for = queue.last_lease.map_or(QUIET, |last| last.elapsed());
            let lacking = queue.warming && queue.warm.len() < self.config.warm;
            queue = match lacking {
                true if queue.warm.is_empty() || quiet_for >= QUIET => return Work::Warm,
                true => {
                    let waited = self.changed.wait_timeout(queue, QUIET - quiet_for);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                false => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the network is closed")
}

enum Work {
    Answer(Request),
    Remove(Vec<u16>),
    Warm,
    End,
}

struct Builder<'a> {
    shared: &'a Arc<Shared>,
    /// Set up by the first lease.
    host: Option<Host>,
    slots: Slots,
}

impl<'a> Builder<'a> {
    fn run(shared: &'a Arc<Shared>) {
        let mut builder = Self { shared, host: None, slots: Slots::new() };
        if let Err(error) = netns::enter(shared.home.as_fd()) {
            tracing::error!(%error, "the network thread cannot enter the host's network namespace");
            shared.stop();
        }
        loop {
            match shared.next() {
                Work::Answer(request) => builder.answer(request),
                Work::Remove(slots) => slots.into_iter().for_each(|slot| builder.remove(slot)),
                Work::Warm => builder.warm(),
                Work::End => break,
            }
        }
        // Whoever still waits is told: their replies are dropped.
        shared.queue().requests.clear();
        shared.queue().warm.clear();
    }

    fn answer(&mut self, request: Request) {
        // An asker that no longer waits for the answer has ended; there is nobody to tell.
        match request {
            Request::Make(id, reply) => {
                let made = self.make();
                let mut queue = self.shared.queue();
                queue.warming = made.is_ok();
                if let Ok(ready) = &made {
                    queue.leases.insert(id, ready.record.clone());
                }
                drop(queue);
                drop(reply.send(made));
            }
            Request::Adopt(record, reply) => drop(reply.send(self.adopt(&record))),
            Request::Sweep(keep, reply) => drop(reply.send(self.sweep(&keep))),
            Request::Close(reply) => {
                let outcome = if self.shared.queue().leases.is_empty() { self.sweep(&[]) } else { Ok(()) };
                self.shared.stop();
                drop(reply.send(outcome));
            }
            Request::Look(Check::Rules) => self.look("the sandboxes' ruleset", Host::check_rules),
            Request::Look(Check::Uplinks) => self.look("the forwarding of the uplinks", Host::follow_uplinks),
        }
    }

    fn host(&mut self) -> Result<&mut Host, Error> {
        if self.host.is_none() {
            let mut host = Host::set_up(self.shared)?;
            // Wires of an earlier daemon keep their slots until a sweep, whoever owns them.
            host.wires()?.into_iter().for_each(|slot| self.slots.claim(slot));
            self.host = Some(host);
        }
        self.host.as_mut().ok_or_else(closed)
    }

    fn make(&mut self) -> Result<Ready, Error> {
        self.host()?;
        let slot = self.slots.take()?;
        let home = &self.shared.home;
        let made = self.host.as_mut().ok_or_else(closed).and_then(|host| host.make(slot, home));
        if let Err(error) = &made {
            if error.kind() == ErrorKind::Closed {
                self.shared.stop();
            }
            self.remove(slot);
        }
        made
    }

    fn warm(&mut self) {
        match self.make() {
            Ok(ready) => self.shared.queue().warm.push_back(ready),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "no network is kept ready");
                self.shared.queue().warming = false;
            }
        }
    }

    fn adopt(&mut self, record: &LeaseRecord) -> Result<Found, Error> {
        if !self.host()?.holds(record) {
            return Ok(Found::Gone);
        }
        self.slots.claim(record.slot);
        Ok(Found::Alive)
    }

    fn remove(&mut self, slot: u16) {
        let Some(host) = &mut self.host else { return };
        match host.remove(slot) {
            Ok(()) => self.slots.give_back(slot),
            // The slot stays taken: its address must not be given to another sandbox.
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, slot, "a wire stays behind"),
        }
    }

    fn sweep(&mut self, keep: &[u16]) -> Result<(), Error> {
        if keep.is_empty() {
            return self.clear();
        }
        let warm: Vec<u16> = self.shared.queue().warm.iter().map(|ready| ready.record.slot).collect();
        for slot in self.host()?.wires()? {
            if !keep.contains(&slot) && !warm.contains(&slot) {
                self.remove(slot);
            }
        }
        Ok(())
    }

    fn clear(&mut self) -> Result<(), Error> {
        let mut queue = self.shared.queue();
        queue.warming = false;
        queue.released.clear();
        let warm = std::mem::take(&mut queue.warm);
        drop(queue);
        self.host = None;
        self.slots = Slots::new();
        let cleared = host::clear(&self.shared.names);
        // After their wires: a namespace that goes takes its wire with it, but not at once.
        drop(warm);
        cleared
    }

    fn look(&mut self, what: &str, act: impl FnOnce(&mut Host) -> Result<(), Error>) {
        let Some(host) = &mut self.host else { return };
        if let Err(error) = act(host) {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot restore {what}");
        }
    }
}
