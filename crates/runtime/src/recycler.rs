//! What is slow, off the path of starts and stops, in two threads: slots are made ready, kept or removed by the
//! recycler, mounts are ended by the unmounter.
use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::sandboxes::Shared;
use crate::slots::Slot;

/// Work for the recycler.
#[derive(Debug)]
pub(crate) enum Job {
    /// A slot was taken: have enough warm ones again.
    Refill,
    /// A sandbox has started in it.
    Started(Weak<Mutex<Slot>>),
    /// The sandbox in it has ended.
    Used(Slot),
    /// It was taken and not needed.
    Unused(Slot),
    /// Answer when everything before is done.
    Settle(SyncSender<()>),
    /// End.
    Quit,
}

/// Work for the unmounter.
#[derive(Debug)]
pub(crate) enum Unmount {
    /// The last hold on a mount namespace of an ended sandbox, and the upper layers it wrote to.
    Namespace(Option<OwnedFd>, Vec<PathBuf>),
    /// Answer when everything is ended, without waiting for overlays to be wanted again.
    Settle(SyncSender<()>),
    /// End everything, then itself.
    Quit,
}

/// Idle slots beyond the warm ones are kept for a burst that comes again, and removed after this.
const KEPT: Duration = Duration::from_secs(30);
/// No more idle slots than this, each some 150 KiB.
const MOST_IDLE: usize = 64;
/// A sandbox that runs longer than this is no burst: its slot's spawner ends, and the slot with the sandbox.
const SHORT: Duration = Duration::from_secs(2);

/// Runs until [`Job::Quit`]. Sleeps without a timer when there is nothing to do later.
pub(crate) fn recycle(shared: &Shared, jobs: &Receiver<Job>) {
    let mut started: VecDeque<(Instant, Weak<Mutex<Slot>>)> = VecDeque::new();
    let mut idle_until = None;
    loop {
        idle_until = match shared.idle() {
            0 => None,
            _ => idle_until.or_else(|| Some(Instant::now() + KEPT)),
        };
        match next(jobs, started.front().map(|(at, _)| *at).into_iter().chain(idle_until).min()) {
            Ok(Job::Refill) => {
                idle_until = None;
                shared.refill();
            }
            Ok(Job::Started(slot)) => started.push_back((Instant::now() + SHORT, slot)),
            Ok(Job::Used(slot)) => used(shared, slot),
            Ok(Job::Unused(slot)) => shared.retire(slot),
            Ok(Job::Settle(done)) => answer(&done),
            Err(RecvTimeoutError::Timeout) => {
                let now = Instant::now();
                while started.front().is_some_and(|(at, _)| *at <= now) {
                    started.pop_front().iter().for_each(|(_, slot)| release_spawner(shared, slot));
                }
                if idle_until.is_some_and(|at| at <= now) {
                    shared.take_idle().into_iter().for_each(|slot| shared.retire(slot));
                }
            }
            Ok(Job::Quit) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn next<T>(jobs: &Receiver<T>, deadline: Option<Instant>) -> Result<T, RecvTimeoutError> {
    match deadline {
        None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(at) => jobs.recv_timeout(at.saturating_duration_since(Instant::now())),
    }
}

/// 100 KiB less for a sandbox that stays.
fn release_spawner(shared: &Shared, slot: &Weak<Mutex<Slot>>) {
    let Some(slot) = slot.upgrade() else { return };
    let spawner = {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        // The one process that was in the slot without a sandbox.
        slot.base.pids = 0;
        slot.spawner.take()
    };
    if let Some(spawner) = spawner {
        spawner.close();
    }
    // The sandbox was destroyed meanwhile, and left the slot to this, its last holder.
    if let Some(slot) = Arc::into_inner(slot) {
        used(shared, slot.into_inner().unwrap_or_else(PoisonError::into_inner));
    }
}

fn answer(done: &SyncSender<()>) {
    // Who asked may have given up waiting.
    let _ = done.send(());
}

fn used(shared: &Shared, mut slot: Slot) {
    if slot.spawner.is_none() || shared.idle() >= MOST_IDLE {
        return shared.retire(slot);
    }
    shared.reset(&mut slot);
    shared.keep(slot);
    shared.refill();
}

/// Runs until [`Unmount::Quit`].
pub(crate) fn unmount(shared: &Shared, jobs: &Receiver<Unmount>) {
    loop {
        match next(jobs, shared.layers.next_rested()) {
            Ok(Unmount::Namespace(mounts, uppers)) => {
                drop(mounts);
                shared.layers.namespace_ended(&uppers);
            }
            Ok(Unmount::Settle(done)) => {
                shared.layers.end_rested(far());
                answer(&done);
            }
            Err(RecvTimeoutError::Timeout) => shared.layers.end_rested(Instant::now()),
            Ok(Unmount::Quit) | Err(RecvTimeoutError::Disconnected) => return shared.layers.end_rested(far()),
        }
    }
}

/// Later than anything rests.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(3600)
}
