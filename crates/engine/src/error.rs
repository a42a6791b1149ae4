use std::fmt;
use std::path::PathBuf;

use garth_spec::{
    Capability, ImageName, InvalidSpec, ProjectId, ProjectName, ProjectState, Runtime, RuntimeChoice, TransitionRefused,
};

/// What an error was caused by.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What kind of thing went wrong, for callers that decide by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No project has this name.
    #[error("there is no project {0}")]
    NoProject(ProjectName),
    /// No image has this name.
    #[error("there is no image {0}")]
    NoImage(ImageName),
    /// The name is taken.
    #[error("project {0} exists already")]
    ProjectExists(ProjectName),
    /// The name is taken.
    #[error("image {0} exists already")]
    ImageExists(ImageName),
    /// The built-in image stays.
    #[error("image {0} is built in and cannot be replaced or removed")]
    ImageBuiltIn(ImageName),
    /// Projects still read the image's files.
    #[error("image {0} is in use")]
    ImageInUse(ImageName),
    /// The project is being removed.
    #[error("project {0} is being removed")]
    BeingRemoved(ProjectName),
    /// The project has no sandbox and none was to be started.
    #[error("project {0} is not running")]
    NotRunning(ProjectName),
    /// The project is paused and was not to be resumed.
    #[error("project {0} is paused")]
    Paused(ProjectName),
    /// Only ephemeral projects go with their last hold.
    #[error("project {0} is not ephemeral: there is nothing to hold")]
    NotEphemeral(ProjectName),
    /// The project's state has no such transition.
    #[error(transparent)]
    Transition(#[from] TransitionRefused),
    /// Another change came between.
    #[error("project {0} is being changed by others")]
    Contended(ProjectName),
    /// The spec cannot be carried out anywhere.
    #[error(transparent)]
    Spec(#[from] InvalidSpec),
    /// The runtime cannot be had; nothing weaker is taken in its place.
    #[error("the runtime {runtime} is not available here: {missing}")]
    RuntimeUnavailable {
        /// What was asked for.
        runtime: RuntimeChoice,
        /// What it lacks.
        missing: String,
    },
    /// A runtime below the one that the project may have at the least.
    #[error("the runtime {runtime} is weaker than {at_least}, the least that this project may have")]
    RuntimeTooWeak {
        /// What was asked for.
        runtime: Runtime,
        /// What was promised.
        at_least: Runtime,
    },
    /// A capability that no process of the level has.
    #[error("the capability {capability} is not among those of the runtime {runtime}: nothing can be added to a level")]
    CapabilityBeyondLevel {
        /// Which.
        capability: Capability,
        /// The level.
        runtime: Runtime,
    },
    /// A directory of the host that is not there, or is not shown to sandboxes.
    #[error("a volume was refused")]
    Volume,
    /// The kernel or the pool refused a limit.
    #[error("the {what} limit {limit} was refused")]
    LimitRefused {
        /// `memory`, `disk`, …
        what: &'static str,
        /// What was asked for.
        limit: String,
    },
    /// The disk of the host, or the pool on it, is full.
    #[error("no space is left")]
    NoSpace,
    /// The pool of disks cannot be used.
    #[error("the pool of disks failed")]
    Storage,
    /// The project's disk is not there.
    #[error("the disk of the project (id {0}) is missing")]
    DiskMissing(ProjectId),
    /// The network policy cannot be carried out.
    #[error("the network failed")]
    Network,
    /// The image is damaged or holds something that is not taken.
    #[error("the image was refused")]
    Image,
    /// What guests start from could not be made.
    #[error("the guest's files could not be made")]
    Guest,
    /// The program that runs a guest refused, or ended.
    #[error("the virtual machine failed")]
    Machine,
    /// A project's files did not arrive as they were at another level.
    #[error("the project's files could not be moved to the other level; they are where they were")]
    Moved,
    /// What a paused guest had in memory cannot be used.
    #[error("the memory that was kept of the sandbox cannot be used")]
    Memory,
    /// The sandbox could not be made.
    #[error("the sandbox could not be started")]
    Start,
    /// The sandbox could not be ended.
    #[error("the sandbox could not be ended")]
    Stop,
    /// The sandbox could not be paused.
    #[error("the sandbox could not be paused")]
    Pause,
    /// More is in use than a limit would allow.
    #[error("more than that is in use")]
    InUse,
    /// The kernel did not tell what a sandbox uses, or did not take a setting.
    #[error("the sandbox's limits or usage could not be reached")]
    Sandbox,
    /// The agent did not answer.
    #[error("the agent does not answer")]
    Agent,
    /// Another daemon owns the data directory.
    #[error("{} is in use by the daemon with pid {pid}", .dir.display())]
    Locked {
        /// The data directory.
        dir: PathBuf,
        /// Who has it; 0 when it did not say.
        pid: u32,
    },
    /// The data directory cannot be used.
    #[error("the data directory {} cannot be used", .0.display())]
    DataDir(PathBuf),
    /// The store is damaged; it was left as it is.
    #[error("the store {} is damaged: {found}", .path.display())]
    StoreCorrupt {
        /// The file.
        path: PathBuf,
        /// What the check said.
        found: String,
    },
    /// The store is gone, but its backup is not.
    #[error("the store {} is missing, and a backup of it is there", .0.display())]
    StoreMissing(PathBuf),
    /// The store was written by a later version.
    #[error("the store is of version {found}; this daemon knows up to {known}")]
    StoreNewer {
        /// Its version.
        found: i64,
        /// The last one that this daemon knows.
        known: i64,
    },
    /// The store refused.
    #[error("the store failed")]
    Store,
    /// The daemon is going down.
    #[error("the daemon is going down")]
    Closing,
    /// An invariant of ours does not hold.
    #[error("a task of the engine ended unexpectedly")]
    TaskLost,
}

/// An operation that failed: what was being done, what kind of failure, at which step, and why.
#[derive(Debug)]
pub struct Error(Box<Failure>);

#[derive(Debug)]
struct Failure {
    kind: ErrorKind,
    doing: Option<String>,
    step: Option<String>,
    hint: Option<String>,
    source: Option<Cause>,
}

impl Error {
    pub(crate) fn because(kind: ErrorKind, source: impl Into<Cause>) -> Self {
        let mut error = Self::from(kind);
        error.0.source = Some(source.into());
        error
    }

    /// Says what was being done; the first to say so wins, being nearest to the failure.
    #[must_use]
    pub(crate) fn doing(mut self, doing: impl FnOnce() -> String) -> Self {
        self.0.doing.get_or_insert_with(doing);
        self
    }

    #[must_use]
    pub(crate) fn step(mut self, step: impl Into<String>) -> Self {
        self.0.step.get_or_insert_with(|| step.into());
        self
    }

    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint.get_or_insert_with(|| hint.into());
        self
    }

    #[must_use]
    pub(crate) fn maybe_hint(self, hint: Option<String>) -> Self {
        match hint {
            Some(hint) => self.hint(hint),
            None => self,
        }
    }

    /// What callers decide by.
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// The step of the operation that failed.
    pub fn failed_step(&self) -> Option<&str> {
        self.0.step.as_deref()
    }

    /// What the user can try.
    pub fn suggestion(&self) -> Option<String> {
        self.0.hint.clone().or_else(|| self.0.kind.hint())
    }

    /// The messages of the causes, outermost first.
    pub fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        let mut next: Option<&(dyn std::error::Error + 'static)> = self.0.source.as_deref().map(|cause| cause as _);
        while let Some(cause) = next {
            causes.push(cause.to_string());
            next = cause.source();
        }
        causes
    }

    /// The whole of it on one line, for the log and for `inspect`.
    pub fn chain(&self) -> String {
        self.causes().iter().fold(self.to_string(), |line, cause| format!("{line}: {cause}"))
    }
}

