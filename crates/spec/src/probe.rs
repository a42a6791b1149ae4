use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// What the agent is asked to try from inside its sandbox. It knows nothing of what should come of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeRequest {
    /// In this order, one after the other.
    pub tries: Vec<Try>,
}

/// What came of it, in the order of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeReport {
    /// One for each try.
    pub observed: Vec<Observed>,
}

/// One attack or look. None of them leaves anything behind or harms the host, even where it succeeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Try {
    /// Reads the beginning of a file.
    Read(String),
    /// Opens a file for writing, and writes nothing.
    OpenForWrite(String),
    /// The names in a directory, one on each line.
    Entries(String),
    /// The device nodes below a directory, each as `c 1:3 name` on a line.
    Devices(String),
    /// What a symbolic link says.
    Link(String),
    /// Device and inode of a path.
    Identity(String),
    /// Makes a block device node with this number, opens it, removes it.
    BlockDevice {
        /// Its major number.
        major: u32,
        /// Its minor number.
        minor: u32,
    },
    /// Makes a system call that gives away something of the kernel.
    Call(ProbeCall),
    /// Mounts a file system of this type on a new directory, and unmounts it.
    Mount(String),
    /// Takes the read-only flag from a mount, and puts it back.
    RemountWritable(String),
    /// Whether a process with this id is there to be signalled.
    Signal(i32),
    /// Connects by TCP, and sends nothing.
    Connect(SocketAddr),
    /// Connects by TCP to itself on the loopback address.
    Loopback,
    /// Takes so many bytes of memory, in a process of its own.
    Allocate(u64),
    /// Makes threads, up to this many.
    Threads(u32),
}

/// System calls that a sandbox is tried with. Their arguments are such that they change nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeCall {
    /// A small map of `bpf(2)`.
    Bpf,
    /// A counter of `perf_event_open(2)` on the process itself.
    PerfEventOpen,
    /// The number of the session keyring, by `keyctl(2)`.
    Keyctl,
    /// A small ring of `io_uring_setup(2)`.
    IoUringSetup,
    /// A handle that leads nowhere, for `open_by_handle_at(2)`.
    OpenByHandleAt,
    /// A descriptor of `userfaultfd(2)`.
    Userfaultfd,
    /// A byte of the kernel's log, by `syslog(2)`.
    Syslog,
    /// No module at all, for `init_module(2)`.
    InitModule,
    /// A new user namespace, for a process of its own.
    UnshareUser,
}

impl ProbeCall {
    /// The system call's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::PerfEventOpen => "perf_event_open",
            Self::Keyctl => "keyctl",
            Self::IoUringSetup => "io_uring_setup",
            Self::OpenByHandleAt => "open_by_handle_at",
            Self::Userfaultfd => "userfaultfd",
            Self::Syslog => "syslog",
            Self::InitModule => "init_module",
            Self::UnshareUser => "unshare of the user namespace",
        }
    }
}

/// What came of one try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Observed {
    /// It succeeded.
    Done,
    /// The kernel refused with this error number.
    Errno(i32),
    /// It succeeded, and this was found.
    Text(String),
    /// The process that tried it was killed.
    Killed,
}
