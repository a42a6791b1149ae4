use std::fmt;

use serde::{Deserialize, Serialize};

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: Error,
}

/// What failed, at which step, why, and what to try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Error {
    /// What programs decide by; stable.
    pub code: ErrorCode,
    /// One sentence for people.
    pub message: String,
    /// What to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// The step of the operation that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Why, from the outermost cause to the innermost.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cause: Vec<String>,
}

/// Every kind of failure a client can meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request is malformed: bad JSON, an unknown field, a name or a limit that no one takes.
    InvalidRequest,
    /// No key was shown, or none that is known.
    Unauthenticated,
    /// Only the host's root, or the bearer of another key, may ask for that.
    Forbidden,
    /// No such path, project or image.
    NotFound,
    /// The path does not take this method.
    MethodNotAllowed,
    /// The name is taken.
    AlreadyExists,
    /// The project's state does not allow it, or another change got there first.
    Conflict,
    /// The project is being removed.
    BeingRemoved,
    /// The project has no sandbox and the request said not to start one.
    NotRunning,
    /// The project is paused and the request said not to resume it.
    Paused,
    /// A limit below what is used, or one that the kernel refused.
    LimitRefused,
    /// The disk of the host or of the pool is full.
    NoSpace,
    /// The runtime asked for cannot be had here; nothing weaker was started.
    RuntimeUnavailable,
    /// The runtime asked for is weaker than the least that the project may have.
    RuntimeTooWeak,
    /// The network policy cannot be carried out here; nothing was started.
    NetworkUnavailable,
    /// The pool of disks cannot be used.
    StorageUnavailable,
    /// The image holds something that is not taken, or is damaged.
    ImageRefused,
    /// The image is the start of a project or is built in.
    ImageInUse,
    /// What the runtime needs could not be made.
    SetupFailed,
    /// The sandbox could not be started.
    StartFailed,
    /// The sandbox could not be ended.
    StopFailed,
    /// The sandbox could not be paused; it runs on.
    PauseFailed,
    /// The engine that is asked does not have this.
    Unsupported,
    /// No node of the cluster had room in time.
    NoCapacity,
    /// The cluster, or the operator on it, did not do its part.
    ClusterFailed,
    /// The agent in the sandbox does not answer.
    AgentUnreachable,
    /// The store refused.
    StoreFailed,
    /// The daemon is going down.
    ShuttingDown,
    /// A mistake of ours.
    Internal,
}

impl ErrorCode {
    /// The code as it is on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::AlreadyExists => "already_exists",
            Self::Conflict => "conflict",
            Self::BeingRemoved => "being_removed",
            Self::NotRunning => "not_running",
            Self::Paused => "paused",
            Self::LimitRefused => "limit_refused",
            Self::NoSpace => "no_space",
            Self::RuntimeUnavailable => "runtime_unavailable",
            Self::RuntimeTooWeak => "runtime_too_weak",
            Self::NetworkUnavailable => "network_unavailable",
            Self::StorageUnavailable => "storage_unavailable",
            Self::ImageRefused => "image_refused",
            Self::ImageInUse => "image_in_use",
            Self::SetupFailed => "setup_failed",
            Self::StartFailed => "start_failed",
            Self::StopFailed => "stop_failed",
            Self::PauseFailed => "pause_failed",
            Self::Unsupported => "unsupported",
            Self::NoCapacity => "no_capacity",
            Self::ClusterFailed => "cluster_failed",
            Self::AgentUnreachable => "agent_unreachable",
            Self::StoreFailed => "store_failed",
            Self::ShuttingDown => "shutting_down",
            Self::Internal => "internal",
        }
    }
}

impl Error {
    /// An error of this code and message, to be filled in.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None, step: None, cause: Vec::new() }
    }

    /// The error with something to try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.cause.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_in_json_is_the_code_in_text() {
        for code in [ErrorCode::NotFound, ErrorCode::RuntimeUnavailable, ErrorCode::Internal] {
            assert_eq!(serde_json::to_value(code).ok(), Some(code.as_str().into()));
        }
    }

    #[test]
    fn an_error_says_its_causes_once() {
        let mut error = Error::new(ErrorCode::StartFailed, "starting web failed");
        error.cause = vec!["cannot mount /proc".to_owned(), "EPERM".to_owned()];
        assert_eq!(error.to_string(), "starting web failed: cannot mount /proc: EPERM");
    }
}
