//! The engine that this server serves: the one of this machine, or the one of a cluster. Both have the same verbs; what only
//! one of them has is said here.

mod cluster;

use axum::body::Body;
use axum::response::Response;
use garth_api::{Changed, CreateProject, ErrorCode, NewSpec, Project, ProjectPatch, Verification};
use garth_engine::NewProject;
use garth_spec::{Handler, ProjectName, ProjectSpec, StartPolicy};
use http::Request;
use http_body_util::BodyExt as _;

use crate::failure::Failure;
use crate::view;

/// Either; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) enum Engine {
    /// Of this machine.
    Local(garth_engine::Engine),
    /// Of a cluster.
    Cluster(garth_cluster::Engine),
}

/// Keeps an ephemeral project until it is dropped.
#[derive(Debug)]
pub(crate) enum Hold {
    Local(garth_engine::Hold),
    Cluster(garth_cluster::engine::Hold),
}

impl Hold {
    /// Waits until the project is gone.
    pub(crate) async fn broken(&self) {
        match self {
            Self::Local(hold) => hold.broken().await,
            Self::Cluster(hold) => hold.broken().await,
        }
    }
}

impl Engine {
    /// The one of this machine, for what no cluster has.
    pub(crate) fn local(&self, what: &str, instead: &str) -> Result<&garth_engine::Engine, Failure> {
        match self {
            Self::Local(engine) => Ok(engine),
            Self::Cluster(_) => {
                let message = format!("{what} is not to be had on a cluster");
                Err(Failure::new(ErrorCode::Unsupported, message).hint(instead))
            }
        }
    }

    pub(crate) fn list(&self) -> Vec<Project> {
        match self {
            Self::Local(engine) => engine.list().iter().map(|project| view::project(project)).collect(),
            Self::Cluster(engine) => cluster::list(engine),
        }
    }

    pub(crate) async fn create(&self, new: CreateProject) -> Result<Project, Failure> {
        let CreateProject { name, ephemeral, spec } = new;
        match self {
            Self::Local(engine) => {
                let spec = match spec {
                    NewSpec::Whole(spec) => spec,
                    NewSpec::AtLeast(least, spec) => engine.at_least(least, &spec)?,
                };
                Ok(view::project(&*engine.create(NewProject { name, ephemeral, spec }).await?))
            }
            Self::Cluster(engine) => {
                let spec = match spec {
                    NewSpec::Whole(spec) => spec,
                    NewSpec::AtLeast(least, spec) => engine.at_least(least, &spec).await?,
                };
                cluster::create(engine, name, ephemeral, spec).await
            }
        }
    }

    pub(crate) async fn inspect(&self, name: &ProjectName) -> Result<Project, Failure> {
        match self {
            Self::Local(engine) => Ok(view::inspection(&engine.inspect(name).await?)),
            Self::Cluster(engine) => cluster::inspect(engine, name).await,
        }
    }

    pub(crate) async fn patch(&self, name: &ProjectName, patch: &ProjectPatch) -> Result<Changed, Failure> {
        let (project, before, stopped) = match self {
            Self::Local(engine) => {
                let changed = engine.change(name, |spec| patch.apply(spec)).await?;
                (view::project(&changed.project), changed.before, changed.stopped)
            }
            Self::Cluster(engine) => {
                let changed = engine.change(name, |spec| patch.apply(spec)).await?;
                (cluster::project(engine, &changed.project), changed.before, changed.stopped)
            }
        };
        let has_sandbox = project.state.has_sandbox();
        let handler = project.runtime.handler;
        let at_next_start = if has_sandbox { self.waiting(&before, &project.spec, handler) } else { Vec::new() };
        Ok(Changed { project, at_next_start, stopped })
    }

