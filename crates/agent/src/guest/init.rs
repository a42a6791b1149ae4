//! An image's own init as the guest's process 1, and the agent beside it.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use garth_kernel::namespace::{Fork, Namespaces, SingleThreaded, fork};
use rustix::fs::{Access, access};

use super::power;

/// Splits this process, which is process 1: that becomes the init, and what returns is a child of it. Called before
/// anything was started or watched, while there is one thread.
pub(super) fn make_way(init: &str) -> io::Result<()> {
    access(init, Access::EXEC_OK)?;
    match fork(&SingleThreaded::check()?, Namespaces::NONE, None)? {
        // A child does not inherit that (PR_SET_CHILD_SUBREAPER(2const)).
        Fork::Child => Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?),
        Fork::Parent { .. } => {
            // It is a program like others, and the agent came first.
            rustix::process::setpriority_process(None, 0)?;
            let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
            // Signals are unblocked by the library. It returns on failure only.
            let error = Command::new(init).env_clear().env("PATH", path).env("TERM", "linux").exec();
            eprintln!("garth-agent: {init}: {error}");
            power::off()
        }
    }
}
