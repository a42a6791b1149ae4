use std::sync::Arc;
use std::time::Duration;

use axum::Json as Answer;
use axum::extract::State;
use garth_api::{Changed, CreateProject, ErrorBody, NewSpec, Project, ProjectList, ProjectPatch, StopRequest};
use garth_engine::NewProject;
use garth_spec::{Handler, ProjectName, ProjectSpec};
use http::StatusCode;

use crate::failure::Failure;
use crate::input::{Json, Name};
use crate::peer::Peer;
use crate::router::App;
use crate::view;

type Answered = Result<Answer<Project>, Failure>;

fn answer(project: Arc<garth_engine::Project>) -> Answer<Project> {
    Answer(view::project(&project))
}

/// All projects, by name.
#[utoipa::path(get, path = "/v1/projects", responses((status = 200, body = ProjectList)))]
pub(crate) async fn list(State(app): State<App>) -> Answer<ProjectList> {
    let projects = app.engine.list();
    Answer(ProjectList { projects: projects.iter().map(|project| view::project(project)).collect() })
}

/// Makes a project; done when its disk stands.
#[utoipa::path(
    post, path = "/v1/projects", request_body = CreateProject,
    responses((status = 201, body = Project), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn create(
    State(app): State<App>,
    peer: Peer,
    Json(new): Json<CreateProject>,
) -> Result<(StatusCode, Answer<Project>), Failure> {
    if !new.spec.spec().volumes.is_empty() {
        peer.check_root()?;
    }
    let spec = match new.spec {
        NewSpec::Whole(spec) => spec,
        NewSpec::AtLeast(least, spec) => app.engine.at_least(least, &spec)?,
    };
    let new = NewProject { name: new.name, ephemeral: new.ephemeral, spec };
    Ok((StatusCode::CREATED, answer(app.engine.create(new).await?)))
}

/// One project, with what its sandbox and its disk use.
#[utoipa::path(
    get, path = "/v1/projects/{name}", params(("name" = String, Path)),
    responses((status = 200, body = Project), (status = 404, body = ErrorBody))
)]
pub(crate) async fn inspect(State(app): State<App>, Name(name): Name<ProjectName>) -> Answered {
    Ok(Answer(view::inspection(&app.engine.inspect(&name).await?)))
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
    let changed = app.engine.change(&name, |spec| patch.apply(spec)).await?;
    let at_next_start =
        changed.project.sandbox.as_ref().map(|entry| waiting(&changed.before, &changed.project.spec, entry.handler));
    let at_next_start = at_next_start.unwrap_or_default();
    Ok(Answer(Changed { project: view::project(&changed.project), at_next_start, stopped: changed.stopped }))
}

/// The fields in which a running sandbox still is what it was.
fn waiting(before: &ProjectSpec, after: &ProjectSpec, handler: Handler) -> Vec<String> {
    let rates = |spec: &ProjectSpec| (spec.limits.disk_rate, spec.limits.disk_iops);
    let differs = [
        // All others hold a disk to another rate at once.
        ("limits", handler == Handler::MicrovmCloudHypervisor && rates(before) != rates(after)),
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
    differs.into_iter().filter(|(_, differs)| *differs).map(|(field, _)| field.to_owned()).collect()
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
    Ok(answer(app.engine.start(&name).await?))
}

/// Pauses a running project: done when nothing in its sandbox runs. Its memory and its addresses stay. One that is
/// paused stays so.
#[utoipa::path(
    post, path = "/v1/projects/{name}/pause", params(("name" = String, Path)),
    responses((status = 200, body = Project), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn pause(State(app): State<App>, Name(name): Name<ProjectName>) -> Answered {
    Ok(answer(app.engine.pause(&name).await?))
}

/// Has a paused project go on where it was. One that runs does already.
#[utoipa::path(
    post, path = "/v1/projects/{name}/resume", params(("name" = String, Path)),
    responses((status = 200, body = Project), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn resume(State(app): State<App>, Name(name): Name<ProjectName>) -> Answered {
    Ok(answer(app.engine.resume(&name).await?))
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
    Ok(answer(app.engine.stop(&name, grace(&stop)).await?))
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
    Ok(answer(app.engine.restart(&name, grace(&stop)).await?))
}

/// A day at most: a deadline beyond that is a mistake, and overflows no clock.
fn grace(stop: &StopRequest) -> Option<Duration> {
    stop.grace_ms.map(|millis| Duration::from_millis(millis.min(86_400_000)))
}
