//! What the operator sees: a copy of everything that decisions are made from, kept by watches.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::Future;

use futures::stream::{BoxStream, SelectAll};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Event, PersistentVolumeClaim, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::ListParams;
use kube::runtime::reflector::store::WriterDropped;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::OperatorError;
use super::events::{self, Words};
use crate::render::{MANAGED_BY, POOL_LABEL, PROJECT_LABEL};
use crate::resources::{IsolationClass, Project, ProjectTemplate, WarmPool};

/// Copies of what is on the cluster.
#[derive(Debug, Clone)]
pub(super) struct Sight {
    pub projects: Store<Project>,
    pub pods: Store<Pod>,
    pub claims: Store<PersistentVolumeClaim>,
    pub policies: Store<NetworkPolicy>,
    pub classes: Store<IsolationClass>,
    pub runtime_classes: Store<RuntimeClass>,
    pub templates: Store<ProjectTemplate>,
    pub pools: Store<WarmPool>,
    pub words: Words,
}

/// What something changed of.
pub(super) type Changes<K> = BoxStream<'static, Result<ObjectRef<K>, Infallible>>;

/// What a change is about.
#[derive(Debug, Clone)]
enum About {
    Project(ObjectRef<Project>),
    Pool(ObjectRef<WarmPool>),
    Pools,
    All,
}

/// Reads each kind once, so that a missing right or definition is said at once and by name.
pub(super) async fn check(client: &Client) -> Result<(), OperatorError> {
    async fn one<K>(client: &Client, what: &'static str) -> Result<(), OperatorError>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let list = Api::<K>::all(client.clone()).list(&ListParams::default().limit(1)).await;
        list.map(drop).map_err(|source| OperatorError::Blind { what, source })
    }
    one::<Project>(
        client,
        "projects.garth.dev (are the definitions installed? `garth cluster crds | kubectl apply -f -`)",
    )
    .await?;
    one::<IsolationClass>(client, "isolationclasses.garth.dev").await?;
    one::<Pod>(client, "pods").await?;
    one::<PersistentVolumeClaim>(client, "persistentvolumeclaims").await?;
    one::<NetworkPolicy>(client, "networkpolicies").await?;
    one::<ProjectTemplate>(client, "projecttemplates.garth.dev").await?;
    one::<WarmPool>(client, "warmpools.garth.dev").await?;
    one::<RuntimeClass>(client, "runtimeclasses").await?;
    one::<Event>(client, "events").await
}

/// Begins to look. The last of what it returns is to be awaited beside the rest: it keeps the copies, and never ends.
pub(super) fn open(client: &Client) -> (Sight, Changes<Project>, Changes<WarmPool>, impl Future<Output = ()> + use<>) {
    let (changed, changes) = mpsc::unbounded_channel();
    let (pool_changed, pool_changes) = mpsc::unbounded_channel();
    let mut watches: SelectAll<BoxStream<'static, About>> = SelectAll::new();
    let ours = || watcher::Config::default().labels(&format!("{}={}", MANAGED_BY.0, MANAGED_BY.1));
    let all = watcher::Config::default;
    let projects = watch(&mut watches, watcher(Api::all(client.clone()), all()), |project: &Project| {
        vec![About::Project(ObjectRef::from_obj(project))]
    });
    let (words, news) = events::listen(client, &projects);
    watches.push(news.map(About::Project).boxed());
    let sight = Sight {
        projects,
        words,
        pods: watch(&mut watches, watcher(Api::all(client.clone()), ours()), about::<Pod>),
        claims: watch(&mut watches, watcher(Api::all(client.clone()), ours()), about::<PersistentVolumeClaim>),
        policies: watch(&mut watches, watcher(Api::all(client.clone()), ours()), about::<NetworkPolicy>),
        classes: watch(&mut watches, watcher(Api::all(client.clone()), all()), |_: &IsolationClass| vec![About::All]),
        runtime_classes: watch(&mut watches, watcher(Api::all(client.clone()), all()), |_: &RuntimeClass| {
            vec![About::All]
        }),
        templates: watch(&mut watches, watcher(Api::all(client.clone()), all()), |_: &ProjectTemplate| {
            vec![About::Pools]
        }),
        pools: watch(&mut watches, watcher(Api::all(client.clone()), all()), |pool: &WarmPool| {
            vec![About::Pool(ObjectRef::from_obj(pool))]
        }),
    };
    let (projects, pools) = (sight.projects.clone(), sight.pools.clone());
    let watching = async move {
        while let Some(about) = watches.next().await {
            match &about {
                About::Project(project) => drop(changed.send(project.clone())),
                About::Pool(pool) => drop(pool_changed.send(pool.clone())),
                About::Pools | About::All => {}
            }
            if matches!(about, About::All) {
                projects.state().iter().for_each(|project| drop(changed.send(ObjectRef::from_obj(&**project))));
            }
            if matches!(about, About::Pools | About::All) {
                pools.state().iter().for_each(|pool| drop(pool_changed.send(ObjectRef::from_obj(&**pool))));
            }
        }
    };
    // The copies are kept from the first moment on, whoever waits for them.
    let kept = tokio::spawn(watching);
    let watching = async move {
        let _ended = AbortOnDrop(kept).await;
    };
    (sight, received(changes), received(pool_changes), watching)
}

