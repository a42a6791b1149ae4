use axum::Json as Answer;
use axum::extract::{Path, State};
use garth_api::{CreateKey, CreatedKey, ErrorBody, KeyList};
use http::StatusCode;

use crate::failure::Failure;
use crate::input::Json;
use crate::router::App;

/// Every key, without what its bearer shows.
#[utoipa::path(get, path = "/v1/keys", responses((status = 200, body = KeyList), (status = "4XX", body = ErrorBody)))]
pub(crate) async fn list(State(app): State<App>) -> Result<Answer<KeyList>, Failure> {
    Ok(Answer(KeyList { keys: app.keys.list().await? }))
}

/// Makes a key. What its bearer shows is in this answer and nowhere else.
#[utoipa::path(
    post, path = "/v1/keys", request_body = CreateKey,
    responses((status = 201, body = CreatedKey), (status = "4XX", body = ErrorBody))
)]
pub(crate) async fn create(
    State(app): State<App>,
    Json(new): Json<CreateKey>,
) -> Result<(StatusCode, Answer<CreatedKey>), Failure> {
    Ok((StatusCode::CREATED, Answer(app.keys.create(new).await?)))
}

/// Ends a key: its bearer is let in no more.
#[utoipa::path(
    delete, path = "/v1/keys/{id}", params(("id" = String, Path)),
    responses((status = 204), (status = "4XX", body = ErrorBody))
)]
pub(crate) async fn revoke(State(app): State<App>, Path(id): Path<String>) -> Result<StatusCode, Failure> {
    app.keys.revoke(&id).await?;
    Ok(StatusCode::NO_CONTENT)
}
