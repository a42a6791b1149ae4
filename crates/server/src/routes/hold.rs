use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use garth_api::ErrorBody;
use garth_spec::ProjectName;

use crate::failure::Failure;
use crate::input::Name;
use crate::router::App;

/// Holds an ephemeral project: it is removed when the last such answer is no longer read. The body says `held` and
/// goes on until the project is gone or the daemon goes down.
#[utoipa::path(
    get, path = "/v1/projects/{name}/hold", params(("name" = String, Path)),
    responses((status = 200, content_type = "text/plain", body = String), (status = "4XX", body = ErrorBody))
)]
pub(crate) async fn hold(State(app): State<App>, Name(name): Name<ProjectName>) -> Result<Body, Failure> {
    let hold = app.engine.hold(&name)?;
    let held = stream::once(std::future::ready(Ok::<_, std::convert::Infallible>(Bytes::from_static(b"held\n"))));
    let end = stream::once(async move {
        hold.broken().await;
        Ok(Bytes::new())
    });
    Ok(Body::from_stream(held.chain(end)))
}