fn received<K: Send + 'static>(channel: mpsc::UnboundedReceiver<K>) -> BoxStream<'static, Result<K, Infallible>> {
    let next = |mut channel: mpsc::UnboundedReceiver<K>| async {
        let one = channel.recv().await?;
        Some((Ok(one), channel))
    };
    futures::stream::unfold(channel, next).boxed()
}

/// Ends the watches with the operator that they are for.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Future for AbortOnDrop {
    type Output = Result<(), tokio::task::JoinError>;

    fn poll(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Self::Output> {
        std::pin::Pin::new(&mut self.0).poll(cx)
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Sight {
    /// Waits until every copy is whole.
    pub(super) async fn wait(&self) -> Result<(), WriterDropped> {
        self.projects.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.claims.wait_until_ready().await?;
        self.policies.wait_until_ready().await?;
        self.classes.wait_until_ready().await?;
        self.templates.wait_until_ready().await?;
        self.pools.wait_until_ready().await?;
        self.runtime_classes.wait_until_ready().await
    }
}

fn watch<K>(
    watches: &mut SelectAll<BoxStream<'static, About>>,
    events: impl futures::Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
    about: impl Fn(&K) -> Vec<About> + Send + 'static,
) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    // Who wrote which field, and what kubectl applied, is half of each object and decides nothing.
    let lean = |object: &mut K| {
        object.meta_mut().managed_fields = None;
        if let Some(annotations) = &mut object.meta_mut().annotations {
            annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        }
    };
    let seen = reflector(writer, events.default_backoff().modify(lean));
    let seen = seen.inspect_err(|error| tracing::warn!(%error, kind = %K::kind(&()), "a watch begins anew"));
    let touched = move |event| match event {
        Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object)) => about(&object),
        // The copy is whole only now, and what it no longer has, nobody was told of.
        Ok(watcher::Event::InitDone) => vec![About::All],
        Ok(watcher::Event::Init | watcher::Event::InitApply(_)) | Err(_) => Vec::new(),
    };
    watches.push(seen.flat_map(move |event| stream::iter(touched(event))).boxed());
    store
}

/// What an object belongs to: a project, a pool, or both once a project has taken it.
fn about<K: ResourceExt>(object: &K) -> Vec<About> {
    let namespace = object.namespace().unwrap_or_default();
    let label = |key| object.labels().get(key);
    let project = label(PROJECT_LABEL).map(|name| About::Project(ObjectRef::new(name).within(&namespace)));
    let pool = label(POOL_LABEL).map(|name| About::Pool(ObjectRef::new(name).within(&namespace)));
    project.into_iter().chain(pool).collect()
}

#[cfg(test)]
mod tests;
