//! What is slow, off the path of starts and stops, in two threads: slots are made ready, kept or removed by the
//! recycler, mounts are ended by the unmounter.
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use crate::sandboxes::Shared;
use crate::slots::Slot;

/// Work for the recycler.
#[derive(Debug)]
pub(crate) enum Job {
    /// A slot was taken: have enough warm ones again.
    Refill,
    /// The sandbox in it has ended.
    Used(Slot),
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

/// Runs until [`Job::Quit`]. Sleeps without a timer when there is nothing to remove later.
pub(crate) fn recycle(shared: &Shared, jobs: &Receiver<Job>) {
    loop {
        let job = match shared.idle() {
            0 => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            _ => jobs.recv_timeout(KEPT),
        };
        match job {
            Ok(Job::Refill) => shared.refill(),
            Ok(Job::Used(slot)) => used(shared, slot),
            Ok(Job::Settle(done)) => answer(&done),
            Err(RecvTimeoutError::Timeout) => shared.take_idle().into_iter().for_each(|slot| shared.retire(slot)),
            Ok(Job::Quit) | Err(RecvTimeoutError::Disconnected) => return,
        }
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
        let job = match shared.layers.next_rested() {
            None => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(at) => jobs.recv_timeout(at.saturating_duration_since(Instant::now())),
        };
        match job {
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
