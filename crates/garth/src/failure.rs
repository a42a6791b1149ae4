//! The one error type of the command line: an exit code, and what a person or a program reads.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;

use garth_api::{Error as ApiError, ErrorCode};
use serde::Serialize;

use crate::exit::Exit;

/// A result of the command line.
pub type Result<T> = std::result::Result<T, Failure>;

/// Why a command did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    #[serde(skip)]
    pub exit: Exit,
    /// Stable, for programs.
    pub code: Cow<'static, str>,
    /// One sentence, for people.
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Box<str>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cause: Vec<String>,
}

impl Failure {
    /// A failure of this exit code; `code` is for programs.
    pub fn new(exit: Exit, code: &'static str, message: impl Into<String>) -> Self {
        Self { exit, code: code.into(), message: message.into(), hint: None, step: None, cause: Vec::new() }
    }

    /// A flag or value that is not taken.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, "usage", message)
    }

    /// A file or descriptor of ours that could not be used.
    pub fn io(message: impl Into<String>, error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::ReaderGone, "reader_gone", "whoever read the output went away");
        }
        let exit = match error.kind() {
            io::ErrorKind::NotFound => Exit::NotFound,
            io::ErrorKind::PermissionDenied => Exit::Refused,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Exit::Limit,
            _ => Exit::Failed,
        };
        Self::new(exit, "io", message).because(error)
    }

    /// What the agent sent does not fit together.
    pub fn protocol(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, "protocol", message)
            .hint("the daemon or the sandbox may be of another version: restart them (garth restart NAME)")
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds an error and what caused it.
    #[must_use]
    pub fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut next = Some(error);
        while let Some(error) = next {
            self.cause.push(words(&error.to_string()));
            next = error.source();
        }
        self
    }

    /// What is printed on stderr: the sentence, then one indented line for each thing known.
    pub fn text(&self) -> String {
        let mut text = format!("garth: {}", self.message);
        for cause in &self.cause {
            let _ = write!(text, ": {cause}");
        }
        if let Some(step) = &self.step {
            let _ = write!(text, "\n  step: {step}");
        }
        if let Some(hint) = &self.hint {
            let _ = write!(text, "\n  hint: {hint}");
        }
        text
    }

    /// What is printed on stdout with `--json`.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({ "error": self })
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self {
            exit: exit_of(error.code),
            code: error.code.as_str().into(),
            message: error.message,
            hint: error.hint,
            step: error.step.map(Into::into),
            cause: error.cause.iter().map(|cause| words(cause)).collect(),
        }
    }
}

/// A cause without the number of the system's error, which says nothing beside its words.
fn words(cause: &str) -> String {
    match cause.rsplit_once(" (os error ") {
        Some((words, number)) if number.ends_with(')') => words.to_owned(),
        _ => cause.to_owned(),
    }
}

const fn exit_of(code: ErrorCode) -> Exit {
    match code {
        ErrorCode::InvalidRequest => Exit::Usage,
        ErrorCode::NotFound => Exit::NotFound,
        ErrorCode::AlreadyExists
        | ErrorCode::Conflict
        | ErrorCode::BeingRemoved
        | ErrorCode::NotRunning
        | ErrorCode::Paused
        | ErrorCode::ImageInUse => Exit::Conflict,
        ErrorCode::ImageRefused | ErrorCode::RuntimeTooWeak | ErrorCode::Forbidden | ErrorCode::Unauthenticated => {
            Exit::Refused
        }
        ErrorCode::LimitRefused | ErrorCode::NoSpace | ErrorCode::NoCapacity => Exit::Limit,
        ErrorCode::ShuttingDown => Exit::Unreachable,
        ErrorCode::RuntimeUnavailable | ErrorCode::NetworkUnavailable | ErrorCode::Unsupported => Exit::Unavailable,
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_why_where_and_what_to_try() {
        let mut failure: Failure =
            ApiError::new(ErrorCode::StartFailed, "starting web failed").hint("garth doctor").into();
        failure.step = Some("mount /proc".into());
        failure.cause = vec!["Operation not permitted".to_owned()];
        assert_eq!(
            failure.text(),
            "garth: starting web failed: Operation not permitted\n  step: mount /proc\n  hint: garth doctor"
        );
        assert_eq!(failure.json()["error"]["code"], "start_failed");
        assert_eq!(failure.json()["error"]["cause"][0], "Operation not permitted");
    }

    #[test]
    fn a_full_disk_is_a_limit() {
        let full = io::Error::from_raw_os_error(28);
        assert_eq!(Failure::io("cannot write x", &full).exit, Exit::Limit);
        assert_eq!(Failure::from(ApiError::new(ErrorCode::NoSpace, "full")).exit, Exit::Limit);
    }
}
