//! Why a process could not be started, in words and as the protocol's `Failed`.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;

use garth_kernel::supervise::Step;
use garth_protocol::agent::{FailReason, Failed};
use rustix::io::Errno;

/// A start that failed. Nothing of the process is left.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind.
    pub reason: FailReason,
    /// For people.
    pub message: String,
}

impl Failure {
    /// A failure of this kind.
    pub fn new(reason: FailReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// What a shell would exit with.
    pub fn exit_code(&self) -> i32 {
        match self.reason {
            FailReason::FAIL_REASON_NOT_FOUND => 127,
            FailReason::FAIL_REASON_PERMISSION
            | FailReason::FAIL_REASON_IS_DIRECTORY
            | FailReason::FAIL_REASON_NOT_EXECUTABLE
            | FailReason::FAIL_REASON_TOO_LONG => 126,
            _ => 125,
        }
    }

    /// As the protocol says it.
    pub fn message(&self) -> Failed {
        Failed {
            reason: self.reason.into(),
            message: self.message.clone(),
            exit_code: self.exit_code(),
            ..Default::default()
        }
    }

    /// From the step and `errno` that the supervisor reported.
    pub fn of_step(step: Step, errno: i32, name: &str, programs: &[CString], cwd: &str) -> Self {
        let errno = Errno::from_raw_os_error(errno);
        match step {
            Step::WorkingDirectory => {
                let reason = FailReason::FAIL_REASON_BAD_CWD;
                let why = if errno == Errno::NOENT { "does not exist".to_owned() } else { plain(errno) };
                Self::new(reason, format!("cwd '{cwd}' {why}"))
            }
            Step::Exec => Self::of_exec(errno, name, programs),
            Step::Fork => Self::of_resources(errno),
            Step::Identity => {
                Self::new(FailReason::FAIL_REASON_PERMISSION, format!("cannot change user: {}", plain(errno)))
            }
            other => Self::new(FailReason::FAIL_REASON_INTERNAL, format!("step {other:?}: {}", plain(errno))),
        }
    }

    /// Whether another try may find what this one lacked.
    pub fn is_of_resources(&self) -> bool {
        self.reason == FailReason::FAIL_REASON_NO_RESOURCES
    }

    /// From the error of making a task, a pipe or a terminal.
    pub fn of_resources(errno: Errno) -> Self {
        let message = format!("no process could be made: {}", plain(errno));
        match errno {
            Errno::AGAIN | Errno::NOMEM | Errno::MFILE | Errno::NFILE | Errno::NOSPC => {
                Self::new(FailReason::FAIL_REASON_NO_RESOURCES, message)
            }
            _ => Self::new(FailReason::FAIL_REASON_INTERNAL, message),
        }
    }

    fn of_exec(errno: Errno, name: &str, programs: &[CString]) -> Self {
        let metadata = |program: &CString| std::fs::metadata(std::ffi::OsStr::from_bytes(program.as_bytes()));
        let found = programs.iter().find_map(|program| metadata(program).ok());
        let (reason, why) = match (errno, found) {
            (Errno::ACCESS, Some(metadata)) if metadata.is_dir() => {
                (FailReason::FAIL_REASON_IS_DIRECTORY, "is a directory".to_owned())
            }
            (Errno::NOENT, Some(_)) => (FailReason::FAIL_REASON_NOT_FOUND, "its interpreter is missing".to_owned()),
            (Errno::NOENT | Errno::NOTDIR, _) => (FailReason::FAIL_REASON_NOT_FOUND, "not found".to_owned()),
            (Errno::ACCESS | Errno::PERM, _) => (FailReason::FAIL_REASON_PERMISSION, plain(errno)),
            (Errno::TOOBIG, _) => {
                (FailReason::FAIL_REASON_TOO_LONG, "arguments and environment are too long".to_owned())
            }
            (Errno::AGAIN | Errno::NOMEM, _) => (FailReason::FAIL_REASON_NO_RESOURCES, plain(errno)),
            _ => (FailReason::FAIL_REASON_NOT_EXECUTABLE, plain(errno)),
        };
        Self::new(reason, format!("{name}: {why}"))
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::of_resources(Errno::from_io_error(&error).unwrap_or(Errno::IO))
    }
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::of_resources(errno)
    }
}

/// `errno` in words, in lower case and without its number.
fn plain(errno: Errno) -> String {
    let text = std::io::Error::from(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
