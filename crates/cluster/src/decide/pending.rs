//! A sandbox that has no node: why, whether one is being made for it, and what helps if none is.
//!
//! The scheduler says the same of a Pod that gets a node in a minute and of one that never gets any; only an autoscaler
//! knows. It tells by events, which may be lost and are hints: whatever they said, a Pod that has a node waits for none.

mod cause;
#[cfg(test)]
mod tests;

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use super::condition::{Reason, Standing, pod_condition};
use crate::render::CLASS_ANNOTATION;
use cause::Cause;

/// What an autoscaler said of a Pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Which autoscaler.
    pub who: String,
    /// What it comes to.
    pub verdict: Verdict,
    /// In its own words.
    pub said: String,
    /// When.
    pub at: Timestamp,
}

/// What an autoscaler's word comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It makes a node.
    NodeComes,
    /// No node that it may make would help.
    NoHelp,
}

/// What was heard of autoscalers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Heard<'a> {
    /// The last word about this Pod.
    pub word: Option<&'a Word>,
    /// When one last made a node for any Pod. Karpenter names ten Pods of a burst and is silent about the rest (its
    /// `PodNominationRateLimiter`); Cluster Autoscaler is silent about those that a coming node has room for.
    pub busy: Option<Timestamp>,
    /// How long sandboxes like this one waited lately until they had a node ([`usual`]).
    pub usual: Option<Duration>,
}

/// So long an autoscaler may be silent: Cluster Autoscaler looks every 10 s, Karpenter collects Pods for 10 s at most.
const SILENCE: Duration = Duration::from_secs(60);

/// So long both give a node that they started to join the cluster.
const PROVISION: Duration = Duration::from_secs(15 * 60);

/// An autoscaler's own words are cut here.
const LONGEST: usize = 400;

/// Since when a Pod waits for a node, while it does.
pub(super) fn since(pod: &Pod) -> Option<Time> {
    let scheduled = pod_condition(pod, "PodScheduled").filter(|condition| condition.status == "False")?;
    scheduled.last_transition_time.clone().or_else(|| pod.metadata.creation_timestamp.clone())
}

/// Who got a node sooner than this found one that was there.
const AT_ONCE: Duration = Duration::from_secs(5);

/// So many of the last ones tell how long it takes.
const LAST: usize = 9;

/// How long the last Pods that no node had room for waited, of those made by the same class: the median, in round numbers, for
/// it is told to people, and each other word is a write.
pub fn usual<'a>(pods: impl Iterator<Item = &'a Pod>, like: &Pod) -> Option<Duration> {
    let class = |pod: &Pod| pod.annotations().get(CLASS_ANNOTATION).cloned();
    let own = class(like);
    let waited = pods.filter(|pod| class(pod) == own).filter_map(|pod| {
        let scheduled = pod_condition(pod, "PodScheduled").filter(|condition| condition.status == "True")?;
        let (Time(made), Time(placed)) = (pod.creation_timestamp()?, scheduled.last_transition_time.clone()?);
        let waited = Duration::try_from(placed.duration_since(made)).ok()?;
        (waited >= AT_ONCE).then_some((placed, waited))
    });
    let mut waited: Vec<_> = waited.collect();
    waited.sort_unstable_by_key(|(placed, _)| std::cmp::Reverse(*placed));
    waited.truncate(LAST);
    let mut lasted: Vec<u64> = waited.into_iter().map(|(_, waited)| waited.as_secs()).collect();
    lasted.sort_unstable();
    let median = *lasted.get(lasted.len() / 2)?;
    let round = if median < 60 { 10 } else { 30 };
    Some(Duration::from_secs(median.next_multiple_of(round)))
}

fn words(time: Duration) -> String {
    match time.as_secs() {
        seconds if seconds < 60 => format!("{seconds} s"),
        seconds if seconds % 60 == 0 => format!("{} min", seconds / 60),
        seconds => format!("{} min {} s", seconds / 60, seconds % 60),
    }
}

