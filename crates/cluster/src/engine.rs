//! The engine behind the gateway: the same verbs as on one machine, carried out by what it writes into Project objects.
//!
//! It holds no state but a copy of the projects, which a watch keeps; several gateways serve side by side. The bytes of
//! exec, files and terminals go from here straight to the Pod, and never through the API server.

mod connect;
mod error;
mod hold;
mod link;
mod send;
mod token;
mod translate;
mod usage;
mod verify;
mod wait;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use garth_spec::{ProjectName, ProjectSpec, Runtime, RuntimeChoice, StartPolicy};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::node::v1::RuntimeClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Map, json};

use crate::decide::{FINALIZER, choose};
use crate::resources::{DesiredState, IsolationClass, OnDelete, Project, State, WAKE};

pub use connect::connect;
pub use error::{Error, ErrorKind};
pub use hold::Hold;
pub use link::Body;
use link::Link;
pub use translate::{disk_limit, id, image_name, labels, sandbox_id, spec};
pub use usage::Usage;
pub use verify::verified;
pub use wait::why;
use wait::{Started, slept_from};

/// What an engine needs to know.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// The namespace of its projects.
    pub namespace: String,
    /// The namespace of the gateway itself, where API keys are kept.
    pub own_namespace: String,
    /// The image of projects that name none, or `host`.
    pub default_image: String,
    /// How long a start may take: nodes may have to be bought for it.
    pub start_within: Duration,
}

/// The engine; clones are the same one.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    config: EngineConfig,
    client: Client,
    projects: wait::Projects,
    /// Ways to agents, by the UIDs of their Pods.
    links: Mutex<HashMap<String, Link>>,
    holds: hold::Holds,
    closing: AtomicBool,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("config", &self.shared.config).finish_non_exhaustive()
    }
}

/// A project to make.
#[derive(Debug, Clone)]
pub struct NewProject {
    /// Its name.
    pub name: ProjectName,
    /// Whether it goes with its last hold.
    pub ephemeral: bool,
    /// What is asked of it.
    pub spec: ProjectSpec,
}

/// What a change led to.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The project as it is now.
    pub project: Arc<Project>,
    /// The spec before.
    pub before: ProjectSpec,
    /// Whether the sandbox was stopped for it.
    pub stopped: bool,
}

/// The Secret of API keys, and its entry.
const KEYS: &str = "garth-keys";
const KEYS_ENTRY: &str = "keys.json";

/// How long an operator may take to notice something.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);
/// How long a sandbox may take to end: its grace, and the kubelet's work.
const STOPPED_WITHIN: Duration = Duration::from_secs(90);

