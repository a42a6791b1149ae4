//! One project: look, decide, do.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::{self, Action};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, Resource, ResourceExt as _};

use super::apply::{self, Refused};
use super::sight::Sight;
use crate::decide::{Intent, Observed, decide};
use crate::render::{self, Settings};
use crate::resources::Project;

/// What reconciliations share.
pub(super) struct Context {
    pub(super) client: Client,
    pub(super) recorder: Recorder,
    sight: Sight,
    settings: Settings,
    /// What was last refused of a project, and how often in a row.
    refused: Mutex<HashMap<ObjectRef<Project>, (u32, String)>>,
}

/// The first wait after a refusal; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);
/// The longest wait after a refusal.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How often a project is looked at though nothing is known to have changed.
const AT_LEAST: Duration = Duration::from_secs(600);

impl Context {
    pub(super) fn new(client: Client, sight: Sight, settings: Settings) -> Arc<Self> {
        let recorder = Recorder::new(client.clone(), Reporter::from("garth-operator"));
        Arc::new(Self { client, recorder, sight, settings, refused: Mutex::default() })
    }

    fn refused(&self) -> MutexGuard<'_, HashMap<ObjectRef<Project>, (u32, String)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings one project one step nearer to what it asks for.
pub(super) fn run(
    project: Arc<Project>,
    context: Arc<Context>,
) -> std::pin::Pin<Box<dyn Future<Output = Result<Action, Refused>> + Send>> {
    Box::pin(async move {
        let key = ObjectRef::from_obj(&*project);
        let refusal = context.refused().get(&key).map(|(_, said)| said.clone());
        let decision = decided(&project, &context, refusal.as_deref());
        for intent in decision.intents {
            apply::apply(&context, &project, intent).await?;
        }
        if context.refused().remove(&key).is_some() {
            // What was said of the refusal is to be taken back.
            return Ok(Action::requeue(Duration::ZERO));
        }
        Ok(Action::requeue(decision.again.unwrap_or(AT_LEAST).min(AT_LEAST)))
    })
}

fn decided(project: &Project, context: &Context, refusal: Option<&str>) -> crate::decide::Decision {
    let sight = &context.sight;
    let name = project.name_any();
    let runtime_classes: BTreeSet<_> = sight.runtime_classes.state().iter().map(|class| class.name_any()).collect();
    let pod = named(&sight.pods, project, &name);
    let known = sight.words.known(project, pod.as_deref());
    decide(&Observed {
        project,
        pod: pod.as_deref(),
        claim: named(&sight.claims, project, &render::claim_name(&name)).as_deref(),
        policy: named(&sight.policies, project, &render::policy_name(&name)).as_deref(),
        classes: &sight.classes.state(),
        runtime_classes: &runtime_classes,
        refusal,
        heard: known.heard(),
        settings: &context.settings,
        now: Timestamp::now(),
    })
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
    let times = {
        let mut refused = context.refused();
        let entry = refused.entry(key).or_default();
        *entry = (entry.0.saturating_add(1), error.to_string());
        entry.0
    };
    let said = error.to_string();
    tracing::warn!(project = project.name_any(), namespace = project.namespace(), error = said, times, "refused");
    tokio::spawn(async move {
        for intent in decided(&project, &context, Some(&said)).intents {
            if let Intent::SetStatus(_) | Intent::Tell(_) = &intent
                && let Err(error) = apply::apply(&context, &project, intent).await
            {
                tracing::warn!(%error, "a refusal could not be told of");
                return;
            }
        }
    });
    Action::requeue(FIRST_WAIT.saturating_mul(1 << times.min(8)).min(LONGEST_WAIT))
}

pub(super) fn log(error: &controller::Error<Refused, std::convert::Infallible>) {
    match error {
        // Told of where it is handled, or nobody's loss: a project that went before its turn came.
        controller::Error::ReconcilerFailed(..) | controller::Error::ObjectNotFound(_) => {}
        error => tracing::warn!(%error, "the queue failed"),
    }
}
