//! Keepers that end before their sandbox are replaced, by a thread that sleeps until one does.
use std::collections::HashMap;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

use crate::error::ErrorKind;
use crate::recycler::Job;
use crate::sandbox::MappedRecord;
use crate::sandboxes::Shared;
use crate::slots::mapped::Succession;
use crate::slots::{Keeper, Process, Slot};

/// A sandbox whose keeper ends more often than this has something that ends it on purpose, and is left without.
const MOST_SUCCESSIONS: u32 = 64;

/// In a sandbox's directory: the keeper that took the place of the one in its record.
const SUCCESSOR: &str = "keeper.json";

/// Who watches over which keeper.
#[derive(Debug)]
pub(crate) struct Keepers {
    poll: OwnedFd,
    /// Readable once the thread is to end.
    quit: OwnedFd,
    watched: Mutex<Watched>,
}

#[derive(Debug, Default)]
struct Watched {
    next: u64,
    by_key: HashMap<u64, Charge>,
}

/// One sandbox.
#[derive(Debug)]
struct Charge {
    /// Held until its event was seen: `epoll` forgets a descriptor, and what it has to say, with its last copy.
    keeper: OwnedFd,
    slot: Weak<Mutex<Slot>>,
    init: OwnedFd,
    succession: Succession,
    record: MappedRecord,
    directory: PathBuf,
    successions: u32,
}

impl Keepers {
    pub(crate) fn new() -> io::Result<Self> {
        let poll = epoll::create(CreateFlags::CLOEXEC)?;
        let quit = eventfd(0, EventfdFlags::CLOEXEC)?;
        epoll::add(&poll, &quit, EventData::new_u64(QUIT), EventFlags::IN)?;
        Ok(Self { poll, quit, watched: Mutex::default() })
    }

    fn watched(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Watches over a sandbox's keeper from now on.
    pub(crate) fn watch(
        &self,
        slot: &Arc<Mutex<Slot>>,
        init: &Process,
        record: MappedRecord,
        directory: PathBuf,
    ) -> Result<(), ErrorKind> {
        let (keeper, succession) = {
            let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
            let keeper = slot.keeper.as_ref().ok_or(ErrorKind::Spawner)?;
            (keeper.process.pidfd.try_clone()?, Succession::of(keeper)?)
        };
        let (slot, init) = (Arc::downgrade(slot), init.pidfd.try_clone()?);
        self.add(Charge { keeper, slot, init, succession, record, directory, successions: 0 })?;
        Ok(())
    }

    fn add(&self, charge: Charge) -> io::Result<()> {
        let mut watched = self.watched();
        let key = watched.next;
        watched.next += 1;
        epoll::add(&self.poll, &charge.keeper, EventData::new_u64(key), EventFlags::IN | EventFlags::ONESHOT)?;
        watched.by_key.insert(key, charge);
        Ok(())
    }

    /// Waits for a keeper's end; `None` when the thread is to end.
    fn next(&self) -> Option<Charge> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(QUIT) }];
        loop {
            match epoll::wait(&self.poll, &mut events[..], None) {
                Err(Errno::INTR) => continue,
                Err(_) => return None,
                Ok(_) => {}
            }
            let key = events[0].data.u64();
            if key == QUIT {
                return None;
            }
            if let Some(charge) = self.watched().by_key.remove(&key) {
                return Some(charge);
            }
        }
    }

    /// Ends the thread.
    pub(crate) fn quit(&self) -> io::Result<()> {
        Ok(rustix::io::write(&self.quit, &1u64.to_ne_bytes()).map(drop)?)
    }
}

/// The key of no keeper.
const QUIT: u64 = u64::MAX;

/// Runs until [`Keepers::quit`].
pub(crate) fn run(shared: &Shared) {
    while let Some(charge) = shared.keepers.next() {
        succeed(shared, charge);
    }
}

fn succeed(shared: &Shared, charge: Charge) {
    let Some(slot) = charge.slot.upgrade() else { return };
    replace_keeper(shared, charge, &slot);
    // The sandbox was destroyed meanwhile, and left the slot to this, its last holder.
    if let Some(slot) = Arc::into_inner(slot) {
        shared.send(Job::Used(slot.into_inner().unwrap_or_else(PoisonError::into_inner)));
    }
}

fn replace_keeper(shared: &Shared, mut charge: Charge, slot: &Mutex<Slot>) {
    let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
    let over = rustix::event::poll(
        &mut [rustix::event::PollFd::new(&charge.init, rustix::event::PollFlags::IN)],
        Some(&rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 }),
    );
    if over != Ok(0) || charge.successions >= MOST_SUCCESSIONS {
        return;
    }
    charge.successions += 1;
    // One that cannot be had leaves the sandbox without virtual files, and without anything of the host's instead.
    let Ok(keeper) = shared.succeed(&charge.succession, &slot) else { return };
    charge.record = MappedRecord::of(&keeper, charge.record.held_by_init);
    let _ = note(&charge.directory, &charge.record);
    let (pidfd, succession) = (keeper.process.pidfd.try_clone(), Succession::of(&keeper));
    slot.keeper = Some(keeper);
    drop(slot);
    if let (Ok(pidfd), Ok(succession)) = (pidfd, succession) {
        (charge.keeper, charge.succession) = (pidfd, succession);
        let _ = shared.keepers.add(charge);
    }
}

fn note(directory: &Path, record: &MappedRecord) -> io::Result<()> {
    let draft = directory.join("keeper.new");
    std::fs::write(&draft, serde_json::to_vec(record)?)?;
    std::fs::rename(draft, directory.join(SUCCESSOR))
}

/// The record, as the last succession left it.
pub(crate) fn newest(directory: &Path, record: MappedRecord) -> MappedRecord {
    let noted = std::fs::read(directory.join(SUCCESSOR)).ok();
    noted.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(record)
}

/// The keeper of a sandbox that an earlier daemon started: the one it had, or another in its place.
pub(crate) fn recover(
    shared: &Shared,
    slot: &str,
    init: &Process,
    record: &MappedRecord,
    lock: BorrowedFd<'_>,
) -> Option<Keeper> {
    if let Ok(Some(keeper)) = Keeper::find(record, init) {
        return Some(keeper);
    }
    let succession = Succession::from_init(init, record).ok()?;
    shared.succeed_with(&succession, slot, lock).ok()
}
