//! One project: look, decide, do.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::{self, Action};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt as _};

use super::apply::{self, Applied, Refused};
use super::metrics::Metrics;
use super::pools::Pools;
use super::refusals::Refusals;
use super::sight::Sight;
use crate::decide::{Decision, Heard, Intent, Observed, belongs, decide, is_ours, usual};
use crate::render::{self, Settings};
use crate::resources::{DesiredState, Project};

/// What reconciliations share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) recorder: Recorder,
    pub(super) sight: Sight,
    pub(super) settings: Settings,
    pub(super) pools: Pools,
    pub(super) metrics: Metrics,
    refusals: Refusals<Project>,
}

/// How often a project is looked at though nothing is known to have changed.
pub(super) const AT_LEAST: Duration = Duration::from_secs(600);

/// How long at most a copy is waited for before it is asked again.
const UNSEEN: Duration = Duration::from_secs(1);

impl Context {
    pub(super) fn new(client: Client, sight: Sight, settings: Settings, metrics: Metrics) -> Arc<Self> {
        let recorder = Recorder::new(client.clone(), Reporter::from("garth-operator"));
        let (pools, refusals) = (Pools::default(), Refusals::default());
        Arc::new(Self { client, recorder, sight, settings, pools, metrics, refusals })
    }
}

/// One look at one object, and what follows from it.
pub(super) type Reconciling = std::pin::Pin<Box<dyn Future<Output = Result<Action, Refused>> + Send>>;

/// Brings one project one step nearer to what it asks for.
pub(super) fn run(project: Arc<Project>, context: Arc<Context>) -> Reconciling {
    Box::pin(async move {
        let key = ObjectRef::from_obj(&*project);
        if context.pools.is_unseen(&project, &context.sight) {
            // What it has taken is on its way here.
            return Ok(Action::requeue(UNSEEN));
        }
        let refusal = context.refusals.last(&key);
        let spare = spare(&project, &context);
        let decision = decided(&project, &context, refusal.as_deref(), spare.as_deref());
        if spare.is_some() && !decision.intents.iter().any(|intent| matches!(intent, Intent::TakePod(_))) {
            context.pools.let_go(&key);
        }
        let mut left = decision.intents.into_iter().peekable();
        while let Some(first) = left.next() {
            let mut together = vec![first];
            while let Some(next) = left.next_if(|next| next.goes_with(&together)) {
                together.push(next);
            }
            let applied = join_all(together.into_iter().map(|intent| apply::apply(&context, &project, intent))).await;
            for applied in applied {
                if applied? == Applied::Outdated {
                    // The newer version is on its way here, and is decided about.
                    context.pools.let_go(&key);
                    return Ok(Action::requeue(AT_LEAST));
                }
            }
        }
        if context.refusals.over(&key) {
            // What was said of the refusal is to be taken back.
            return Ok(Action::requeue(Duration::ZERO));
        }
        Ok(Action::requeue(decision.again.unwrap_or(AT_LEAST).min(AT_LEAST)))
    })
}

/// A sandbox of a pool, set aside for a project that has nothing yet.
fn spare(project: &Project, context: &Context) -> Option<Arc<Pod>> {
    let sight = &context.sight;
    let wanted = project.spec.desired_state == DesiredState::Running && project.metadata.deletion_timestamp.is_none();
    let pod = pod(sight, project);
    let is_new = wanted && pod.is_none() && claim(sight, project, None).is_none();
    is_new.then(|| context.pools.spare(project, sight, &context.settings)).flatten()
}

