//! A cluster's projects as the wire has them.

use std::time::Duration;

use garth_api::{Addresses, DiskUse, Ended, EndedReason, ErrorCode, Project, RuntimeReport, Usage, Waiting};
use garth_cluster::engine::{self, Engine, ErrorKind, NewProject};
use garth_cluster::resources;
use garth_spec::{ByteSize, Handler, ProjectName, ProjectSpec, ProjectState, RuntimeChoice};
use jiff::Timestamp;

use crate::failure::Failure;
use crate::view;

pub(super) fn list(engine: &Engine) -> Vec<Project> {
    engine.list().iter().map(|one| project(engine, one)).collect()
}

pub(super) async fn create(
    engine: &Engine,
    name: Option<ProjectName>,
    ephemeral: bool,
    spec: ProjectSpec,
) -> Result<Project, Failure> {
    let name = name.unwrap_or_else(garth_engine::made_up_name);
    Ok(project(engine, &*engine.create(NewProject { name, ephemeral, spec }).await?))
}

pub(super) async fn inspect(engine: &Engine, name: &ProjectName) -> Result<Project, Failure> {
    let found = engine.inspect(name)?;
    let used = engine.usage(&found).await;
    let mut project = project(engine, &found);
    project.usage = used.map(|used| Usage {
        memory: used.memory,
        cpu_micros: used.cpu_micros,
        pids: used.pids,
        oom_kills: used.oom_kills,
    });
    if let Some(disk) = &mut project.disk {
        disk.used = used.and_then(|used| used.disk);
    }
    Ok(project)
}

pub(super) fn project(engine: &Engine, project: &resources::Project) -> Project {
    let status = project.status.clone().unwrap_or_default();
    let state = state(project, status.state);
    let sandbox = status.sandbox.as_ref().filter(|_| state.has_sandbox());
    let spec = engine::spec(project, engine.default_image());
    let choice = sandbox.and_then(|sandbox| sandbox.runtime.parse::<RuntimeChoice>().ok());
    Project {
        // The schema takes no name that is not one.
        name: project
            .metadata
            .name
            .as_deref()
            .unwrap_or_default()
            .parse()
            .unwrap_or_else(|_| garth_engine::made_up_name()),
        id: engine::id(project),
        state,
        ephemeral: project.spec.ephemeral,
        image_id: None,
        runtime: RuntimeReport {
            requested: spec.runtime,
            effective: choice.map(RuntimeChoice::runtime),
            handler: choice.and_then(handler),
            accelerator: None,
        },
        spec,
        sandbox_id: engine::sandbox_id(project).filter(|_| sandbox.is_some()),
        pid: None,
        addresses: sandbox
            .and_then(|sandbox| sandbox.address.as_deref())
            .map(|address| Addresses { ipv4: address.parse().ok(), ipv6: address.parse().ok() }),
        usage: None,
        disk: Some(DiskUse { used: None, limit: engine::disk_limit(project).map(ByteSize::bytes) }),
        created_at: project.metadata.creation_timestamp.as_ref().map_or(Timestamp::UNIX_EPOCH, time),
        started_at: sandbox.and_then(|sandbox| sandbox.started_at.as_ref()).map(time),
        waiting: waiting(project, state),
        ended: status.ended.as_ref().map(ended),
        verified: engine::verified(project).as_ref().map(view::verified),
    }
}

/// A Pod's grace is written in it when it is made.
pub(super) fn no_grace(grace: Option<Duration>) -> Result<(), Failure> {
    match grace {
        None => Ok(()),
        Some(_) => Err(Failure::new(ErrorCode::Unsupported, "a grace of one's choice is not to be had on a cluster")
            .hint("leave it out: processes have 10 s; `garth kill` ends one at once")),
    }
}

fn state(project: &resources::Project, state: Option<resources::State>) -> ProjectState {
    if project.metadata.deletion_timestamp.is_some() {
        return ProjectState::Removing;
    }
    match state {
        None => ProjectState::Creating,
        Some(resources::State::Stopped | resources::State::Suspended | resources::State::Failed) => {
            ProjectState::Stopped
        }
        Some(resources::State::Starting) => ProjectState::Starting,
        Some(resources::State::Running) => ProjectState::Running,
        Some(resources::State::Stopping) => ProjectState::Stopping,
        Some(resources::State::Removing) => ProjectState::Removing,
    }
}

fn waiting(project: &resources::Project, state: ProjectState) -> Option<Waiting> {
    if state != ProjectState::Starting {
        return None;
    }
    let (reason, message) = engine::why(project)?;
    let sandbox = project.status.as_ref().and_then(|status| status.sandbox.as_ref());
    let since = sandbox.and_then(|sandbox| sandbox.pending_since.as_ref()).map(time);
    Some(Waiting { reason: reason.to_owned(), message: message.to_owned(), since })
}

fn handler(choice: RuntimeChoice) -> Option<Handler> {
    match choice {
        RuntimeChoice::Only(handler) => Some(handler),
        RuntimeChoice::Any(_) => None,
    }
}

/// The two sides have different versions of one library.
fn time(time: &garth_cluster::Time) -> Timestamp {
    Timestamp::from_millisecond(time.0.as_millisecond()).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn ended(ended: &resources::Ended) -> Ended {
    Ended {
        at: time(&ended.at),
        reason: match ended.reason {
            resources::EndedReason::Stopped => EndedReason::Stopped,
            resources::EndedReason::Died | resources::EndedReason::OutOfMemory => EndedReason::Died,
            resources::EndedReason::Evicted | resources::EndedReason::Lost => EndedReason::Lost,
            resources::EndedReason::Idle => EndedReason::Idle,
        },
        detail: ended.detail.clone(),
    }
}

impl From<engine::Error> for Failure {
    fn from(error: engine::Error) -> Self {
        let code = match error.kind() {
            ErrorKind::NoProject(_) => ErrorCode::NotFound,
            ErrorKind::ProjectExists(_) => ErrorCode::AlreadyExists,
            ErrorKind::BeingRemoved(_) => ErrorCode::BeingRemoved,
            ErrorKind::NotRunning(_) => ErrorCode::NotRunning,
            ErrorKind::NotEphemeral(_) => ErrorCode::Conflict,
            ErrorKind::Spec(_) | ErrorKind::Refused(_) => ErrorCode::InvalidRequest,
            ErrorKind::Unsupported { .. } => ErrorCode::Unsupported,
            ErrorKind::RuntimeUnavailable(_) => ErrorCode::RuntimeUnavailable,
            ErrorKind::RuntimeTooWeak { .. } => ErrorCode::RuntimeTooWeak,
            ErrorKind::Start { .. } => ErrorCode::StartFailed,
            ErrorKind::NoCapacity(_) => ErrorCode::NoCapacity,
            ErrorKind::Agent => ErrorCode::AgentUnreachable,
            ErrorKind::Late(_) | ErrorKind::Token | ErrorKind::Forbidden(_) | ErrorKind::Api | ErrorKind::NoCluster => {
                ErrorCode::ClusterFailed
            }
            ErrorKind::Closing => ErrorCode::ShuttingDown,
            _ => ErrorCode::Internal,
        };
        let failure = Self::new(code, error.to_string()).maybe_hint(error.suggestion());
        error.causes().into_iter().fold(failure, Self::because)
    }
}
