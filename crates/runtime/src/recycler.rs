//! What is slow, off the path of starts and stops: ends of mounts, used slots made ready, idle ones kept or removed.
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::sandboxes::Shared;
use crate::slots::Slot;

/// Work for the recycler thread.
#[derive(Debug)]
pub(crate) enum Job {
    /// A slot was taken: have enough warm ones again.
    Refill,
    /// A sandbox has ended.
    Ended(Ended),
    /// Answer when everything before is done.
    Settle(std::sync::mpsc::SyncSender<()>),
    /// Retire everything and end.
    Quit,
}

/// What is left of a sandbox whose processes are gone.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) slot: Slot,
    /// The last hold on its mounts.
    pub(crate) mounts: Option<OwnedFd>,
    /// The upper layers that those mounts write to.
    pub(crate) uppers: Vec<PathBuf>,
}

/// Idle slots beyond the warm ones are kept for a burst that comes again, and removed after this.
const KEPT: Duration = Duration::from_secs(30);
/// No more idle slots than this, each some 150 KiB.
const MOST_IDLE: usize = 64;

/// Runs until [`Job::Quit`]. Sleeps without a timer when nothing is to be removed later.
pub(crate) fn run(shared: &Arc<Shared>, jobs: &Receiver<Job>) {
    loop {
        let job = match shared.idle() {
            0 => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            _ => jobs.recv_timeout(KEPT),
        };
        match job {
            Ok(Job::Refill) => shared.refill(),
            Ok(Job::Ended(ended)) => recycle(shared, ended),
            Ok(Job::Settle(done)) => drop(done.send(())),
            Err(RecvTimeoutError::Timeout) => shared.take_idle().into_iter().for_each(|slot| shared.retire(slot)),
            Ok(Job::Quit) | Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn recycle(shared: &Shared, ended: Ended) {
    let Ended { mut slot, mounts, uppers } = ended;
    let usable = slot.spawner.is_some() && shared.idle() < MOST_IDLE;
    if usable {
        // First the next sandbox, which someone may be waiting for; then the end of the last one's mounts.
        shared.reset(&mut slot);
        shared.keep(slot);
        shared.refill();
        drop(mounts);
    } else {
        drop(mounts);
        shared.retire(slot);
    }
    shared.uppers.release(&uppers);
}