fn decided(project: &Project, context: &Context, refusal: Option<&str>, spare: Option<&Pod>) -> Decision {
    let sight = &context.sight;
    let pod = pod(sight, project);
    let claim = claim(sight, project, pod.as_deref());
    let known = sight.words.known(project, pod.as_deref());
    decide(&Observed {
        project,
        pod: pod.as_deref(),
        claim: claim.as_deref(),
        spare,
        policy: named(&sight.policies, project, &render::policy_name(&project.name_any())).as_deref(),
        classes: &sight.classes.state(),
        runtime_classes: &runtime_classes(sight),
        refusal,
        heard: Heard { usual: usual_wait(sight, pod.as_deref()), ..known.heard() },
        settings: &context.settings,
        now: Timestamp::now(),
    })
}

/// How long a sandbox like this one waits for its node, while it does.
fn usual_wait(sight: &Sight, pod: Option<&Pod>) -> Option<Duration> {
    let waits = |pod: &&Pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none());
    let like = pod.filter(waits)?;
    usual(sight.pods.state().iter().map(|pod| &**pod), like)
}

pub(super) fn runtime_classes(sight: &Sight) -> BTreeSet<String> {
    sight.runtime_classes.state().iter().map(|class| class.name_any()).collect()
}

/// Its Pod: the one that it is known to have, the one that has its name, or one that it took from a pool and nobody noted.
fn pod(sight: &Sight, project: &Project) -> Option<Arc<Pod>> {
    let known = project.status.as_ref().and_then(|status| Some(status.sandbox.as_ref()?.pod.clone()));
    let known = known.and_then(|name| named(&sight.pods, project, &name));
    let is_its = |pod: &Pod| is_ours(pod, project);
    known.filter(|pod| is_its(pod)).or_else(|| {
        let namesake = named(&sight.pods, project, &project.name_any());
        namesake.clone().filter(|pod| is_its(pod)).or_else(|| {
            let there_are_pools = !sight.pools.is_empty();
            there_are_pools.then(|| sight.pods.find(is_its)).flatten().or(namesake)
        })
    })
}

/// Its claim: the one that it is known to have, that its sandbox has, that has its name, or one of its label.
fn claim(sight: &Sight, project: &Project, pod: Option<&Pod>) -> Option<Arc<PersistentVolumeClaim>> {
    let known = project.status.as_ref().and_then(|status| Some(status.claim.as_ref()?.name.clone()));
    let its = pod.filter(|pod| is_ours(pod, project)).and_then(|pod| render::claim_of(pod)).map(str::to_owned);
    let names = known.into_iter().chain(its).chain([render::claim_name(&project.name_any())]);
    let namespace = project.namespace();
    names
        .into_iter()
        .find_map(|name| named(&sight.claims, project, &name))
        .or_else(|| sight.claims.find(|claim| claim.namespace() == namespace && belongs(claim, project)))
}

fn named<K>(store: &Store<K>, project: &Project, name: &str) -> Option<Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.get(&ObjectRef::new(name).within(&project.namespace()?))
}

/// Says what was refused in the project's status, and when it is tried again.
pub(super) fn after_error(project: Arc<Project>, error: &Refused, context: Arc<Context>) -> Action {
    let key = ObjectRef::from_obj(&*project);
    let said = error.to_string();
    tracing::warn!(project = project.name_any(), namespace = project.namespace(), error = said, "refused");
    context.pools.let_go(&key);
    let wait = context.refusals.again(key, &said);
    tokio::spawn(async move {
        if context.pools.is_unseen(&project, &context.sight) {
            return;
        }
        // What is only told of takes nothing from a pool.
        for intent in decided(&project, &context, Some(&said), None).intents {
            if let Intent::SetStatus(_) | Intent::Tell(_) = &intent
                && let Err(error) = apply::apply(&context, &project, intent).await
            {
                context.metrics.refused(&error);
                tracing::warn!(%error, "a refusal could not be told of");
                return;
            }
        }
    });
    Action::requeue(wait)
}

pub(super) fn log(error: &controller::Error<Refused, std::convert::Infallible>) {
    match error {
        // Told of where it is handled, or nobody's loss: a project that went before its turn came.
        controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_) => {}
        error => tracing::warn!(%error, "the queue failed"),
    }
}
