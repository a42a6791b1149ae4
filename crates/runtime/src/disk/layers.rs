use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Owners;
use crate::error::{Error, ErrorKind, Result};
use crate::ids::FirstId;
use crate::{Durability, Overlay};

/// Which overlays are mounted.
///
/// An overlay writes the whole file system of its upper layer out when it ends (`ovl_sync_fs`): 2 ms when there is
/// nothing to write, and no other mount may use the layer until then. So an overlay is held here for a moment after its
/// sandbox: a start on the same disk takes it again, and otherwise it ends off everyone's path.
///
/// ```text
///  (nothing) --mount--> used --end--> resting --take_rested--> ending --ended--> (nothing)
///                        ^------mount----+
/// ```
#[derive(Debug, Default)]
pub(crate) struct Layers {
    /// By upper layer.
    overlays: Mutex<HashMap<PathBuf, State>>,
    changed: Condvar,
}

#[derive(Debug)]
enum State {
    /// Held by a sandbox. Without a mount when an earlier daemon started it, or the kernel cannot copy one.
    Used(Option<Held>),
    Resting(Held, Instant),
    Ending,
}

#[derive(Debug)]
struct Held {
    overlay: Overlay,
    durability: Durability,
    /// Whose files those of root seem to be; root's where absent.
    first: Option<FirstId>,
    mount: OwnedFd,
}

/// How long a start waits for the end of the last mount of its disk.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an overlay rests.
const REST: Duration = Duration::from_secs(1);

impl Layers {
    fn overlays(&self) -> MutexGuard<'_, HashMap<PathBuf, State>> {
        self.overlays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Mounts an overlay, or takes one that rests.
    pub(crate) fn mount(&self, overlay: &Overlay, durability: Durability, owners: Owners<'_>) -> Result<OwnedFd> {
        let first = match owners {
            Owners::AsStored => None,
            Owners::Mapped { first, .. } => Some(first),
        };
        let held = match self.claim(overlay, durability, first)? {
            Some(held) => held,
            None => {
                let mount = super::mount_overlay(overlay, durability, owners);
                let mount = mount.inspect_err(|_| self.ended(&overlay.upper))?;
                Held { overlay: overlay.clone(), durability, first, mount }
            }
        };
        let copy = super::copy(&held.mount).inspect_err(|_| self.ended(&overlay.upper))?;
        let (held, mount) = match copy {
            Some(copy) => (Some(held), copy),
            None => (None, held.mount),
        };
        self.overlays().insert(overlay.upper.clone(), State::Used(held));
        Ok(mount)
    }

    /// Makes the caller the only user of a layer, waiting for the end of its last mount.
    fn claim(&self, overlay: &Overlay, durability: Durability, first: Option<FirstId>) -> Result<Option<Held>> {
        let fits = |held: &Held| held.overlay == *overlay && held.durability == durability && held.first == first;
        let mut overlays = self.overlays();
        loop {
            match overlays.remove(&overlay.upper) {
                None => {
                    overlays.insert(overlay.upper.clone(), State::Used(None));
                    return Ok(None);
                }
                Some(State::Resting(held, _)) if fits(&held) => {
                    overlays.insert(overlay.upper.clone(), State::Used(None));
                    return Ok(Some(held));
                }
                Some(State::Resting(held, _)) => drop(held),
                Some(used @ State::Used(_)) => {
                    overlays.insert(overlay.upper.clone(), used);
                    return Err(error(ErrorKind::Exists));
                }
                Some(State::Ending) => {
                    overlays.insert(overlay.upper.clone(), State::Ending);
                    overlays = self.wait(overlays)?;
                }
            }
        }
    }

    fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> Result<MutexGuard<'a, T>> {
        let (guard, timeout) = self.changed.wait_timeout(guard, PATIENCE).unwrap_or_else(PoisonError::into_inner);
        match timeout.timed_out() {
            false => Ok(guard),
            true => Err(error(ErrorKind::Stuck { seconds: PATIENCE.as_secs() })),
        }
    }

    /// Marks the layers of a sandbox that an earlier daemon started as used.
    pub(crate) fn adopt(&self, uppers: &[PathBuf]) {
        self.overlays().extend(uppers.iter().map(|upper| (upper.clone(), State::Used(None))));
    }

    /// Their sandbox has ended: those held here rest, the others end with its mount namespace.
    pub(crate) fn end(&self, uppers: &[PathBuf]) {
        let mut overlays = self.overlays();
        for upper in uppers {
            let state = match overlays.remove(upper) {
                Some(State::Used(Some(held))) if held.durability == Durability::Kept => {
                    State::Resting(held, Instant::now() + REST)
                }
                // With what is discarded there is nothing to write out, and nobody comes back for it.
                Some(State::Used(_)) => State::Ending,
                Some(state) => state,
                None => continue,
            };
            overlays.insert(upper.clone(), state);
        }
    }

    /// The mount namespace of their sandbox is gone.
    pub(crate) fn namespace_ended(&self, uppers: &[PathBuf]) {
        let mut overlays = self.overlays();
        overlays.retain(|upper, state| !(matches!(state, State::Ending) && uppers.contains(upper)));
        self.changed.notify_all();
    }

    fn ended(&self, upper: &PathBuf) {
        self.overlays().remove(upper);
        self.changed.notify_all();
    }

    /// When the next overlay has rested.
    pub(crate) fn next_rested(&self) -> Option<Instant> {
        let rested = |state: &State| match state {
            State::Resting(_, until) => Some(*until),
            _ => None,
        };
        self.overlays().values().filter_map(rested).min()
    }

    /// Ends the overlays that have rested by then, which may take long.
    pub(crate) fn end_rested(&self, by: Instant) {
        loop {
            let Some((upper, held)) = self.take_rested(by) else { return };
            drop(held);
            self.ended(&upper);
        }
    }

    fn take_rested(&self, by: Instant) -> Option<(PathBuf, Held)> {
        let mut overlays = self.overlays();
        let rested = |state: &State| matches!(state, State::Resting(_, until) if *until <= by);
        let upper = overlays.iter().find(|(_, state)| rested(state)).map(|(upper, _)| upper.clone())?;
        match overlays.insert(upper.clone(), State::Ending) {
            Some(State::Resting(held, _)) => Some((upper, held)),
            _ => None,
        }
    }
}

fn error(kind: ErrorKind) -> Error {
    Error { doing: "use the disk".to_owned(), kind }
}
