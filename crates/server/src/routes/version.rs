use axum::Json;
use axum::extract::State;
use garth_api::Version;

use crate::router::App;

/// Which daemon answers.
#[utoipa::path(get, path = "/v1/version", responses((status = 200, body = Version)))]
pub(crate) async fn version(State(app): State<App>) -> Json<Version> {
    Json(Version {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        api: "v1".to_owned(),
        pid: std::process::id(),
        data_dir: app.data_dir.to_path_buf(),
        started_at: app.started_at,
    })
}
