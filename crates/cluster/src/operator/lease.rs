//! Which of several operators leads: a `coordination.k8s.io/v1` Lease, as client-go's leader election keeps it.
//!
//! Whoever wants it watches whether it changes, by its own clock alone: clocks of different machines are never compared.
//! Whoever has it and cannot renew it stops before another may take it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as Record, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;

use super::metrics::Pulse;

/// The lease's name.
pub const NAME: &str = "garth-operator";
/// Unchanged for so long, it is anyone's.
const DURATION: Duration = Duration::from_secs(15);
/// Not renewed for so long, its holder stops.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// How often it is looked at, or renewed.
const EVERY: Duration = Duration::from_secs(2);

/// Refused for so long, it is not to be had. An API server that has just started refuses everybody, until it has read who may
/// do what.
const REFUSED_WITHIN: Duration = Duration::from_secs(60);

/// Why a lease was not got, or not kept.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Another has it.
    #[error("another operator, {0}, has taken the lease")]
    Taken(String),
    /// The API server was out of reach for too long.
    #[error("the lease could not be renewed in time")]
    NotRenewed(#[source] kube::Error),
    /// The API server refused.
    #[error("the lease {NAME} cannot be had")]
    Refused(#[source] kube::Error),
}

/// A wish to lead.
pub(super) struct Lease {
    api: Api<Record>,
    identity: String,
    pulse: Pulse,
}

/// The right to lead.
pub(super) struct Held {
    lease: Lease,
    record: Record,
    renewed: Instant,
}

impl Lease {
    pub(super) fn new(client: Client, namespace: &str, identity: &str, pulse: Pulse) -> Self {
        Self { api: Api::namespaced(client, namespace), identity: identity.to_owned(), pulse }
    }

    /// Waits until it is free, and takes it.
    pub(super) async fn acquire(self) -> Result<Held, LeaseError> {
        let mut seen: Option<(Option<String>, Instant)> = None;
        let mut allowed = Instant::now();
        loop {
            self.pulse.beat();
            match self.look(&mut seen).await {
                Ok(Some(record)) => return Ok(Held { lease: self, record, renewed: Instant::now() }),
                Ok(None) => allowed = Instant::now(),
                // No right to it: waiting does not help.
                Err(error) if is_refusal(&error) && allowed.elapsed() >= REFUSED_WITHIN => {
                    return Err(LeaseError::Refused(error));
                }
                Err(error) => tracing::warn!(%error, "the lease cannot be looked at"),
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    /// Takes it if it is there for the taking; `seen` is its version and since when it is the same.
    async fn look(&self, seen: &mut Option<(Option<String>, Instant)>) -> Result<Option<Record>, kube::Error> {
        let started = Instant::now();
        let Some(there) = self.api.get_opt(NAME).await? else {
            let metadata = ObjectMeta { name: Some(NAME.to_owned()), ..ObjectMeta::default() };
            let record = Record { metadata, spec: Some(self.spec(None, Taking::New)) };
            return won(self.api.create(&PostParams::default(), &record).await);
        };
        let version = there.metadata.resource_version.clone();
        let since = match seen {
            Some((was, since)) if *was == version => *since,
            _ => {
                *seen = Some((version, started));
                started
            }
        };
        let holder = there.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        if holder.is_empty() || holder == self.identity || since.elapsed() >= DURATION {
            let spec = Some(self.spec(there.spec.as_ref(), Taking::New));
            return won(self.api.replace(NAME, &PostParams::default(), &Record { spec, ..there }).await);
        }
        Ok(None)
    }

    fn spec(&self, before: Option<&LeaseSpec>, taking: Taking) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: match taking {
                Taking::New => Some(now.clone()),
                Taking::Again => before.and_then(|spec| spec.acquire_time.clone()),
            },
            renew_time: Some(now),
            lease_transitions: Some(transitions + i32::from(taking == Taking::New && before.is_some())),
            ..LeaseSpec::default()
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Taking {
    New,
    Again,
}

impl Held {
    /// Renews it for as long as that works; returns why it no longer does.
    pub(super) async fn keep(mut self) -> LeaseError {
        loop {
            self.lease.pulse.beat();
            tokio::time::sleep(EVERY).await;
            let Err(error) = self.renew().await else { continue };
            match error {
                LeaseError::NotRenewed(ref source) if self.renewed.elapsed() < RENEW_WITHIN => {
                    tracing::warn!(error = %source, "the lease is not renewed");
                }
                error => return error,
            }
        }
    }

    async fn renew(&mut self) -> Result<(), LeaseError> {
        let left = RENEW_WITHIN.saturating_sub(self.renewed.elapsed()).max(Duration::from_millis(100));
        let started = Instant::now();
        let spec = Some(self.lease.spec(self.record.spec.as_ref(), Taking::Again));
        let record = Record { spec, ..self.record.clone() };
        let params = PostParams::default();
        let replaced = tokio::time::timeout(left, self.lease.api.replace(NAME, &params, &record)).await;
        match replaced {
            Ok(Ok(record)) => {
                (self.record, self.renewed) = (record, started);
                Ok(())
            }
            Ok(Err(error)) if is_conflict(&error) => self.look_again().await,
            Ok(Err(error)) => Err(LeaseError::NotRenewed(error)),
            Err(_) => Err(LeaseError::NotRenewed(kube::Error::Service("no answer in time".into()))),
        }
    }

    /// Someone wrote it: another operator, or a person that put a label on it.
    async fn look_again(&mut self) -> Result<(), LeaseError> {
        let there = self.lease.api.get(NAME).await.map_err(LeaseError::NotRenewed)?;
        let holder = there.spec.as_ref().and_then(|spec| spec.holder_identity.clone()).unwrap_or_default();
        if holder != self.lease.identity {
            return Err(LeaseError::Taken(holder));
        }
        self.record = there;
        Err(LeaseError::NotRenewed(kube::Error::Service("the lease was written by someone else".into())))
    }
}

/// Another was quicker.
fn won(written: Result<Record, kube::Error>) -> Result<Option<Record>, kube::Error> {
    match written {
        Ok(record) => Ok(Some(record)),
        Err(error) if is_conflict(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn is_refusal(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404 | 422))
}
