//! How much one sandbox, and all together, may have under way.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Places to be taken by addresses.
#[derive(Debug, Clone)]
pub(crate) struct Limits {
    per_sandbox: usize,
    in_all: usize,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    in_all: usize,
    by_sandbox: HashMap<IpAddr, usize>,
}

impl Limits {
    pub(crate) fn new(per_sandbox: usize, in_all: usize) -> Self {
        Self { per_sandbox, in_all, taken: Arc::default() }
    }

    /// A place, until it is dropped; `None` when the sandbox or all together have theirs taken.
    pub(crate) fn take(&self, sandbox: IpAddr) -> Option<Place> {
        let mut taken = self.lock();
        let has = taken.by_sandbox.get(&sandbox).copied().unwrap_or(0);
        if has >= self.per_sandbox || taken.in_all >= self.in_all {
            return None;
        }
        taken.in_all += 1;
        taken.by_sandbox.insert(sandbox, has + 1);
        drop(taken);
        Some(Place { limits: self.clone(), sandbox })
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Counts are changed in pairs without anything between that could panic.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    limits: Limits,
    sandbox: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.limits.lock();
        taken.in_all -= 1;
        match taken.by_sandbox.get_mut(&self.sandbox) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(taken.by_sandbox.remove(&self.sandbox)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_sandbox_cannot_take_the_places_of_others() {
        let limits = Limits::new(2, 3);
        let [greedy, modest] = ["10.0.0.2", "10.0.0.3"].map(|ip| ip.parse().unwrap());
        let held: Vec<_> = (0..9).filter_map(|_| limits.take(greedy)).collect();
        assert_eq!(held.len(), 2);
        let third = limits.take(modest);
        assert!(third.is_some());
        assert!(limits.take(modest).is_none());
        drop(held);
        assert!(limits.take(modest).is_some());
        drop(third);
        assert!(limits.lock().by_sandbox.is_empty());
        assert_eq!(limits.lock().in_all, 0);
    }
}
