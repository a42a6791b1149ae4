//! What only the operator that leads can say: how projects and pools are, and for how long projects wait.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use crate::operator::sight::Sight;
use crate::resources::{DesiredState, Project, ProjectStatus, State};

/// The present leadership, if it is this operator's.
#[derive(Debug, Clone, Default)]
pub(super) struct Leadings(Arc<Mutex<Option<Leading>>>);

/// This operator leads while this is there.
#[must_use]
pub(in crate::operator) struct Leads(Leadings);

impl Drop for Leads {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

#[derive(Debug)]
pub(super) struct Leading {
    since: Timestamp,
    sight: Option<Sight>,
    /// By the project's UID.
    courses: HashMap<String, Course>,
}

#[derive(Debug, Clone, Copy)]
enum Course {
    /// It is to run and does not.
    Waits(Timestamp),
    Runs,
}

impl Leadings {
    pub(super) fn begin(&self, since: Timestamp) -> Leads {
        *self.lock() = Some(Leading { since, sight: None, courses: HashMap::new() });
        Leads(self.clone())
    }

    pub(super) fn sees(&self, sight: Sight) {
        self.change(|leading| leading.sight = Some(sight));
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Leading) -> T) -> Option<T> {
        self.lock().as_mut().map(change)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Leading>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leading {
    /// For how long the project waited, if it runs by this status and did not.
    pub(super) fn told(&mut self, project: &Project, status: &ProjectStatus, now: Timestamp) -> Option<Duration> {
        let uid = project.uid()?;
        if status.state == Some(State::Running) {
            let since = match self.courses.insert(uid, Course::Runs) {
                Some(Course::Waits(since)) => since,
                Some(Course::Runs) => return None,
                // It has not waited, or for another operator.
                None => wished(project)?,
            };
            return Some(passed(since, now));
        }
        if !waits(project, status) {
            self.courses.remove(&uid);
        } else if !matches!(self.courses.get(&uid), Some(Course::Waits(_))) {
            self.courses.insert(uid, Course::Waits(wished(project).unwrap_or(now)));
        }
        None
    }

    pub(super) fn forget(&mut self, project: &Project) {
        if let Some(uid) = project.metadata.uid.as_deref() {
            self.courses.remove(uid);
        }
    }

    /// Since when a project waits.
    fn waiting_since(&self, project: &Project, status: &ProjectStatus) -> Timestamp {
        let course = project.metadata.uid.as_deref().and_then(|uid| self.courses.get(uid));
        if let Some(Course::Waits(since)) = course {
            return *since;
        }
        let unscheduled = status.sandbox.as_ref().and_then(|sandbox| sandbox.pending_since.as_ref());
        let unscheduled = unscheduled.map(|Time(since)| *since);
        // An operator before this one knew.
        unscheduled.or_else(|| first_wish(project, status)).unwrap_or(self.since)
    }
}

/// When a project that has had no status was first to run.
fn wished(project: &Project) -> Option<Timestamp> {
    let is_new = project.status.as_ref().is_none_or(|status| status.state.is_none());
    is_new.then(|| project.creation_timestamp().map(|Time(at)| at)).flatten()
}

/// When a project that has never had a whole sandbox was first to run.
fn first_wish(project: &Project, status: &ProjectStatus) -> Option<Timestamp> {
    let started = status.sandbox.as_ref().is_some_and(|sandbox| sandbox.started_at.is_some());
    (status.ended.is_none() && !started).then(|| project.creation_timestamp().map(|Time(at)| at)).flatten()
}

/// Whether it is to run, does not, and may yet. One that failed waits for a person.
fn waits(project: &Project, status: &ProjectStatus) -> bool {
    project.spec.desired_state == DesiredState::Running
        && project.metadata.deletion_timestamp.is_none()
        && matches!(status.state, Some(State::Starting | State::Stopping))
}

/// The clocks are of two machines.
fn passed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

/// The runtime without its handler: that of its sandbox, else the one that is asked for.
pub(super) fn level<'a>(project: &'a Project, status: &'a ProjectStatus) -> &'a str {
    let has = status.sandbox.as_ref().map(|sandbox| sandbox.runtime.as_str()).filter(|runtime| !runtime.is_empty());
    let runtime = has.unwrap_or(&project.spec.runtime);
    runtime.split_once('/').map_or(runtime, |(level, _)| level)
}

fn word(state: State) -> &'static str {
    match state {
        State::Stopped => "Stopped",
        State::Suspended => "Suspended",
        State::Starting => "Starting",
        State::Running => "Running",
        State::Stopping => "Stopping",
        State::Failed => "Failed",
        State::Removing => "Removing",
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct Projects {
    state: &'static str,
    runtime: String,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, EncodeLabelSet)]
struct Pending {
    reason: String,
}

#[derive(Debug, EncodeLabelSet)]
struct Pool {
    namespace: String,
    pool: String,
}

#[derive(Debug, Default)]
struct Counted {
    projects: BTreeMap<Projects, u64>,
    /// How many, and since when the longest.
    pending: BTreeMap<Pending, (u64, Timestamp)>,
    /// Wanted, ready.
    pools: Vec<(Pool, u32, u32)>,
}

impl Counted {
    fn of(leading: &Leading, sight: &Sight) -> Self {
        let mut counted = Self::default();
        for project in sight.projects.state() {
            let unseen = ProjectStatus { state: Some(State::Starting), ..ProjectStatus::default() };
            let status = project.status.as_ref().filter(|status| status.state.is_some()).unwrap_or(&unseen);
            let state = word(status.state.unwrap_or(State::Starting));
            *counted.projects.entry(Projects { state, runtime: level(&project, status).to_owned() }).or_default() += 1;
            if waits(&project, status) {
                let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
                let reason = ready.map_or("Starting", |ready| &ready.reason).to_owned();
                let since = leading.waiting_since(&project, status);
                let (number, longest) = counted.pending.entry(Pending { reason }).or_insert((0, since));
                (*number, *longest) = (*number + 1, since.min(*longest));
            }
        }
        let pools = sight.pools.state();
        let pools = pools.iter().map(|pool| {
            let ready = pool.status.as_ref().map_or(0, |status| status.ready_replicas);
            let labels = Pool { namespace: pool.namespace().unwrap_or_default(), pool: pool.name_any() };
            (labels, pool.spec.replicas, ready)
        });
        counted.pools = pools.collect();
        counted
    }
}

impl Collector for Leadings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let leading = self.lock();
        let mut leader = encoder.encode_descriptor("leader", "Whether this operator leads", None, MetricType::Gauge)?;
        leader.encode_gauge(&i64::from(leading.is_some()))?;
        let Some(counted) = leading.as_ref().and_then(|it| it.sight.as_ref().map(|sight| Counted::of(it, sight)))
        else {
            return Ok(());
        };
        drop(leading);
        let now = Timestamp::now();
        let Counted { projects, pending, pools } = &counted;
        gauges(
            &mut encoder,
            ("projects", "Projects", None),
            projects.iter().map(|(labels, number)| (labels, *number)),
        )?;
        let numbers = pending.iter().map(|(labels, (number, _))| (labels, *number));
        gauges(&mut encoder, ("pending_projects", "Projects that are to run and do not yet", None), numbers)?;
        let longest = pending.iter().map(|(labels, (_, since))| (labels, passed(*since, now).as_secs_f64()));
        let help = "For how long the one that waits longest has waited";
        gauges(&mut encoder, ("longest_pending", help, Some(&Unit::Seconds)), longest)?;
        let wanted = pools.iter().map(|(labels, wanted, _)| (labels, u64::from(*wanted)));
        gauges(&mut encoder, ("pool_sandboxes_wanted", "Sandboxes that a pool is to have", None), wanted)?;
        let ready = pools.iter().map(|(labels, _, ready)| (labels, u64::from(*ready)));
        gauges(&mut encoder, ("pool_sandboxes_ready", "Sandboxes of a pool that can be taken", None), ready)
    }
}

fn gauges<'a, L: EncodeLabelSet + 'a>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit): (&str, &str, Option<&Unit>),
    series: impl Iterator<Item = (&'a L, impl EncodeGaugeValue)>,
) -> fmt::Result {
    let mut metric = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (labels, value) in series {
        metric.encode_family(labels)?.encode_gauge(&value)?;
    }
    Ok(())
}