impl ErrorKind {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoProject(_) => "`garth ls -a` shows the projects there are".to_owned(),
            Self::NoImage(_) => {
                "`garth image ls` shows the images there are; `garth image import` makes one".to_owned()
            }
            Self::ProjectExists(name) => format!("choose another name, or `garth exec {name}` to use that project"),
            Self::ImageExists(name) => format!("choose another name, or `garth image rm {name}` first"),
            Self::NotRunning(name) => format!("garth start {name}"),
            Self::Paused(name) => format!("garth resume {name}"),
            Self::Transition(TransitionRefused { state: ProjectState::Stopped, .. }) => {
                "`garth start` has it run first".to_owned()
            }
            Self::RuntimeUnavailable { .. } => "`garth doctor` says what each runtime needs".to_owned(),
            Self::RuntimeTooWeak { at_least, .. } => format!("ask for --runtime {at_least} or a stronger one"),
            Self::NoSpace => "free space on the host's disk, or remove projects and images".to_owned(),
            Self::StoreNewer { .. } => "use the version of garth that last ran here, or a later one".to_owned(),
            Self::TaskLost => "this is a mistake in garth: please report it with the daemon's log".to_owned(),
            Self::DataDir(_) => "the daemon runs as root and needs a directory that it can write".to_owned(),
            Self::Contended(_) | Self::Closing => "try again".to_owned(),
            _ => return None,
        })
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self(Box::new(Failure { kind, doing: None, step: None, hint: None, source: None }))
    }
}

impl From<InvalidSpec> for Error {
    fn from(invalid: InvalidSpec) -> Self {
        ErrorKind::from(invalid).into()
    }
}

impl From<TransitionRefused> for Error {
    fn from(refused: TransitionRefused) -> Self {
        ErrorKind::from(refused).into()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.doing {
            Some(doing) => write!(f, "{doing}: {}", self.0.kind),
            None => self.0.kind.fmt(f),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_deref().map(|cause| cause as _)
    }
}
