//! Pools of sandboxes that wait: which project takes which, and how a pool is filled again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt as _};
use serde_json::json;

use super::apply::{MANAGER, Refused, gone, made_by, refused};
use super::reconcile::{AT_LEAST, Context, Reconciling, runtime_classes};
use super::refusals::Refusals;
use super::sight::Sight;
use crate::decide::{self, ObservedPool, PoolIntent, choose, decide_pool};
use crate::render::{self, POOL_LABEL, PROJECT_LABEL, Settings};
use crate::resources::{GROUP, IsolationClass, Project, WarmPool};

/// How long a copy may take to show what was written.
const SHOWN_WITHIN: Duration = Duration::from_secs(60);

/// What this operator has done about pools and does not see yet. Its copies lag behind its own writes; without this it would
/// give two sandboxes to a project, or make more than are asked for.
#[derive(Debug, Default)]
pub(super) struct Pools {
    takings: Mutex<HashMap<ObjectRef<Project>, Taking>>,
    /// Names of Pods that were made, by pool.
    coming: Mutex<HashMap<ObjectRef<WarmPool>, HashMap<String, Instant>>>,
    refusals: Refusals<WarmPool>,
}

/// A sandbox that is on its way to a project.
#[derive(Debug, Clone)]
struct Taking {
    pod: String,
    uid: String,
    since: Instant,
    /// Whether the API server has said yes.
    done: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pools {
    /// Whether a project has taken a sandbox and the copies do not show it yet: nothing can be decided.
    pub(super) fn is_unseen(&self, project: &Project, sight: &Sight) -> bool {
        let key = ObjectRef::from_obj(project);
        let mut takings = lock(&self.takings);
        let Some(taking) = takings.get(&key) else { return false };
        let pod = sight.pods.get(&ObjectRef::new(&taking.pod).within(&project.namespace().unwrap_or_default()));
        let shown = pod.as_ref().is_some_and(|pod| decide::is_ours(pod, project));
        // Whatever became of it.
        let over =
            taking.since.elapsed() >= SHOWN_WITHIN || pod.is_some_and(|pod| pod.uid().as_ref() != Some(&taking.uid));
        if shown || over {
            takings.remove(&key);
            return false;
        }
        taking.done
    }

    /// A sandbox for a project that has none, which is this project's until it is let go.
    pub(super) fn spare(&self, project: &Project, sight: &Sight, settings: &Settings) -> Option<Arc<Pod>> {
        let namespace = project.namespace()?;
        sight.pools.find(|pool| pool.namespace().as_ref() == Some(&namespace))?;
        let classes = sight.classes.state();
        let class = choose(project, &classes, &runtime_classes(sight)).ok()?;
        let base = render::base(project, class, settings);
        let mut takings = lock(&self.takings);
        takings.retain(|_, taking| taking.since.elapsed() < SHOWN_WITHIN);
        let is_free = |pod: &Pod| {
            pod.namespace().as_ref() == Some(&namespace)
                && pod.labels().contains_key(POOL_LABEL)
                && !pod.labels().contains_key(PROJECT_LABEL)
                && render::base_of(pod).as_ref() == Some(&base)
                && decide::is_whole(pod)
                && takings.values().all(|taking| Some(&taking.uid) != pod.uid().as_ref())
        };
        let spare = sight.pods.find(is_free)?;
        let taking = Taking { pod: spare.name_any(), uid: spare.uid()?, since: Instant::now(), done: false };
        takings.insert(ObjectRef::from_obj(project), taking);
        Some(spare)
    }

    /// The API server has given a project what was set aside for it.
    pub(super) fn taken(&self, project: &Project) {
        if let Some(taking) = lock(&self.takings).get_mut(&ObjectRef::from_obj(project)) {
            taking.done = true;
        }
    }

    /// Lets go of what was set aside for a project and was not taken.
    pub(super) fn let_go(&self, project: &ObjectRef<Project>) {
        let mut takings = lock(&self.takings);
        if takings.get(project).is_some_and(|taking| !taking.done) {
            takings.remove(project);
        }
    }

    /// How many Pods of a pool are on their way.
    fn coming(&self, pool: &ObjectRef<WarmPool>, sight: &Sight) -> usize {
        let mut coming = lock(&self.coming);
        let Some(names) = coming.get_mut(pool) else { return 0 };
        let namespace = pool.namespace.clone().unwrap_or_default();
        names.retain(|name, since| {
            since.elapsed() < SHOWN_WITHIN && sight.pods.get(&ObjectRef::new(name).within(&namespace)).is_none()
        });
        names.len()
    }
}

/// Brings one pool one step nearer to what it asks for.
pub(super) fn run(pool: Arc<WarmPool>, context: Arc<Context>) -> Reconciling {
    Box::pin(async move {
        let key = ObjectRef::from_obj(&*pool);
        let refusal = context.pools.refusals.last(&key);
        let decision = decided(&pool, &context, refusal.as_deref());
        for intent in decision.intents {
            apply(&context, &pool, intent).await?;
        }
        if context.pools.refusals.over(&key) {
            return Ok(Action::requeue(Duration::ZERO));
        }
        Ok(Action::requeue(decision.again.unwrap_or(AT_LEAST).min(AT_LEAST)))
    })
}

/// Says what was refused in the pool's status, and when it is tried again.
pub(super) fn after_error(pool: Arc<WarmPool>, error: &Refused, context: Arc<Context>) -> Action {
    let said = error.to_string();
    tracing::warn!(pool = pool.name_any(), namespace = pool.namespace(), error = said, "refused");
    let wait = context.pools.refusals.again(ObjectRef::from_obj(&*pool), &said);
    tokio::spawn(async move {
        for intent in decided(&pool, &context, Some(&said)).intents {
            if let PoolIntent::SetStatus(_) = &intent
                && let Err(error) = apply(&context, &pool, intent).await
            {
                context.metrics.refused(&error);
                tracing::warn!(%error, "a refusal could not be told of");
            }
        }
    });
    Action::requeue(wait)
}

fn decided(pool: &WarmPool, context: &Context, refusal: Option<&str>) -> decide::PoolDecision {
    let sight = &context.sight;
    let namespace = pool.namespace().unwrap_or_default();
    let (name, uid) = (pool.name_any(), pool.uid());
    let is_its = |labels: &std::collections::BTreeMap<String, String>, owners: &[OwnerReference]| {
        labels.get(POOL_LABEL) == Some(&name)
            && !labels.contains_key(PROJECT_LABEL)
            && owners.iter().any(|owner| Some(&owner.uid) == uid.as_ref())
    };
    let pods: Vec<_> = sight.pods.state();
    let here = pods.iter().filter(|pod| pod.namespace().as_ref() == Some(&namespace));
    let used: BTreeSet<_> = here.clone().filter_map(|pod| render::claim_of(pod)).collect();
    let members: Vec<_> = here.filter(|pod| is_its(pod.labels(), pod.owner_references())).cloned().collect();
    let orphans = sight.claims.state();
    let orphans = orphans.into_iter().filter(|claim| {
        claim.namespace().as_ref() == Some(&namespace)
            && is_its(claim.labels(), claim.owner_references())
            && !used.contains(claim.name_any().as_str())
    });
    decide_pool(&ObservedPool {
        pool,
        template: sight.templates.get(&ObjectRef::new(&pool.spec.template).within(&namespace)).as_deref(),
        members: &members,
        coming: context.pools.coming(&ObjectRef::from_obj(pool), sight),
        orphans: &orphans.collect::<Vec<_>>(),
        policy: sight
            .policies
            .get(&ObjectRef::<NetworkPolicy>::new(&render::pool_policy_name(&name)).within(&namespace))
            .as_deref(),
        classes: &sight.classes.state(),
        runtime_classes: &runtime_classes(sight),
        refusal,
        settings: &context.settings,
        now: Timestamp::now(),
    })
}

async fn apply(context: &Context, pool: &WarmPool, intent: PoolIntent) -> Result<(), Refused> {
    let only = |uid: Option<String>, version: String| {
        DeleteParams::default().preconditions(Preconditions { uid, resource_version: Some(version) })
    };
    // Another version of it is on its way here, and is decided about.
    let unless_newer = |deleted: Result<(), kube::Error>, doing| match deleted {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        deleted => deleted.map_err(refused(doing)),
    };
    match intent {
        PoolIntent::ApplyPolicy(policy) => {
            let params = PatchParams::apply(MANAGER).force();
            let policies: Api<NetworkPolicy> = of(context, pool);
            let applied = policies.patch(&policy.name_any(), &params, &Patch::Apply(&policy)).await;
            applied.map(drop).map_err(refused("its network policy cannot be set"))
        }
        PoolIntent::Make(class) => make(context, pool, class.as_deref()).await,
        PoolIntent::End { pod, uid, version } => {
            let pods: Api<Pod> = of(context, pool);
            unless_newer(gone(pods.delete(&pod, &only(Some(uid), version)).await), "a sandbox of it cannot be ended")
        }
        PoolIntent::DeleteClaim { claim, version } => {
            let claims: Api<PersistentVolumeClaim> = of(context, pool);
            unless_newer(gone(claims.delete(&claim, &only(None, version)).await), "a disk of it cannot be deleted")
        }
        PoolIntent::SetStatus(status) => {
            let pools: Api<WarmPool> = of(context, pool);
            let patch = json!({
                "apiVersion": format!("{GROUP}/v1alpha1"), "kind": WarmPool::kind(&()),
                "metadata": { "name": pool.name_any(), "uid": pool.uid() }, "status": status,
            });
            let params = PatchParams::apply(MANAGER).force();
            match pools.patch_status(&pool.name_any(), &params, &Patch::Apply(patch)).await {
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                set => set.map(drop).map_err(refused("its status cannot be set")),
            }
        }
    }
}

/// Makes one sandbox, with a name that nothing ever had: a disk that was used is never taken for a new one.
async fn make(context: &Context, pool: &WarmPool, class: Option<&IsolationClass>) -> Result<(), Refused> {
    let key = ObjectRef::from_obj(pool);
    let within = pool.namespace().unwrap_or_default();
    let Some(template) = context.sight.templates.get(&ObjectRef::new(&pool.spec.template).within(&within)) else {
        return Ok(());
    };
    let mut random = [0; 40];
    getrandom::fill(&mut random).expect("getrandom(2) does not fail once the kernel has booted");
    let (token, suffix) = random.split_first_chunk::<32>().expect("32 of 40");
    let letters = suffix.iter().map(|byte| char::from(b"abcdefghijklmnopqrstuvwxyz234567"[usize::from(byte & 31)]));
    let name: String = pool.name_any().chars().chain(['-']).chain(letters).collect();
    let mut like = template.spec.project(&name);
    like.metadata.namespace = pool.namespace();
    let mut member = render::member(pool, &like, class, &context.settings, *token);
    let claims: Api<PersistentVolumeClaim> = of(context, pool);
    let claim = claims.create(&made_by(), &member.claim).await.map_err(refused("a disk of it cannot be made"))?;
    member.secret.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "PersistentVolumeClaim".to_owned(),
        name: claim.name_any(),
        uid: claim.uid().unwrap_or_default(),
        ..OwnerReference::default()
    }]);
    lock(&context.pools.coming).entry(key.clone()).or_default().insert(name.clone(), Instant::now());
    let made = async {
        let secrets: Api<Secret> = of(context, pool);
        secrets.create(&made_by(), &member.secret).await.map_err(refused("a token of it cannot be kept"))?;
        let pods: Api<Pod> = of(context, pool);
        pods.create(&made_by(), &member.pod).await.map_err(refused("a sandbox of it cannot be made"))
    };
    if let Err(error) = made.await {
        lock(&context.pools.coming).entry(key).or_default().remove(&name);
        // The token goes with it.
        let _ = claims.delete(&claim.name_any(), &DeleteParams::default()).await;
        return Err(error);
    }
    Ok(())
}

fn of<K>(context: &Context, pool: &WarmPool) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    Api::namespaced(context.client.clone(), &pool.namespace().unwrap_or_default())
}
