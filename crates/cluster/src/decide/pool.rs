//! What is to be done about one pool of sandboxes that wait: a pure function of what is seen of it.

#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::class::choose;
use super::condition::{self, READY};
use super::ending;
use crate::render::{self, Base, Settings};
use crate::resources::{IsolationClass, ProjectTemplate, WarmPool, WarmPoolStatus};

/// What the operator sees of a pool when it decides.
#[derive(Debug, Clone, Copy)]
pub struct ObservedPool<'a> {
    /// The pool.
    pub pool: &'a WarmPool,
    /// Its template.
    pub template: Option<&'a ProjectTemplate>,
    /// Its Pods that no project has taken.
    pub members: &'a [Arc<Pod>],
    /// Pods that this operator has made for it and does not see yet.
    pub coming: usize,
    /// Its claims that no Pod has and no project.
    pub orphans: &'a [Arc<PersistentVolumeClaim>],
    /// Its NetworkPolicy.
    pub policy: Option<&'a NetworkPolicy>,
    /// Every isolation class.
    pub classes: &'a [Arc<IsolationClass>],
    /// The names of every RuntimeClass.
    pub runtime_classes: &'a BTreeSet<String>,
    /// What the API server said when it last refused something of this pool.
    pub refusal: Option<&'a str>,
    /// The operator's settings.
    pub settings: &'a Settings,
    /// Now.
    pub now: Timestamp,
}

/// One thing to do about a pool.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a handful at a time, for a moment")]
pub enum PoolIntent {
    /// Says what reaches its sandboxes.
    ApplyPolicy(NetworkPolicy),
    /// Makes another sandbox, by this class.
    Make(Option<Arc<IsolationClass>>),
    /// Ends a sandbox that no project may take any more.
    End {
        /// The Pod.
        pod: String,
        /// And no other of this name.
        uid: String,
        /// In this version: since then no project has taken it.
        version: String,
    },
    /// Deletes the disk of a sandbox that is gone; no project has ever had it.
    DeleteClaim {
        /// The claim.
        claim: String,
        /// In this version: since then no project has taken it.
        version: String,
    },
    /// Says how it is.
    SetStatus(WarmPoolStatus),
}

/// What to do, in this order, and when to look again if nothing happens.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PoolDecision {
    /// In this order; one that fails ends the rest.
    pub intents: Vec<PoolIntent>,
    /// When to look again.
    pub again: Option<Duration>,
}

/// How long a claim may be without its Pod: it is made a moment before it.
const ORPHANED: Duration = Duration::from_secs(60);

/// How long after an end that nobody asked for the next sandbox is made.
const AFTER_FAILURE: Duration = Duration::from_secs(30);

/// The most that is made at once: nodes start Pods one after the other, and API servers bear only so much.
const AT_ONCE: usize = 20;

/// Decides.
pub fn decide_pool(observed: &ObservedPool<'_>) -> PoolDecision {
    // What it owns goes with it.
    if observed.pool.metadata.deletion_timestamp.is_some() {
        return PoolDecision::default();
    }
    let mut status = observed.pool.status.clone().unwrap_or_default();
    let mut decision = PoolDecision::default();
    let policy = render::pool_policy(observed.pool, observed.settings);
    if observed.policy.is_none_or(|there| there.spec != policy.spec) {
        decision.intents.push(PoolIntent::ApplyPolicy(policy));
    }
    sweep(observed, &mut decision);
    let (reason, message) = match wanted(observed) {
        Ok((class, base)) => fill(observed, class, &base, &mut status, &mut decision),
        Err((reason, message)) => {
            // Those that are there are still what their projects ask for; no more are made.
            count(observed.members, &mut status);
            (reason, message)
        }
    };
    let (reason, message) = match observed.refusal {
        Some(refusal) => ("Refused", condition::refused(refusal)),
        None => (reason, message),
    };
    say(observed, reason, message, &mut status);
    if observed.pool.status.as_ref() != Some(&status) {
        decision.intents.push(PoolIntent::SetStatus(status));
    }
    decision
}

type Trouble = (&'static str, String);

/// By which class, and for which projects.
fn wanted<'a>(observed: &ObservedPool<'a>) -> Result<(Option<&'a IsolationClass>, Base), Trouble> {
    let name = &observed.pool.spec.template;
    let template = observed
        .template
        .ok_or_else(|| ("TemplateMissing", format!("there is no ProjectTemplate {name} here: make it")))?;
    let like = template.spec.project("");
    let class = choose(&like, observed.classes, observed.runtime_classes)
        .map_err(|unavailable| ("RuntimeUnavailable", unavailable.to_string()))?;
    Ok((class, render::base(&like, class, observed.settings)))
}

