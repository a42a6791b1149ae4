//! Snapshots made ahead: a snapshot waits for a commit of the whole filesystem, which takes 1.3 ms on an
//! idle machine and ten times that on a busy one; a rename of one that is there takes 0.03 ms.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use garth_spec::ImageId;

/// Spares kept of the image that was used last, and the number below which they are refilled.
const FULL: usize = 8;
const LOW: usize = 4;

/// The spares of one pool. Clones are the same.
#[derive(Debug, Default, Clone)]
pub(super) struct Spares {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    idle: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Those ready, of one image.
    of: Option<ImageId>,
    ready: Vec<PathBuf>,
    filling: bool,
    stopped: bool,
    /// Numbers in names; never the same twice.
    made: u64,
}

impl Spares {
    /// One of this image, if there is one.
    pub(super) fn take(&self, image: ImageId) -> Option<PathBuf> {
        let mut state = self.state();
        if state.of == Some(image) { state.ready.pop() } else { None }
    }

    /// Makes spares of this image in the background, if few are left, and gives those of another to `remove`.
    pub(super) fn refill(
        &self,
        image: ImageId,
        make: impl Fn(u64) -> std::io::Result<PathBuf> + Send + 'static,
        remove: impl Fn(&PathBuf) + Send + 'static,
    ) {
        let mut state = self.state();
        let enough = state.of == Some(image) && state.ready.len() >= LOW;
        if state.filling || state.stopped || enough {
            return;
        }
        let others = if state.of == Some(image) { Vec::new() } else { std::mem::take(&mut state.ready) };
        state.of = Some(image);
        state.filling = true;
        drop(state);
        let spares = self.clone();
        let fill = move || {
            others.iter().for_each(remove);
            // On an error there are none: disks are then made without.
            while let Some(number) = spares.next() {
                let Ok(path) = make(number) else { break };
                spares.state().ready.push(path);
            }
            spares.state().filling = false;
            spares.shared.idle.notify_all();
        };
        if std::thread::Builder::new().name("garth-spares".to_owned()).spawn(fill).is_err() {
            self.state().filling = false;
        }
    }

    /// Gives all away, and makes no more until [`resume`](Self::resume).
    pub(super) fn stop(&self) -> Vec<PathBuf> {
        let mut state = self.state();
        state.stopped = true;
        while state.filling {
            state = self.shared.idle.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.of = None;
        std::mem::take(&mut state.ready)
    }

    pub(super) fn resume(&self) {
        self.state().stopped = false;
    }

    /// The number of the next to make; `None` when there are enough.
    fn next(&self) -> Option<u64> {
        let mut state = self.state();
        if state.stopped || state.ready.len() >= FULL {
            return None;
        }
        state.made += 1;
        Some(state.made)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
