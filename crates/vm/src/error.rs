use std::io;

/// Words of a program that are passed on.
const LONGEST_WORDS: usize = 200;

/// What went wrong with a machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The program is not installed.
    #[error("{program} is not installed")]
    Missing {
        /// What was looked for.
        program: String,
        /// What to do.
        what: String,
    },
    /// A program of that name is there and does not answer as it should.
    #[error("{program} does not say its version")]
    NotAVmm {
        /// Its path.
        program: String,
    },
    /// The program refused an order.
    #[error("the machine refused {order}: {said}")]
    Refused {
        /// Which.
        order: String,
        /// Its words, cut to a line.
        said: String,
    },
    /// The program said nothing for too long.
    #[error("the machine does not answer {order}")]
    Silent {
        /// Which.
        order: String,
    },
    /// The program ended.
    #[error("the machine ended")]
    Gone,
    /// What the program said makes no sense.
    #[error("the machine answers {order} with what is no answer")]
    Nonsense {
        /// Which.
        order: String,
    },
    /// The host's disk is full.
    #[error("no space is left for the machine's memory")]
    NoSpace,
    /// The snapshot cannot be used.
    #[error("the snapshot is not usable: {0}")]
    Snapshot(SnapshotFault),
    /// The system's error.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
    },
}

/// Why a snapshot cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotFault {
    /// No snapshot there, or not one of ours.
    #[error("it is none of garth's")]
    Foreign,
    /// Not what was written.
    #[error("it is damaged")]
    Damaged,
    /// Of a format that this version does not read.
    #[error("it is of format {0}, which this version of garth does not read")]
    OtherFormat(u64),
    /// Written by another program.
    #[error("it was written by {wrote}, and {reads} is here")]
    OtherVmm {
        /// Who wrote it.
        wrote: String,
        /// Who would read it.
        reads: String,
    },
    /// Of a machine of another shape.
    #[error("it is of another machine")]
    OtherMachine,
}

/// See [`ErrorKind`].
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct Error {
    kind: ErrorKind,
    source: Option<io::Error>,
}

impl Error {
    /// The kind, to decide by.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<&str> {
        match &self.kind {
            ErrorKind::Missing { what, .. } => Some(what),
            _ => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn into_kind(self) -> ErrorKind {
        self.kind
    }

    pub(crate) fn missing(program: impl Into<String>, what: impl Into<String>) -> Self {
        ErrorKind::Missing { program: program.into(), what: what.into() }.into()
    }

    /// The program said no, in words that cannot be trusted: a line of them is kept, and nothing that moves a cursor.
    pub(crate) fn refused(order: &str, said: &str) -> Self {
        let line = said.lines().next().unwrap_or_default();
        let said = line.chars().filter(|letter| !letter.is_control()).take(LONGEST_WORDS).collect();
        ErrorKind::Refused { order: order.to_owned(), said }.into()
    }

    /// The program answered and nobody knows what.
    pub(crate) fn nonsense(order: &str) -> Self {
        ErrorKind::Nonsense { order: order.to_owned() }.into()
    }

    /// The program did not answer.
    pub(crate) fn silent(order: &str) -> Self {
        ErrorKind::Silent { order: order.to_owned() }.into()
    }

    /// A connection to the program that failed.
    pub(crate) fn connection(error: io::Error) -> Self {
        use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotFound};
        match error.kind() {
            BrokenPipe | ConnectionRefused | ConnectionReset | NotFound => ErrorKind::Gone.into(),
            _ => Self::io("talk to the machine")(error),
        }
    }

    /// A call of the system that failed.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let kind = match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
                _ => ErrorKind::Io { doing },
            };
            Self { kind, source: Some(source) }
        }
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, source: None }
    }
}

impl From<SnapshotFault> for Error {
    fn from(fault: SnapshotFault) -> Self {
        ErrorKind::Snapshot(fault).into()
    }
}
