//! What the API server refuses, and when it is asked again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::Resource;
use kube::runtime::reflector::ObjectRef;

use super::apply::Refused;

/// The first wait after a refusal; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait after a refusal.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// What kind of no it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// The operator's account may not do it.
    Rights,
    Quota,
    /// An admission policy or webhook.
    Policy,
    Conflict,
    Invalid,
    /// What it is about, or its namespace, is not there.
    Missing,
    Overloaded,
    Server,
    /// There was no answer.
    Unreachable,
    /// Something of someone else's has the name.
    Taken,
}

impl Class {
    pub(super) const ALL: [Self; 10] = [
        Self::Rights,
        Self::Quota,
        Self::Policy,
        Self::Conflict,
        Self::Invalid,
        Self::Missing,
        Self::Overloaded,
        Self::Server,
        Self::Unreachable,
        Self::Taken,
    ];

    pub(super) fn of(refused: &Refused) -> Self {
        let status = match refused {
            Refused::Taken { .. } => return Self::Taken,
            Refused::Api { source: kube::Error::Api(status), .. } => status,
            Refused::Api { .. } => return Self::Unreachable,
        };
        match status.code {
            401 => Self::Rights,
            403 if status.message.contains("exceeded quota") => Self::Quota,
            // RBAC: `pods is forbidden: User "…" cannot create resource "pods" …`.
            403 if status.message.contains("is forbidden: User ") => Self::Rights,
            403 => Self::Policy,
            404 | 410 => Self::Missing,
            409 => Self::Conflict,
            429 => Self::Overloaded,
            400..500 => Self::Invalid,
            _ => Self::Server,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Rights => "rights",
            Self::Quota => "quota",
            Self::Policy => "policy",
            Self::Conflict => "conflict",
            Self::Invalid => "invalid",
            Self::Missing => "missing",
            Self::Overloaded => "overloaded",
            Self::Server => "server",
            Self::Unreachable => "unreachable",
            Self::Taken => "taken",
        }
    }
}

/// What was last refused of each object, and how often in a row.
pub(super) struct Refusals<K: Resource<DynamicType = ()>>(Mutex<HashMap<ObjectRef<K>, (u32, String)>>);

impl<K: Resource<DynamicType = ()>> fmt::Debug for Refusals<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.lock().iter().map(|(key, said)| (key.to_string(), said))).finish()
    }
}

impl<K: Resource<DynamicType = ()>> Default for Refusals<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Resource<DynamicType = ()>> Refusals<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef<K>, (u32, String)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was said last.
    pub(super) fn last(&self, key: &ObjectRef<K>) -> Option<String> {
        self.lock().get(key).map(|(_, said)| said.clone())
    }

    /// Notes that nothing is refused any more; whether something was.
    pub(super) fn over(&self, key: &ObjectRef<K>) -> bool {
        self.lock().remove(key).is_some()
    }

    /// Notes a refusal; how long to wait before it is tried again.
    pub(super) fn again(&self, key: ObjectRef<K>, said: &str) -> Duration {
        let mut refused = self.lock();
        let entry = refused.entry(key).or_default();
        *entry = (entry.0.saturating_add(1), said.to_owned());
        FIRST_WAIT.saturating_mul(1 << entry.0.min(8)).min(LONGEST_WAIT)
    }
}

#[cfg(test)]
mod tests;
