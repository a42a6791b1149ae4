//! Whether the operator goes on.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The lease is looked at every 2 s, and an API server that does not answer is given up after 30 s.
const STALLED: Duration = Duration::from_secs(90);

/// When the operator last looked at its lease. Watches that end end the operator; a request that is never answered does not.
#[derive(Debug, Clone)]
pub(in crate::operator) struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    pub(in crate::operator) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    pub(in crate::operator) fn beat(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    pub(super) fn is_there(&self, now: Instant) -> bool {
        now.saturating_duration_since(*self.0.lock().unwrap_or_else(PoisonError::into_inner)) < STALLED
    }
}
