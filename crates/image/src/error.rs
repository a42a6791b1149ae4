use std::io;
use std::path::Path;

/// What kind of thing was wrong with an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The stream ends too early or is damaged.
    #[error("the image is truncated or damaged")]
    Truncated,
    /// The stream is none of the formats that are known.
    #[error("this is no root filesystem tar, docker-archive or OCI layout: {0}")]
    UnknownFormat(String),
    /// An archive that holds more than one image.
    #[error("the archive holds {0} images; export one")]
    SeveralImages(usize),
    /// A device node.
    #[error("it holds the device node {0:?}")]
    DeviceNode(String),
    /// A path or link that leaves the image.
    #[error("the path {0:?} leaves the image")]
    Escape(String),
    /// Content that is not what its digest says.
    #[error("the content of {0} does not match its digest")]
    DigestMismatch(String),
    /// More than an import may hold.
    #[error("it exceeds the limit of {limit} {what}")]
    TooMuch {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// An image for another kind of machine.
    #[error("it is for {image}, and this machine is {machine}")]
    OtherPlatform {
        /// What the image says, as `linux/arm64`.
        image: String,
        /// What this machine is.
        machine: String,
    },
    /// Compressed in a way that is not known.
    #[error("it is compressed with {0}")]
    Compression(&'static str),
    /// A document in the image that means nothing.
    #[error("its {0} is not valid")]
    BadDocument(String),
    /// No room for it.
    #[error("no space is left for it")]
    NoSpace,
    /// The operating system refused to write a file of it.
    #[error("{0:?} could not be written")]
    Write(String),
    /// The machine keeps programs outside `/usr`, so that its `/usr` alone is no system.
    #[error("this machine's {0} is not a link into /usr")]
    HostNotMerged(String),
    /// A program that is needed is not installed.
    #[error("the program {0} is not installed")]
    ProgramMissing(&'static str),
    /// The pool refused.
    #[error("the pool refused it")]
    Storage,
}

/// An image that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot import the image: {kind}")]
pub struct Error {
    kind: ErrorKind,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind) -> Self {
        Self { kind, source: None }
    }

    pub(crate) fn because(self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { source: Some(source.into()), ..self }
    }

    /// The kind, to decide by.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match &self.kind {
            ErrorKind::Truncated => "export or download it again",
            ErrorKind::DeviceNode(_) => {
                "make it without its /dev, as with `tar --exclude=./dev`; a sandbox gets its own"
            }
            ErrorKind::UnknownFormat(_) => "name the format with --format",
            ErrorKind::OtherPlatform { .. } => "import the variant for this machine",
            ErrorKind::Compression(_) => "decompress it first; plain, gzip and zstd are taken",
            ErrorKind::HostNotMerged(_) => "import an image instead, as with `garth image import`",
            ErrorKind::ProgramMissing(_) => "apt-get install erofs-utils",
            ErrorKind::NoSpace => "free space on the host's disk, or remove projects and images",
            _ => return None,
        })
    }
}

impl From<garth_storage::Error> for Error {
    fn from(error: garth_storage::Error) -> Self {
        let kind = match error.kind() {
            garth_storage::ErrorKind::NoSpace => ErrorKind::NoSpace,
            _ => ErrorKind::Storage,
        };
        Self::new(kind).because(error)
    }
}

impl Error {
    /// What a failed write of the image's file at `path` means.
    pub(crate) fn write(path: &Path, error: impl Into<io::Error>) -> Self {
        let error = error.into();
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            _ => ErrorKind::Write(path.display().to_string()),
        };
        Self::new(kind).because(error)
    }
}

/// A failed read of the stream, which may carry an error of ours from a reader further down.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        let error = match error.downcast::<Self>() {
            Ok(ours) => return ours,
            Err(other) => other,
        };
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
            _ => ErrorKind::Truncated,
        };
        Self::new(kind).because(error)
    }
}