impl Engine {
    /// Begins to watch the projects of a namespace.
    ///
    /// # Errors
    /// When they cannot be read: no rights, no definitions, no API server.
    pub async fn open(client: Client, config: EngineConfig) -> Result<Self, Error> {
        let api: Api<Project> = Api::namespaced(client.clone(), &config.namespace);
        let read = api.list(&ListParams::default().limit(1)).await;
        read.map_err(|error| Error::from(error).doing("the projects of the cluster cannot be read"))?;
        let projects = wait::Projects::watch(api).await?;
        let shared = Shared {
            config,
            client,
            projects,
            links: Mutex::default(),
            holds: hold::Holds::default(),
            closing: false.into(),
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// The image of projects that name none.
    pub fn default_image(&self) -> &str {
        &self.shared.config.default_image
    }

    /// Every project, by name.
    pub fn list(&self) -> Vec<Arc<Project>> {
        let mut projects = self.shared.projects.all();
        projects.sort_by_key(|project| project.name_any());
        projects
    }

    /// One project.
    pub fn inspect(&self, name: &ProjectName) -> Result<Arc<Project>, Error> {
        self.shared.projects.find(name)
    }

    /// Makes a project; done when the operator has taken it on.
    pub async fn create(&self, new: NewProject) -> Result<Arc<Project>, Error> {
        self.check_open()?;
        let mut spec = translate::asked(&new.spec, &self.shared.config)?;
        spec.desired_state = DesiredState::Stopped;
        spec.ephemeral = new.ephemeral;
        let mut project = Project::new(new.name.as_str(), spec);
        translate::set_labels(&mut project, &new.spec.labels);
        // The operator would begin with that.
        project.finalizers_mut().push(FINALIZER.to_owned());
        if new.ephemeral {
            hold::extend(&mut project);
        }
        let made = self.api().create(&PostParams::default(), &project).await;
        let made = made.map_err(|error| match &error {
            kube::Error::Api(status) if status.reason == "AlreadyExists" => {
                ErrorKind::ProjectExists(new.name.clone()).into()
            }
            _ => Error::from(error),
        })?;
        self.shared.projects.settled(&made, NOTICED_WITHIN).await
    }

    /// The spec with the weakest runtime that this cluster can give and that is `least` or stronger.
    pub async fn at_least(&self, least: Runtime, spec: &ProjectSpec) -> Result<ProjectSpec, Error> {
        let classes = Api::<IsolationClass>::all(self.shared.client.clone()).list(&ListParams::default()).await?;
        let classes: Vec<_> = classes.items.into_iter().map(Arc::new).collect();
        let there = Api::<RuntimeClass>::all(self.shared.client.clone()).list(&ListParams::default()).await?;
        let there = there.items.iter().map(|class| class.name_any()).collect();
        let mut why = None;
        for runtime in Runtime::ALL.into_iter().filter(|runtime| *runtime >= least) {
            let spec = ProjectSpec { runtime: RuntimeChoice::Any(runtime), at_least: Some(least), ..spec.clone() };
            let project = Project::new("", translate::asked(&spec, &self.shared.config)?);
            match choose(&project, &classes, &there) {
                Ok(_) => return Ok(spec),
                Err(unavailable) => why.get_or_insert(unavailable),
            };
        }
        let why = why.map(|why| why.to_string()).unwrap_or_default();
        Err(ErrorKind::RuntimeUnavailable(why).into())
    }

    /// Has a project run; done when its agent can be reached.
    pub async fn start(&self, name: &ProjectName) -> Result<Arc<Project>, Error> {
        self.check_open()?;
        let project = self.shared.projects.find(name)?;
        check_stays(&project)?;
        let mut wanted = self.want(&project, DesiredState::Running).await?;
        loop {
            match self.shared.projects.started(&wanted, self.shared.config.start_within).await {
                Ok(Started::Awake(project)) => return Ok(project),
                // It was on its way to sleep when it was to wake.
                Ok(Started::Asleep(project)) => wanted = self.want(&project, DesiredState::Running).await?,
                Err(error) => {
                    // Nobody waits for it any more: what was to be bought for it is not.
                    let _ = self.want(&wanted, DesiredState::Stopped).await;
                    return Err(error);
                }
            }
        }
    }

    /// Has a project stopped; done when nothing of its sandbox is left.
    pub async fn stop(&self, name: &ProjectName) -> Result<Arc<Project>, Error> {
        self.check_open()?;
        let project = self.shared.projects.find(name)?;
        check_stays(&project)?;
        let wanted = self.want(&project, DesiredState::Stopped).await?;
        self.shared.projects.stopped(&wanted, STOPPED_WITHIN).await
    }

    /// Has a project run in a new sandbox.
    pub async fn restart(&self, name: &ProjectName) -> Result<Arc<Project>, Error> {
        self.stop(name).await?;
        self.start(name).await
    }

    /// Deletes a project with its disk, running or not.
    pub async fn remove(&self, name: &ProjectName) -> Result<(), Error> {
        self.check_open()?;
        let project = self.shared.projects.find(name)?;
        let whole = json!({ "spec": { "disk": { "onDelete": OnDelete::Delete } } });
        let api = self.api();
        api.patch(name.as_str(), &PatchParams::default(), &Patch::Merge(whole)).await?;
        match api.delete(name.as_str(), &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            deleted => drop(deleted?),
        }
        self.shared.projects.gone(&project, STOPPED_WITHIN).await
    }

    /// Asks something else of a project; a running sandbox has it at its next start, another runtime stops it.
    pub async fn change(
        &self,
        name: &ProjectName,
        change: impl Fn(&ProjectSpec) -> ProjectSpec,
    ) -> Result<Changed, Error> {
        self.check_open()?;
        let mut project = self.shared.projects.find(name)?;
        loop {
            match self.try_change(&project, &change).await? {
                Some(changed) => return Ok(changed),
                // The operator or another gateway was faster.
                None => project = self.shared.projects.later(&project, NOTICED_WITHIN).await?,
            }
        }
    }

    /// As [`Self::change`]; nothing if the project is no longer of this version.
    async fn try_change(
        &self,
        project: &Project,
        change: impl Fn(&ProjectSpec) -> ProjectSpec,
    ) -> Result<Option<Changed>, Error> {
        check_stays(project)?;
        let before = spec(project, &self.shared.config.default_image);
        let after = change(&before);
        let mut asked = translate::asked(&after, &self.shared.config)?;
        translate::keep(&mut asked, &project.spec);
        let stopped = before.runtime != after.runtime && project.spec.desired_state == DesiredState::Running;
        if stopped {
            asked.desired_state = DesiredState::Stopped;
        }
        let mut target = Project { spec: asked, ..project.clone() };
        translate::set_labels(&mut target, &after.labels);
        let patch = translate::merge_patch(project, &target)?;
        let patched = self.api().patch(&project.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await;
        let changed = match patched {
            Err(kube::Error::Api(status)) if status.reason == "Conflict" => return Ok(None),
            patched => patched?,
        };
        if changed.resource_version() != project.resource_version() {
            self.shared.projects.later(project, NOTICED_WITHIN).await?;
        }
        let project = match stopped {
            true => self.shared.projects.stopped(&changed, STOPPED_WITHIN).await?,
            false => self.shared.projects.settled(&changed, NOTICED_WITHIN).await?,
        };
        Ok(Some(Changed { project, before, stopped }))
    }

    /// A way to the agent of a project's sandbox, which is started where the policy says so.
    async fn agent(&self, name: &ProjectName, policy: StartPolicy) -> Result<(Arc<Project>, Link), Error> {
        let mut project = self.shared.projects.find(name)?;
        if wait::address(&project).is_none() {
            if policy == StartPolicy::Never {
                return Err(ErrorKind::NotRunning(name.clone()).into());
            }
            project = self.start(name).await?;
        }
        let address = wait::address(&project).ok_or_else(|| ErrorKind::NotRunning(name.clone()))?;
        let link = self.link(&project, address).await?;
        Ok((project, link))
    }

    /// Keeps an ephemeral project until the hold is dropped.
    pub fn hold(&self, name: &ProjectName) -> Result<Hold, Error> {
        self.check_open()?;
        hold::take(self, name)
    }

    /// Takes no more changes.
    pub fn leave(&self) {
        self.shared.closing.store(true, SeqCst);
    }

    /// What is kept of API keys, and its version.
    ///
    /// # Errors
    /// When the cluster does not show it.
    pub async fn keys(&self) -> Result<(Option<String>, Option<Vec<u8>>), Error> {
        let secret = self.own_secrets().get_opt(KEYS).await?;
        let version = secret.as_ref().and_then(|secret| secret.resource_version());
        Ok((version, secret.and_then(|secret| secret.data?.remove(KEYS_ENTRY)).map(|text| text.0)))
    }

    /// Keeps other API keys in the place of the ones of this version; false when there is another by now.
    ///
    /// # Errors
    /// When the cluster does not take it.
    pub async fn set_keys(&self, version: Option<String>, text: Vec<u8>) -> Result<bool, Error> {
        let mut secret = Secret { data: Some([(KEYS_ENTRY.to_owned(), ByteString(text))].into()), ..Secret::default() };
        secret.metadata.name = Some(KEYS.to_owned());
        secret.metadata.resource_version = version;
        let secrets = self.own_secrets();
        let written = match secret.metadata.resource_version {
            Some(_) => secrets.replace(KEYS, &PostParams::default(), &secret).await,
            None => secrets.create(&PostParams::default(), &secret).await,
        };
        match written {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            written => Ok(written.map(|_| true)?),
        }
    }

    fn own_secrets(&self) -> Api<Secret> {
        Api::namespaced(self.shared.client.clone(), &self.shared.config.own_namespace)
    }

    pub(crate) fn api(&self) -> Api<Project> {
        Api::namespaced(self.shared.client.clone(), &self.shared.config.namespace)
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.shared.closing.load(SeqCst) { Err(ErrorKind::Closing.into()) } else { Ok(()) }
    }

    /// Has the spec say whether there is to be a sandbox.
    async fn want(&self, project: &Project, state: DesiredState) -> Result<Project, Error> {
        let asleep = slept_from(project).filter(|_| state == DesiredState::Running);
        if project.spec.desired_state == state && asleep.is_none() {
            return Ok(project.clone());
        }
        let wake: Map<_, _> = asleep.map(|uid| (WAKE.to_owned(), uid.into())).into_iter().collect();
        let patch = json!({ "metadata": { "annotations": wake }, "spec": { "desiredState": state } });
        Ok(self.api().patch(&project.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await?)
    }
}

fn check_stays(project: &Project) -> Result<(), Error> {
    match project.metadata.deletion_timestamp {
        Some(_) => Err(ErrorKind::BeingRemoved(project.name_any()).into()),
        None => Ok(()),
    }
}

/// Whether a project has a whole sandbox.
pub fn is_running(project: &Project) -> bool {
    project.status.as_ref().and_then(|status| status.state) == Some(State::Running)
}