    /// The fields in which a running sandbox still is what it was.
    fn waiting(&self, before: &ProjectSpec, after: &ProjectSpec, handler: Option<Handler>) -> Vec<String> {
        let rates = |spec: &ProjectSpec| (spec.limits.disk_rate, spec.limits.disk_iops);
        let mut differs = vec![
            // All others on this machine hold a disk to another rate at once.
            ("limits", handler == Some(Handler::MicrovmCloudHypervisor) && rates(before) != rates(after)),
            ("network", before.network != after.network),
            ("env", before.env != after.env),
            ("user", before.user != after.user),
            ("workdir", before.workdir != after.workdir),
            ("init", before.init != after.init),
            ("read_only", before.read_only != after.read_only),
            ("capabilities", before.capabilities != after.capabilities),
            ("volumes", before.volumes != after.volumes),
            ("no_new_privs", before.no_new_privs != after.no_new_privs),
        ];
        if let Self::Cluster(_) = self {
            // A policy is changed beside the Pod, and holds at once; limits are changed in it.
            differs.retain(|(field, _)| !matches!(*field, "network" | "limits"));
        }
        differs.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field.to_owned()).collect()
    }

    pub(crate) async fn remove(&self, name: &ProjectName) -> Result<(), Failure> {
        match self {
            Self::Local(engine) => Ok(engine.remove(name).await?),
            Self::Cluster(engine) => Ok(engine.remove(name).await?),
        }
    }

    pub(crate) async fn start(&self, name: &ProjectName) -> Result<Project, Failure> {
        match self {
            Self::Local(engine) => Ok(view::project(&*engine.start(name).await?)),
            Self::Cluster(engine) => Ok(cluster::project(engine, &*engine.start(name).await?)),
        }
    }

    pub(crate) async fn pause(&self, name: &ProjectName) -> Result<Project, Failure> {
        let engine = self.local("to pause", "`garth stop` keeps the files; what is in memory goes")?;
        Ok(view::project(&*engine.pause(name).await?))
    }

    pub(crate) async fn resume(&self, name: &ProjectName) -> Result<Project, Failure> {
        match self {
            Self::Local(engine) => Ok(view::project(&*engine.resume(name).await?)),
            // Nothing is paused here.
            Self::Cluster(_) => self.start(name).await,
        }
    }

    pub(crate) async fn stop(
        &self,
        name: &ProjectName,
        grace: Option<std::time::Duration>,
    ) -> Result<Project, Failure> {
        match self {
            Self::Local(engine) => Ok(view::project(&*engine.stop(name, grace).await?)),
            Self::Cluster(engine) => {
                cluster::no_grace(grace)?;
                Ok(cluster::project(engine, &*engine.stop(name).await?))
            }
        }
    }

    pub(crate) async fn restart(
        &self,
        name: &ProjectName,
        grace: Option<std::time::Duration>,
    ) -> Result<Project, Failure> {
        match self {
            Self::Local(engine) => Ok(view::project(&*engine.restart(name, grace).await?)),
            Self::Cluster(engine) => {
                cluster::no_grace(grace)?;
                Ok(cluster::project(engine, &*engine.restart(name).await?))
            }
        }
    }

    pub(crate) async fn verify(&self, name: &ProjectName) -> Result<Verification, Failure> {
        Ok(view::verification(match self {
            Self::Local(engine) => engine.verify(name).await?,
            Self::Cluster(engine) => engine.verify(name).await?,
        }))
    }

    pub(crate) fn hold(&self, name: &ProjectName) -> Result<Hold, Failure> {
        match self {
            Self::Local(engine) => Ok(Hold::Local(engine.hold(name)?)),
            Self::Cluster(engine) => Ok(Hold::Cluster(engine.hold(name)?)),
        }
    }

    /// Passes a request to the agent of a project, which is started where the policy says so.
    pub(crate) async fn send(
        &self,
        name: &ProjectName,
        policy: StartPolicy,
        request: Request<Body>,
    ) -> Result<Response<Body>, Failure> {
        let request = request.map(|body| body.map_err(Into::into).boxed_unsync());
        match self {
            Self::Local(engine) => Ok(engine.agent(name, policy).await?.send(request).await?.map(Body::new)),
            Self::Cluster(engine) => Ok(engine.send(name, policy, request).await?.map(Body::new)),
        }
    }

    /// Whether directories of the host are, or will be, in a project's sandbox.
    pub(crate) fn has_volumes(&self, name: &ProjectName) -> bool {
        match self {
            Self::Local(engine) => engine.has_volumes(name),
            Self::Cluster(_) => false,
        }
    }

    /// Takes no more changes.
    pub(crate) fn leave(&self) {
        match self {
            Self::Local(engine) => engine.leave(),
            Self::Cluster(engine) => engine.leave(),
        }
    }

    /// Finishes what is under way. Sandboxes go on running.
    pub(crate) async fn close(self) -> Result<(), garth_engine::Error> {
        match self {
            Self::Local(engine) => engine.close().await,
            Self::Cluster(_) => Ok(()),
        }
    }
}
