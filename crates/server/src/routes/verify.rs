use axum::Json as Answer;
use axum::extract::State;
use garth_api::{ErrorBody, Verification};
use garth_spec::ProjectName;

use crate::failure::Failure;
use crate::input::Name;
use crate::router::App;

/// Checks the boundary of a project's sandbox, from inside it and from this host, and keeps the outcome; a stopped
/// project is started. A check that fails is part of the answer, not an error.
#[utoipa::path(
    post, path = "/v1/projects/{name}/verify", params(("name" = String, Path)),
    responses((status = 200, body = Verification), (status = "4XX", body = ErrorBody), (status = "5XX", body = ErrorBody))
)]
pub(crate) async fn verify(
    State(app): State<App>,
    Name(name): Name<ProjectName>,
) -> Result<Answer<Verification>, Failure> {
    Ok(Answer(app.engine.verify(&name).await?))
}
