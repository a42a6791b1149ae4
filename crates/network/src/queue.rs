//! What is asked of the network's threads, what they have ready, and who holds what.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use garth_spec::SandboxId;

use crate::config::Names;
use crate::slot::{Place, Ready, Slots};
use crate::{Error, ErrorKind, LeaseRecord, NetworkConfig, builder};

pub(crate) type Reply<T> = SyncSender<Result<T, Error>>;

/// What the thread can be asked; each answer is sent once it is done.
#[derive(Debug)]
pub(crate) enum Request {
    /// A new wire, leased to this sandbox.
    Make(SandboxId, Place, Reply<Ready>),
    /// Whether the wire of an earlier daemon's lease is there; it is kept then.
    Adopt(LeaseRecord, Reply<Found>),
    /// Hold a wire to so many bytes a second, or to none.
    Limit(u32, Option<u64>, Reply<()>),
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
    /// Something for the builder.
    changed: Condvar,
    /// Something for the remover.
    released: Condvar,
}

#[derive(Debug, Default)]
pub(crate) struct Queue {
    requests: VecDeque<Request>,
    /// Slots whose lease has ended.
    released: Vec<LeaseRecord>,
    /// Those that the remover is busy with.
    removing: Vec<LeaseRecord>,
    pub(crate) slots: Slots,
    pub(crate) warm: VecDeque<Ready>,
    pub(crate) leases: BTreeMap<SandboxId, LeaseRecord>,
    /// Leases that have a rate.
    pub(crate) limited: BTreeSet<SandboxId>,
    last_lease: Option<Instant>,
    /// Ready wires are kept: from the first lease on, and not after one could not be made.
    pub(crate) warming: bool,
    thread: Thread,
    handle: Option<JoinHandle<()>>,
}

impl Queue {
    /// Slots that no sandbox has but that are in use: ready ones, and those given back whose wire
    /// the remover takes care of.
    pub(crate) fn busy(&self) -> Vec<u16> {
        let ready = self.warm.iter().map(|ready| &ready.record);
        ready.chain(&self.released).chain(&self.removing).map(|record| record.slot).collect()
    }
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
        Self { config, names, home, queue: Mutex::default(), changed: Condvar::new(), released: Condvar::new() }
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

    /// Forgets the rate of a wire that goes, without waiting for it.
    pub(crate) fn forget_rate(&self, wire: u32) {
        let (reply, _) = std::sync::mpsc::sync_channel(1);
        self.tell(Request::Limit(wire, None, reply));
    }

    /// Hands an ended lease to the remover.
    pub(crate) fn release(&self, record: LeaseRecord) {
        self.queue().released.push(record);
        self.released.notify_one();
    }

    /// The ended leases, once there are some; `None` when the network ends.
    pub(crate) fn next_released(&self) -> Option<Vec<LeaseRecord>> {
        let mut queue = self.queue();
        while queue.released.is_empty() && queue.thread != Thread::Ended {
            queue = self.released.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        if queue.thread == Thread::Ended {
            return None;
        }
        queue.removing = std::mem::take(&mut queue.released);
        Some(queue.removing.clone())
    }

    /// The wires of these are gone, or not; what is not stays taken: its address must not be given
    /// to another sandbox.
    pub(crate) fn removed(&self, gone: &[LeaseRecord]) {
        let mut queue = self.queue();
        queue.removing.clear();
        gone.iter().for_each(|record| queue.slots.give_back(record.slot));
    }

    /// Stops keeping wires ready and returns those that were; forgets every slot but those that the
    /// remover is busy with, which are its to give back.
    pub(crate) fn forget_wires(&self) -> VecDeque<Ready> {
        let mut queue = self.queue();
        queue.warming = false;
        queue.released.clear();
        queue.slots = Slots::default();
        let removing: Vec<u16> = queue.removing.iter().map(|record| record.slot).collect();
        removing.into_iter().for_each(|slot| queue.slots.claim(slot));
        std::mem::take(&mut queue.warm)
    }

    /// Nobody will do what is still asked.
    pub(crate) fn abandon(&self) {
        let mut queue = self.queue();
        let left = (std::mem::take(&mut queue.requests), std::mem::take(&mut queue.warm));
        drop(queue);
        drop(left);
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

    pub(crate) fn stop(&self) {
        self.queue().thread = Thread::Ended;
        self.changed.notify_one();
        self.released.notify_one();
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
            .spawn(move || builder::run(&shared))
            .map_err(|error| Error::kernel("cannot start the network thread", error))?;
        queue.handle = Some(handle);
        queue.thread = Thread::Running;
        Ok(())
    }

    /// What to do next, most urgent first; waits for something to do.
    pub(crate) fn next(&self) -> Work {
        let mut queue = self.queue();
        loop {
            if let Some(request) = queue.requests.pop_front() {
                return Work::Answer(request);
            }
            if queue.thread == Thread::Ended {
                return Work::End;
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

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the network is closed")
}

/// What the builder does next.
pub(crate) enum Work {
    Answer(Request),
    Warm,
    End,
}
