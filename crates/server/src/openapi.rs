use axum::Json;
use utoipa::OpenApi;

use crate::router;
use crate::routes::agent;

#[derive(OpenApi)]
#[openapi(
    info(title = "Garth", description = "Sandboxes for agents' projects, on one machine or a cluster."),
    paths(agent::proxy),
    components(schemas(garth_api::ImageFormat))
)]
struct Base;

/// This contract as OpenAPI, made from the code that serves it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let (_, routes) = router::documented().split_for_parts();
    let mut document = Base::openapi();
    document.merge(routes);
    document
}

pub(crate) async fn serve() -> Json<utoipa::openapi::OpenApi> {
    Json(openapi())
}
