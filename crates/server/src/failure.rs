//! Errors on the wire. The only place that knows status codes.

use axum::Json;
use axum::response::{IntoResponse, Response};
use garth_api::{Error, ErrorBody, ErrorCode, routes};
use garth_engine::ErrorKind;
use http::{HeaderValue, StatusCode};

/// An answer that is not a success.
#[derive(Debug)]
pub(crate) struct Failure(Box<Error>);

impl Failure {
    pub(crate) fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(Box::new(Error::new(code, message)))
    }

    pub(crate) fn because(mut self, cause: impl std::fmt::Display) -> Self {
        self.0.cause.push(cause.to_string());
        self
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        self.maybe_hint(Some(hint.into()))
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.0.hint = hint.or(self.0.hint);
        self
    }

    /// The error as the wire has it.
    pub(crate) fn into_error(self) -> Error {
        *self.0
    }
}

impl From<garth_engine::Error> for Failure {
    fn from(error: garth_engine::Error) -> Self {
        let code = code(error.kind());
        let level_is_error = status(code).is_server_error();
        let failure = Self(Box::new(Error {
            code,
            message: error.to_string(),
            hint: error.suggestion(),
            step: error.failed_step().map(str::to_owned),
            cause: error.causes(),
        }));
        if level_is_error {
            tracing::error!(%code, error = error.chain(), step = error.failed_step(), "request failed");
        }
        failure
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = self.0.code;
        let mut answer = (status(code), Json(ErrorBody { error: *self.0 })).into_response();
        answer.headers_mut().insert(routes::ERROR_HEADER, HeaderValue::from_static(code.as_str()));
        answer
    }
}

/// What clients decide by.
fn code(kind: &ErrorKind) -> ErrorCode {
    match kind {
        ErrorKind::NoProject(_) | ErrorKind::NoImage(_) => ErrorCode::NotFound,
        ErrorKind::ProjectExists(_) | ErrorKind::ImageExists(_) => ErrorCode::AlreadyExists,
        ErrorKind::ImageBuiltIn(_) | ErrorKind::ImageInUse(_) => ErrorCode::ImageInUse,
        ErrorKind::BeingRemoved(_) => ErrorCode::BeingRemoved,
        ErrorKind::NotRunning(_) => ErrorCode::NotRunning,
        ErrorKind::Paused(_) => ErrorCode::Paused,
        ErrorKind::NotEphemeral(_) | ErrorKind::Transition(_) | ErrorKind::Contended(_) => ErrorCode::Conflict,
        ErrorKind::Spec(_) | ErrorKind::Volume | ErrorKind::CapabilityBeyondLevel { .. } => ErrorCode::InvalidRequest,
        ErrorKind::RuntimeUnavailable { .. } => ErrorCode::RuntimeUnavailable,
        ErrorKind::RuntimeTooWeak { .. } => ErrorCode::RuntimeTooWeak,
        ErrorKind::LimitRefused { .. } | ErrorKind::InUse => ErrorCode::LimitRefused,
        ErrorKind::NoSpace => ErrorCode::NoSpace,
        ErrorKind::Storage | ErrorKind::DiskMissing(_) => ErrorCode::StorageUnavailable,
        ErrorKind::Network => ErrorCode::NetworkUnavailable,
        ErrorKind::Image => ErrorCode::ImageRefused,
        ErrorKind::Guest => ErrorCode::SetupFailed,
        ErrorKind::Start | ErrorKind::Sandbox | ErrorKind::Machine | ErrorKind::Moved => ErrorCode::StartFailed,
        ErrorKind::Stop => ErrorCode::StopFailed,
        ErrorKind::Pause | ErrorKind::Memory => ErrorCode::PauseFailed,
        ErrorKind::Agent => ErrorCode::AgentUnreachable,
        ErrorKind::Store
        | ErrorKind::StoreCorrupt { .. }
        | ErrorKind::StoreMissing(_)
        | ErrorKind::StoreNewer { .. }
        | ErrorKind::DataDir(_) => ErrorCode::StoreFailed,
        ErrorKind::Locked { .. } => ErrorCode::Conflict,
        ErrorKind::Closing => ErrorCode::ShuttingDown,
        _ => ErrorCode::Internal,
    }
}

/// What HTTP calls it.
fn status(code: ErrorCode) -> StatusCode {
    match code {
        ErrorCode::InvalidRequest => StatusCode::BAD_REQUEST,
        ErrorCode::Unauthenticated => StatusCode::UNAUTHORIZED,
        ErrorCode::Forbidden => StatusCode::FORBIDDEN,
        ErrorCode::NotFound => StatusCode::NOT_FOUND,
        ErrorCode::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        ErrorCode::AlreadyExists
        | ErrorCode::Conflict
        | ErrorCode::BeingRemoved
        | ErrorCode::NotRunning
        | ErrorCode::Paused
        | ErrorCode::ImageInUse => StatusCode::CONFLICT,
        ErrorCode::LimitRefused
        | ErrorCode::ImageRefused
        | ErrorCode::RuntimeUnavailable
        | ErrorCode::RuntimeTooWeak
        | ErrorCode::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
        ErrorCode::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
        ErrorCode::AgentUnreachable | ErrorCode::ClusterFailed => StatusCode::BAD_GATEWAY,
        ErrorCode::NetworkUnavailable
        | ErrorCode::StorageUnavailable
        | ErrorCode::NoCapacity
        | ErrorCode::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::SetupFailed
        | ErrorCode::StartFailed
        | ErrorCode::StopFailed
        | ErrorCode::PauseFailed
        | ErrorCode::StoreFailed
        | ErrorCode::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
