use std::io;
use std::path::{Path, PathBuf};

use garth_spec::{ByteSize, ImageId, ProjectId};
use rustix::io::Errno;

/// What kind of thing went wrong, for callers that decide by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No image has this id.
    #[error("there is no image {0}")]
    ImageMissing(ImageId),
    /// An image with this id exists already.
    #[error("image {0} exists already")]
    ImageExists(ImageId),
    /// Disks still read the image's files (overlay driver only).
    #[error("image {0} is in use by the disk of project {1}")]
    ImageInUse(ImageId, ProjectId),
    /// The project has no disk.
    #[error("project {0} has no disk")]
    DiskMissing(ProjectId),
    /// The project has a disk already.
    #[error("project {0} has a disk already")]
    DiskExists(ProjectId),
    /// A limit that the disk has outgrown.
    #[error("the disk uses {used} bytes, more than the wanted limit of {limit}")]
    LimitBelowUse {
        /// What the disk uses, in bytes.
        used: u64,
        /// The limit that was asked for.
        limit: ByteSize,
    },
    /// The pool, or the host's filesystem below it, is full.
    #[error("no space is left")]
    NoSpace,
    /// A program that the driver needs is not installed.
    #[error("the program {program} is not installed")]
    ProgramMissing {
        /// The program.
        program: &'static str,
        /// The Debian package that has it.
        package: &'static str,
    },
    /// A program that the driver needs failed; its last words.
    #[error("{program} failed: {output}")]
    ProgramFailed {
        /// The program.
        program: &'static str,
        /// What it wrote to stderr.
        output: String,
    },
    /// Only the btrfs driver has this.
    #[error("the pool has no btrfs, which disks of microVMs need")]
    NeedsBtrfs,
    /// The kernel has no btrfs.
    #[error("this kernel has no btrfs")]
    NoBtrfs,
    /// No loop device could be had.
    #[error("no loop device is to be had")]
    NoLoopDevice,
    /// The kernel does not let this process mount.
    #[error("this process is not allowed to mount")]
    MountRefused,
    /// Subvolumes and quotas are for root of the machine.
    #[error("in a user namespace btrfs makes no subvolumes and no quotas")]
    InUserNamespace,
    /// The pool's filesystem is damaged or not ours; nothing was changed.
    #[error("the pool is damaged or is not a pool of Garth")]
    Corrupt,
    /// The pool was made with another driver than the one asked for.
    #[error("the pool was made with the {0} driver")]
    OtherDriver(&'static str),
    /// Something still uses the pool.
    #[error("the pool is in use")]
    Busy,
    /// Any other refusal of the operating system.
    #[error("the operating system refused")]
    Io,
}

/// A storage operation that failed: what kind, at which step, on which path, and why.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step} ({}): {kind}", path.display())]
pub struct Error {
    kind: ErrorKind,
    step: &'static str,
    path: PathBuf,
    source: Option<io::Error>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, step: &'static str, path: &Path) -> Self {
        Self { kind, step, path: path.to_owned(), source: None }
    }

    pub(crate) fn because(self, source: io::Error) -> Self {
        Self { source: Some(source), ..self }
    }

    /// The kind, to decide by.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What was being done.
    pub fn step(&self) -> &'static str {
        self.step
    }

    /// Is it only that this machine cannot run the btrfs driver? Never true of a full disk or damage.
    pub(crate) fn is_missing_feature(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::ProgramMissing { .. }
                | ErrorKind::NoBtrfs
                | ErrorKind::NoLoopDevice
                | ErrorKind::MountRefused
                | ErrorKind::InUserNamespace
        )
    }

    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<String> {
        Some(match &self.kind {
            ErrorKind::NoSpace => "free space on the host's disk, or remove projects and images".to_owned(),
            ErrorKind::ProgramMissing { package, .. } => format!("apt-get install {package}"),
            ErrorKind::LimitBelowUse { .. } => {
                "delete files in the project first, or ask for a larger limit".to_owned()
            }
            ErrorKind::ImageInUse(..) => "remove the projects made from it first".to_owned(),
            ErrorKind::NoBtrfs | ErrorKind::NoLoopDevice | ErrorKind::MountRefused | ErrorKind::InUserNamespace => {
                "use the overlay driver, which has no quotas".to_owned()
            }
            ErrorKind::Corrupt => format!(
                "check it with `btrfs check --readonly {0}`; to begin anew without its projects, move {0} away",
                self.path.display()
            ),
            ErrorKind::NeedsBtrfs => "use a new data directory on a machine with btrfs (modprobe btrfs)".to_owned(),
            ErrorKind::Busy => "stop the sandboxes that use it first".to_owned(),
            _ => return None,
        })
    }
}

/// Adds the step and the path to an error of the operating system.
pub(crate) trait At<T> {
    fn at(self, step: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|error| {
            let source = error.into();
            let full = [Errno::NOSPC, Errno::DQUOT].map(|e| Some(e.raw_os_error())).contains(&source.raw_os_error());
            let kind = if full { ErrorKind::NoSpace } else { ErrorKind::Io };
            Error::new(kind, step, path).because(source)
        })
    }
}