/// Deletes disks that nobody has had.
fn sweep(observed: &ObservedPool<'_>, decision: &mut PoolDecision) {
    for claim in observed.orphans.iter().filter(|claim| claim.metadata.deletion_timestamp.is_none()) {
        let made = claim.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, |Time(made)| *made);
        match ORPHANED.checked_sub(observed.now.duration_since(made).unsigned_abs()).filter(|left| !left.is_zero()) {
            Some(left) => again(decision, left),
            None => decision.intents.push(PoolIntent::DeleteClaim {
                claim: claim.name_any(),
                version: claim.resource_version().unwrap_or_default(),
            }),
        }
    }
}

/// Has as many as are asked for, and never one more.
fn fill(
    observed: &ObservedPool<'_>,
    class: Option<&IsolationClass>,
    base: &Base,
    status: &mut WarmPoolStatus,
    decision: &mut PoolDecision,
) -> Trouble {
    let wanted = usize::try_from(observed.pool.spec.replicas).unwrap_or(usize::MAX);
    let there = |pod: &&Arc<Pod>| pod.metadata.deletion_timestamp.is_none();
    let (mut fit, unfit): (Vec<_>, Vec<_>) = observed
        .members
        .iter()
        .filter(there)
        .partition(|pod| ending::of(pod).is_none() && render::base_of(pod).as_ref() == Some(base));
    if unfit.iter().any(|pod| ending::of(pod).is_some()) {
        status.failed_at = Some(Time(observed.now));
    }
    // Those go first that nobody could take yet, and of them the youngest.
    fit.sort_by_key(|pod| {
        (condition::ready_since(pod).is_none(), pod.metadata.creation_timestamp.clone(), pod.name_any())
    });
    let excess = fit.split_off(fit.len().min(wanted));
    decision.intents.extend(unfit.into_iter().chain(excess).map(|pod| PoolIntent::End {
        pod: pod.name_any(),
        uid: pod.uid().unwrap_or_default(),
        version: pod.resource_version().unwrap_or_default(),
    }));
    count_of(fit.iter().map(|pod| &***pod), status);
    let missing = wanted.saturating_sub(fit.len() + observed.coming);
    let rest = status.failed_at.as_ref().and_then(|Time(at)| {
        AFTER_FAILURE.checked_sub(observed.now.duration_since(*at).unsigned_abs()).filter(|left| !left.is_zero())
    });
    match (missing, rest) {
        (0, _) if usize::try_from(status.ready_replicas) == Ok(wanted) => {
            ("Filled", "all of its sandboxes can be taken".to_owned())
        }
        (0, _) => ("Filling", waiting(&fit)),
        (_, Some(rest)) => {
            again(decision, rest);
            ("BackOff", format!("a sandbox of it ended by itself; the next is made in {} s", rest.as_secs() + 1))
        }
        (missing, None) => {
            let class = class.map(|class| Arc::new(class.clone()));
            decision.intents.extend((0..missing.min(AT_ONCE)).map(|_| PoolIntent::Make(class.clone())));
            ("Filling", waiting(&fit))
        }
    }
}

/// What the first that is not ready waits for.
fn waiting(members: &[&Arc<Pod>]) -> String {
    let standing = members.iter().map(|pod| condition::of_pod(pod, true)).find(|standing| standing.reason.is_trouble());
    standing.map_or_else(|| "its sandboxes are being made".to_owned(), |standing| standing.message)
}

fn count(members: &[Arc<Pod>], status: &mut WarmPoolStatus) {
    count_of(members.iter().map(|pod| &**pod), status);
}

fn count_of<'a>(members: impl Iterator<Item = &'a Pod>, status: &mut WarmPoolStatus) {
    let (mut replicas, mut ready) = (0, 0);
    for pod in members {
        replicas += 1;
        ready += u32::from(condition::ready_since(pod).is_some());
    }
    (status.replicas, status.ready_replicas) = (replicas, ready);
}

fn say(observed: &ObservedPool<'_>, reason: &str, message: String, status: &mut WarmPoolStatus) {
    status.observed_generation = observed.pool.metadata.generation;
    let truth = if reason == "Filled" { "True" } else { "False" };
    let before = status.conditions.iter().find(|condition| condition.type_ == READY && condition.status == truth);
    let condition = Condition {
        type_: READY.to_owned(),
        status: truth.to_owned(),
        reason: reason.to_owned(),
        message,
        observed_generation: observed.pool.metadata.generation,
        last_transition_time: before.map_or(Time(observed.now), |before| before.last_transition_time.clone()),
    };
    status.conditions = vec![condition];
}

fn again(decision: &mut PoolDecision, after: Duration) {
    decision.again = decision.again.into_iter().chain([after]).min();
}
