use std::io;
use std::path::PathBuf;

/// Why a sandbox could not be started, found, changed or ended: what was being done, what went wrong.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub struct Error {
    /// What was being done, as in "mount the disk".
    pub doing: String,
    /// What went wrong.
    #[source]
    pub kind: ErrorKind,
}

/// What went wrong, for callers that decide on it.
#[derive(Debug, thiserror::Error)]
pub enum ErrorKind {
    /// The plan cannot be carried out on any machine.
    #[error(transparent)]
    Plan(#[from] crate::InvalidPlan),
    /// A sandbox with this id runs already.
    #[error("a sandbox with this id exists already")]
    Exists,
    /// A step inside the new sandbox failed; nothing of it is left.
    #[error("the step {step:?} failed inside the new sandbox")]
    Step {
        /// The step, as in `attach Root at root`.
        step: String,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The sandbox's processes do not end within the time given: one is stuck in the kernel.
    #[error("its processes did not end within {seconds} s of SIGKILL")]
    Stuck {
        /// How long was waited.
        seconds: u64,
    },
    /// The sandbox cannot be paused: one of its processes is stuck in the kernel. It runs on.
    #[error("its processes did not come to rest within {seconds} s")]
    Restless {
        /// How long was waited.
        seconds: u64,
    },
    /// A directory of the host that is not shown to a sandbox.
    #[error("{host} {why}", host = .host.display())]
    Volume {
        /// As it was asked for.
        host: PathBuf,
        /// Why not.
        why: &'static str,
    },
    /// The machine has no way to bring processes to rest.
    #[error("there is no cgroup v2 tree, by which processes are brought to rest")]
    NoFreezer,
    /// Nothing holds a sandbox to a rate of its disk.
    #[error("no sandbox can be held to a rate of its disk here: {why}")]
    NoDiskRate {
        /// What is missing.
        why: &'static str,
    },
    /// The new limit is below what is used now.
    #[error("the sandbox uses more than that now")]
    InUse,
    /// The machine has no cgroups that limits could be set in.
    #[error("no cgroup controllers for {missing} are mounted")]
    NoCgroups {
        /// The controllers that are missing.
        missing: String,
    },
    /// The path of the agent's socket is longer than a socket address takes (107 bytes).
    #[error("{0} is longer than a socket's path can be; use a shorter data directory")]
    SocketPath(PathBuf),
    /// Every range of user ids is in use.
    #[error(
        "all ranges of 65,536 user ids are in use or belong to others; give the user garth a larger one in /etc/subuid and /etc/subgid"
    )]
    NoIds,
    /// The OCI runtime refused, or did not end.
    #[error("{program} failed: {said}")]
    OciRuntime {
        /// Which program.
        program: String,
        /// Its own words.
        said: String,
    },
    /// The spawner answered out of order or not at all.
    #[error("the spawner process is gone or does not answer as expected")]
    Spawner,
    /// The system's error.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<rustix::io::Errno> for ErrorKind {
    fn from(errno: rustix::io::Errno) -> Self {
        Self::Io(errno.into())
    }
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Says what was being done when something failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<ErrorKind>> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error { doing: what(), kind: e.into() })
    }
}
