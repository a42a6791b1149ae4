use std::io;
use std::path::{Path, PathBuf};

/// What kind of thing was wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No apt here to get a kernel from.
    #[error("{0} is not installed, and no kernel was given")]
    NoApt(&'static str),
    /// apt knows no kernel package.
    #[error("apt knows no kernel package for {0}")]
    NoKernelPackage(&'static str),
    /// A program of the distribution failed.
    #[error("{program} failed: {said}")]
    Program {
        /// Which.
        program: &'static str,
        /// Its last words.
        said: String,
    },
    /// A package that does not hold what it should.
    #[error("the package {package} {what}")]
    Package {
        /// Its name.
        package: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file that is no kernel.
    #[error("{} is {found}, not a kernel", .path.display())]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// What it looks like.
        found: &'static str,
    },
    /// A kernel for another kind of machine.
    #[error("{} is a kernel for another kind of processor", .0.display())]
    OtherMachine(PathBuf),
    /// A kernel that cannot be decompressed.
    #[error("the kernel in {} is compressed with {compression}", .path.display())]
    Compression {
        /// The file.
        path: PathBuf,
        /// What with.
        compression: &'static str,
    },
    /// A file that ends too early or does not decompress.
    #[error("{} is damaged", .0.display())]
    Truncated(PathBuf),
    /// More than anything of its kind.
    #[error("{} is larger than {} MiB", .path.display(), .limit >> 20)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// In bytes.
        limit: u64,
    },
    /// Modules were made for another kernel.
    #[error("the modules are for Linux {modules}, and the kernel is {kernel}")]
    OtherModules {
        /// The kernel's release.
        kernel: String,
        /// What the modules say.
        modules: String,
    },
    /// The kernel has it neither built in nor as a module.
    #[error("the kernel has no {0}")]
    NoModule(String),
    /// What stands there is not what was made.
    #[error("{} was changed since it was made", .0.display())]
    Changed(PathBuf),
    /// The operating system refused.
    #[error("{} cannot be {action}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was to be done with it.
        action: &'static str,
    },
    /// No room.
    #[error("no space is left")]
    NoSpace,
}

/// The guest's files could not be made or used.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
pub struct Error {
    kind: ErrorKind,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    pub(crate) fn because(kind: ErrorKind, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self { kind, source: Some(source.into()) }
    }

    /// A call for a file that failed.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| {
            let kind = match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoSpace,
                _ => ErrorKind::File { path: path.to_owned(), action },
            };
            Self::because(kind, error)
        }
    }

    /// The kind, to decide by.
    pub fn kind(&self) -> &ErrorKind {
        &self.kind
    }

    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<&'static str> {
        Some(match &self.kind {
            ErrorKind::NoApt(_) => "give a kernel with --kernel FILE and its modules with --modules DIR",
            ErrorKind::NoKernelPackage(_) => "run apt-get update, or give a kernel with --kernel FILE",
            ErrorKind::Program { program: "apt-get download", .. } => "run apt-get update and try again",
            ErrorKind::NotAKernel { .. } | ErrorKind::OtherMachine(_) => {
                "give a vmlinux or a bzImage (as /boot/vmlinuz-*) for x86-64"
            }
            ErrorKind::Compression { .. } => "give the decompressed kernel (vmlinux)",
            ErrorKind::OtherModules { .. } => "give the directory /lib/modules/RELEASE of the same kernel",
            ErrorKind::NoModule(_) => "give the kernel's modules with --modules DIR, or another kernel",
            ErrorKind::Changed(_) => "garth setup microvm",
            ErrorKind::NoSpace => "free space on the host's disk",
            _ => return None,
        })
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self { kind, source: None }
    }
}
