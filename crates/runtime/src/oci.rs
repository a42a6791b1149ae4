//! Sandboxes that an installed OCI runtime makes: Sysbox (`sysbox/sysbox-runc`).
//!
//! ```text
//!  daemon                              holder                     sysbox-runc            process 1 of the container
//!  prepare  --exec, map users-->       user + network namespace
//!  start    bundle in the run directory; in a mount namespace of its own: disk, volumes
//!           --run------------------------------------------------> clone, mounts, …  -->  the agent, of a sealed memfd
//!           --Order: listener, state directory--------------------------------------->    /etc, filter
//!           <-Entered------------------------------------------------------------------   serves
//!  destroy  SIGKILL by pidfd; `delete`
//! ```
//!
//! The agent is told by the same order as elsewhere, on its standard input, and is executed from its standard error:
//! a container keeps what is on those places (other descriptors and paths differ between runtimes), and so it gets no
//! path of the host. The disk is mounted where nobody but the runtime sees it: a daemon that dies half-way leaves no
//! mount behind through which a clean-up could reach a project's files.
//!
//! The user namespace is made here and joined by path, with a range of ids that no other sandbox has: Sysbox by itself
//! gives all its containers the same. The network namespace belongs to it, or no sysfs could be mounted in it.
use std::path::PathBuf;

pub(crate) mod bundle;
mod container;
pub mod holder;
mod mounts;
mod places;
mod prepared;
mod probe;
mod program;

pub(crate) use container::sweep;
pub use container::{Container, ContainerRecord};
pub(crate) use places::Places;
pub use prepared::PreparedContainer;
pub(crate) use program::Program;

/// An OCI runtime of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciRuntime {
    /// Its program: a path, or a name that is looked up in `PATH`.
    pub program: PathBuf,
    /// Where the daemons listen that it needs alive.
    pub sockets: Vec<PathBuf>,
}

impl OciRuntime {
    /// Sysbox, where its packages put it. It needs both of its daemons: sysbox-mgr for ids and volumes, sysbox-fs for
    /// the files of /proc and /sys.
    pub fn sysbox() -> Self {
        Self {
            program: "sysbox-runc".into(),
            sockets: ["/run/sysbox/sysmgr.sock", "/run/sysbox/sysfs.sock"].map(PathBuf::from).into(),
        }
    }
}

/// Runs as process 1 of a container; `channel` is the daemon's. Calls `serve` once the order is carried out, and
/// returns what it returns; `None` when that failed, which is reported.
///
/// Call it first thing: the process must have one thread.
pub fn run<R>(channel: std::os::fd::OwnedFd, serve: impl FnOnce(crate::inside::Entered) -> R) -> Option<R> {
    let single = garth_kernel::namespace::SingleThreaded::check().ok()?;
    garth_kernel::signal::unblock_all().ok()?;
    let entered = crate::inside::become_container(channel.into())?;
    crate::spawner::go_on(entered, &single, serve)
}