/// How a Pod stands that waits for a node, and when to look again. None of one that does not.
pub(super) fn of(pod: &Pod, heard: Heard<'_>, now: Timestamp) -> Option<(Standing, Option<Duration>)> {
    let scheduled = pod_condition(pod, "PodScheduled").filter(|condition| condition.status == "False")?;
    let message = scheduled.message.as_deref().unwrap_or("the scheduler has found no node");
    if scheduled.reason.as_deref() == Some("SchedulingGated") {
        return Some((Standing::new(Reason::SchedulingGated, message), None));
    }
    let cause = Cause::read(pod, message);
    let standing = match heard.word {
        Some(word) => heeded(word, heard.usual, &cause, now),
        None => unheard(since(pod).map_or(now, |Time(since)| since), heard.busy, &cause, now),
    };
    Some(standing)
}

/// An autoscaler spoke.
fn heeded(word: &Word, usual: Option<Duration>, cause: &Cause, now: Timestamp) -> (Standing, Option<Duration>) {
    let Word { who, said, at, .. } = word;
    let said: String = said.chars().take(LONGEST).collect();
    match (word.verdict, left(*at, PROVISION, now)) {
        (Verdict::NodeComes, Some(left)) => {
            let usual = usual.map_or_else(String::new, |usual| format!(", which took about {} lately", words(usual)));
            let message = format!("a node is being made for it ({who}: {said}){usual}; until then {cause}");
            (Standing::new(Reason::NodeComing, message), Some(left))
        }
        (Verdict::NodeComes, None) => {
            let message = format!(
                "{cause}. {who} began a node for it at {at:.0} ({said}), and none has joined the cluster: see the events of \
                 `kubectl get nodeclaims,nodes`, the log of {who}, and the provider's quotas"
            );
            (Standing::new(Reason::Unschedulable, message), None)
        }
        (Verdict::NoHelp, _) => {
            let message = format!("{cause}. {who} can make none for it: {said}. {}", remedy(&said));
            (Standing::new(Reason::NoNodeFits, message), None)
        }
    }
}

/// No autoscaler spoke of this Pod.
fn unheard(since: Timestamp, busy: Option<Timestamp>, cause: &Cause, now: Timestamp) -> (Standing, Option<Duration>) {
    if let Some(left) = left(since, SILENCE, now) {
        return (Standing::new(Reason::Unschedulable, cause.to_string()), Some(left));
    }
    if let Some(left) = busy.and_then(|busy| left(busy, PROVISION, now)) {
        let message = format!("{cause}. An autoscaler makes nodes for others, and has said nothing of this one");
        return (Standing::new(Reason::Unschedulable, message), Some(left));
    }
    let (reason, helps) = match cause.lasts() {
        true => (Reason::NoNodeFits, "add such nodes, or a pool whose template has these labels and taints"),
        false => (Reason::Unschedulable, "add nodes, or stop other projects"),
    };
    let message = format!("{cause}. No autoscaler reacted within {} s: {helps}", SILENCE.as_secs());
    (Standing::new(reason, message), None)
}

/// What the one who runs the cluster can do, by the words of either autoscaler.
fn remedy(said: &str) -> &'static str {
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    // Karpenter names every pool: the one that is at its limit is the one that would fit.
    if says(&["exceed limits", "max node group size", "limit reached", "max total nodes"]) {
        return "Its pool is at its limit: raise it (limits of the NodePool, maxSize of the group), or stop other projects";
    }
    if says(&["in backoff", "InsufficientCapacity", "insufficient capacity", "not ready for scaleup"]) {
        return "The provider gave no machine: allow more instance types and zones, or ask for a larger quota";
    }
    if says(&["volume", "PersistentVolume"]) {
        return "Its disk ties it to a zone: that zone needs a group of its own";
    }
    if says(&["Insufficient", "no instance type"]) {
        return "No machine of its pool is large enough: allow larger ones, or lower the project's limits";
    }
    if says(&["taint", "incompatible", "node affinity"]) {
        return "No pool makes such nodes: add one whose template has these labels (`garth cluster manifests --autoscaler`)";
    }
    "Its log says more"
}

/// What is left of a time that began then.
fn left(began: Timestamp, lasts: Duration, now: Timestamp) -> Option<Duration> {
    let Ok(passed) = Duration::try_from(now.duration_since(began)) else {
        // Another machine's clock is ahead.
        return Some(lasts);
    };
    lasts.checked_sub(passed).filter(|left| !left.is_zero())
}
