use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use garth_api::{Changed, CreateProject, ErrorBody, ErrorCode, Project, ProjectList, ProjectPatch, StopRequest};
use garth_spec::ProjectName;
use http::StatusCode;

use crate::failure::Failure;
use crate::input::{Json, Name};
use crate::keys::Caller;
use crate::peer::Peer;
use crate::router::App;

type Answered = Result<Answer<Project>, Failure>;

/// All projects, by name.
#[utoipa::path(get, path = "/v1/projects", responses((status = 200, body = ProjectList)))]
pub(crate) async fn list(State(app): State<App>, caller: Caller) -> Answer<ProjectList> {
    let mut projects = app.engine.list();
    projects.retain(|project| caller.may_see(&project.name));
    Answer(ProjectList { projects })
}

/// Makes a project; done when its disk stands.
#[utoipa::path(
    post, path = "/v1/projects", request_body = CreateProject,
    responses((status = 201, body = Project), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn create(
    State(app): State<App>,
    peer: Peer,
    caller: Caller,
    Json(new): Json<CreateProject>,
) -> Result<(StatusCode, Answer<Project>), Failure> {
    match &new.name {
        Some(name) => caller.check_project(name)?,
        None if caller.projects.is_empty() => {}
        None => return Err(Failure::new(ErrorCode::Forbidden, "your key is for certain projects: name one of them")),
    }
    if !new.spec.spec().volumes.is_empty() {
        peer.check_root()?;
    }
    Ok((StatusCode::CREATED, Answer(app.engine.create(new).await?)))
}

/// One project, with what its sandbox and its disk use.
#[utoipa::path(
    get, path = "/v1/projects/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Project), (status = 404, body = ErrorBody))
)]
pub(crate) async fn inspect(State(app): State<App>, Name(name): Name<ProjectName>) -> Answered {
    Ok(Answer(app.engine.inspect(&name).await?))
}

/// Changes a project: limits at once, the rest at the next start; another runtime stops it.
#[utoipa::path(
    patch, path = "/v1/projects/{name}", params(("name" = String, Path)), request_body = ProjectPatch,
    responses((status = 200, body = Changed), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn patch(
    State(app): State<App>,
    Name(name): Name<ProjectName>,
    peer: Peer,
    Json(patch): Json<ProjectPatch>,
) -> Result<Answer<Changed>, Failure> {
    if !patch.volumes.is_empty() {
        peer.check_root()?;
    }
    Ok(Answer(app.engine.patch(&name, &patch).await?))
}

/// Deletes a project and its disk, running or not.
#[utoipa::path(
    delete, path = "/v1/projects/{name}", params(("name" = String, Path)),
    responses((status = 204), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn remove(State(app): State<App>, Name(name): Name<ProjectName>) -> Result<StatusCode, Failure> {
    app.engine.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Starts a project; done when its agent can be reached. One that runs stays as it is, one that is paused is resumed.
#[utoipa::path(
    post, path = "/v1/projects/{name}/start", params(("name" = String, Path)),
    responses((status = 200, body = Project), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn start(State(app): State<App>, Name(name): Name<ProjectName>) -> Answered {
    Ok(Answer(app.engine.start(&name).await?))
}

/// Pauses a running project: done when nothing in its sandbox runs. Its memory and its addresses stay. One that is
/// paused stays so.
#[utoipa::path(
    post, path = "/v1/projects/{name}/pause", params(("name" = String, Path)),
    responses((status = 200, body = Project), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn pause(State(app): State<App>, Name(name): Name<ProjectName>) -> Answered {
    Ok(Answer(app.engine.pause(&name).await?))
}

/// Has a paused project go on where it was. One that runs does already.
#[utoipa::path(
    post, path = "/v1/projects/{name}/resume", params(("name" = String, Path)),
    responses((status = 200, body = Project), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn resume(State(app): State<App>, Name(name): Name<ProjectName>) -> Answered {
    Ok(Answer(app.engine.resume(&name).await?))
}

/// Stops a project; done when nothing of its sandbox is left.
#[utoipa::path(
    post, path = "/v1/projects/{name}/stop", params(("name" = String, Path)), request_body = StopRequest,
    responses((status = 200, body = Project), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn stop(
    State(app): State<App>,
    Name(name): Name<ProjectName>,
    Json(stop): Json<StopRequest>,
) -> Answered {
    Ok(Answer(app.engine.stop(&name, grace(&stop)).await?))
}

/// Stops a project, if it runs, and starts it.
#[utoipa::path(
    post, path = "/v1/projects/{name}/restart", params(("name" = String, Path)), request_body = StopRequest,
    responses((status = 200, body = Project), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn restart(
    State(app): State<App>,
    Name(name): Name<ProjectName>,
    Json(stop): Json<StopRequest>,
) -> Answered {
    Ok(Answer(app.engine.restart(&name, grace(&stop)).await?))
}

/// A day at most: a deadline beyond that is a mistake, and overflows no clock.
fn grace(stop: &StopRequest) -> Option<Duration> {
    stop.grace_ms.map(|millis| Duration::from_millis(millis.min(86_400_000)))
}
