//! Why a request about files was refused: one set of kinds for Connect and plain HTTP.

use std::io;

use connectrpc::{ConnectError, ErrorCode};
use http::StatusCode;
use rustix::io::Errno;

/// What kind of refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The request makes no sense for what is there.
    Invalid,
    /// The user is unknown.
    Unauthenticated,
    /// The kernel does not allow it.
    Denied,
    /// Nothing is there.
    NotFound,
    /// Something is there already.
    Exists,
    /// The disk is full.
    NoSpace,
    /// The kernel failed.
    Failed,
}

/// A request that was refused, and the words for the client.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// The kind.
    pub kind: Kind,
    /// For people, and for E2B's tests, which know some of them by heart.
    pub message: String,
}

impl Refusal {
    /// A refusal of this kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// A request that makes no sense.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// From a kernel's error about `path`.
    pub fn of(error: &io::Error, path: impl std::fmt::Display) -> Self {
        let kind = match Errno::from_io_error(error) {
            Some(Errno::NOENT) => return Self::new(Kind::NotFound, format!("path '{path}' does not exist")),
            Some(Errno::NOSPC | Errno::DQUOT) => return Self::new(Kind::NoSpace, "not enough disk space available"),
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => Kind::Denied,
            Some(Errno::EXIST) => Kind::Exists,
            Some(Errno::NOTDIR | Errno::ISDIR | Errno::LOOP | Errno::NAMETOOLONG | Errno::XDEV | Errno::INVAL) => {
                Kind::Invalid
            }
            _ => Kind::Failed,
        };
        Self::new(kind, format!("path '{path}': {error}"))
    }

    /// The status of plain HTTP.
    pub fn status(&self) -> StatusCode {
        match self.kind {
            Kind::Invalid => StatusCode::BAD_REQUEST,
            Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
            Kind::Denied => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::Exists => StatusCode::CONFLICT,
            Kind::NoSpace => StatusCode::INSUFFICIENT_STORAGE,
            Kind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

impl From<Refusal> for ConnectError {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal.kind {
            Kind::Invalid => ErrorCode::InvalidArgument,
            Kind::Unauthenticated => ErrorCode::Unauthenticated,
            Kind::Denied => ErrorCode::PermissionDenied,
            Kind::NotFound => ErrorCode::NotFound,
            Kind::Exists => ErrorCode::AlreadyExists,
            Kind::NoSpace => ErrorCode::ResourceExhausted,
            Kind::Failed => ErrorCode::Internal,
        };
        Self::new(code, refusal.message)
    }
}
