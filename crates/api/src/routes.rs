//! The paths of the contract, for the server and the client alike.

use garth_spec::{ImageName, ProjectName};

/// [`crate::Version`].
pub const VERSION: &str = "/v1/version";
/// [`crate::ProjectList`]; POST takes [`crate::CreateProject`].
pub const PROJECTS: &str = "/v1/projects";
/// [`crate::ImageList`]; POST takes a tar stream, and `name` and `format` in the query.
pub const IMAGES: &str = "/v1/images";
/// [`crate::KeyList`]; POST takes [`crate::CreateKey`].
pub const KEYS: &str = "/v1/keys";
/// Whether the daemon lives; for everybody.
pub const HEALTH: &str = "/health";
/// [`crate::Doctor`].
pub const DOCTOR: &str = "/v1/doctor";
/// Takes [`crate::SetupMicrovm`]; answers with lines of [`crate::SetupEvent`].
pub const SETUP_MICROVM: &str = "/v1/setup/microvm";
/// This contract as OpenAPI 3.1.
pub const OPENAPI: &str = "/v1/openapi.json";

/// Request header: `never` keeps the agent proxy from starting a stopped project and resuming a paused one.
pub const START_HEADER: &str = "garth-start";
/// Response header on every error of the daemon's own; what the agent answers has none.
pub const ERROR_HEADER: &str = "garth-error";

/// One project.
pub fn project(name: &ProjectName) -> String {
    format!("{PROJECTS}/{name}")
}

/// Starts it.
pub fn start(name: &ProjectName) -> String {
    format!("{PROJECTS}/{name}/start")
}

/// Brings its sandbox to rest.
pub fn pause(name: &ProjectName) -> String {
    format!("{PROJECTS}/{name}/pause")
}

/// Wakes it.
pub fn resume(name: &ProjectName) -> String {
    format!("{PROJECTS}/{name}/resume")
}

/// Stops it.
pub fn stop(name: &ProjectName) -> String {
    format!("{PROJECTS}/{name}/stop")
}

/// Stops it and starts it again.
pub fn restart(name: &ProjectName) -> String {
    format!("{PROJECTS}/{name}/restart")
}

/// Checks the boundary of its sandbox.
pub fn verify(name: &ProjectName) -> String {
    format!("{PROJECTS}/{name}/verify")
}

/// Holds it for as long as the answer's body is read.
pub fn hold(name: &ProjectName) -> String {
    format!("{PROJECTS}/{name}/hold")
}

/// Its agent: `path` begins with `/` and may have a query.
pub fn agent(name: &ProjectName, path: &str) -> String {
    format!("{PROJECTS}/{name}/agent{path}")
}

/// One key.
pub fn key(id: &str) -> String {
    format!("{KEYS}/{id}")
}

/// One image.
pub fn image(name: &ImageName) -> String {
    format!("{IMAGES}/{name}")
}
