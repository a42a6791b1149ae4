use std::path::Path;
use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{any, get};
use garth_api::{ErrorCode, routes};
use jiff::Timestamp;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes as documented;

use crate::engine::Engine;
use crate::failure::Failure;
use crate::keys::Keys;
use crate::routes::{agent, doctor, hold, images, keys, projects, setup, verify, version};
use crate::{openapi, peer};

/// What every handler can see.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) engine: Engine,
    pub(crate) keys: Arc<Keys>,
    pub(crate) data_dir: Arc<Path>,
    pub(crate) started_at: Timestamp,
}

/// Bytes of a JSON body; a project's spec may hold an environment, of which the kernel takes 2 MiB at most.
const LARGEST_JSON: usize = 4 << 20;

/// Every path, for the server and for the document that describes it.
pub(crate) fn documented() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(documented!(version::version))
        .routes(documented!(projects::list, projects::create))
        .routes(documented!(projects::inspect, projects::patch, projects::remove))
        .routes(documented!(projects::start))
        .routes(documented!(projects::pause))
        .routes(documented!(projects::resume))
        .routes(documented!(projects::stop))
        .routes(documented!(projects::restart))
        .routes(documented!(verify::verify))
        .routes(documented!(hold::hold))
        .routes(documented!(images::list, images::import))
        .routes(documented!(images::inspect, images::remove))
        .routes(documented!(keys::list, keys::create))
        .routes(documented!(keys::revoke))
        .routes(documented!(doctor::doctor))
        .routes(documented!(setup::microvm))
}

/// The whole server.
pub(crate) fn router(app: App) -> Router {
    let (router, _) = documented().split_for_parts();
    router
        .layer(DefaultBodyLimit::max(LARGEST_JSON))
        .route("/v1/projects/{name}/agent/{*path}", any(agent::proxy))
        .layer(from_fn_with_state(app.clone(), peer::guard))
        .route(routes::OPENAPI, get(openapi::serve))
        .route(routes::HEALTH, get(async || http::StatusCode::NO_CONTENT))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .with_state(app)
}

async fn unknown_path(uri: http::Uri) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("there is no path {}", uri.path()))
}

async fn unknown_method(method: http::Method, uri: http::Uri) -> Failure {
    Failure::new(ErrorCode::MethodNotAllowed, format!("{} does not take {method}", uri.path()))
}
