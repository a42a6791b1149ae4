//! What the processes of a guest may use together: a cgroup with limits that is the root of all that they see.
//!
//! ```text
//!  /sys/fs/cgroup          as the kernel made it; nothing in the sandbox sees it
//!    sandbox               the limits; `/` of a cgroup namespace (cgroup_namespaces(7))
//!      garth               the agent and what it starts; others, as containers, go beside it, and an init that is not
//!                          the agent begins above it
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

use garth_kernel::namespace::{Own, unshare};
use garth_spec::GuestLimits;
use rustix::mount::{MountFlags, UnmountFlags};

const TREE: &str = "/sys/fs/cgroup";
const CONTROLLERS: [&str; 4] = ["+cpu", "+io", "+memory", "+pids"];

/// Files of the limits. They were opened outside the namespace: from within, its root's are not to be written
/// (`nsdelegate`, cgroup-v2.rst, "Delegation").
#[derive(Debug)]
pub(super) struct Bounds {
    memory: File,
    pids: File,
}

impl Bounds {
    /// Moves this process, and with it what it starts, below limits. Called once, with nothing started yet; then
    /// [`gather`].
    pub(super) fn enter(limits: &GuestLimits) -> io::Result<Self> {
        let root = format!("{TREE}/sandbox");
        std::fs::create_dir(&root)?;
        let open = |name: &str| OpenOptions::new().write(true).open(format!("{root}/{name}"));
        let bounds = Self { memory: open("memory.max")?, pids: open("pids.max")? };
        bounds.set(limits)?;
        enter(&root)?;
        unshare(Own::Cgroups)?;
        rustix::mount::unmount(TREE, UnmountFlags::DETACH)?;
        let inert = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        rustix::mount::mount("cgroup2", TREE, "cgroup2", inert, c"")?;
        Ok(bounds)
    }

    /// Other limits from now on. The kernel reclaims, and then ends processes, to get below less memory.
    pub(super) fn set(&self, limits: &GuestLimits) -> io::Result<()> {
        (&self.memory).write_all(limits.memory.to_string().as_bytes())?;
        (&self.pids).write_all(limits.pids.to_string().as_bytes())
    }
}

/// Moves this process into a cgroup of its own, so that others can be made beside it.
pub(super) fn gather() -> io::Result<()> {
    let own = format!("{TREE}/garth");
    std::fs::create_dir(&own)?;
    enter(&own)?;
    // A kernel may lack some; and where an init is left alone here, this is the init's to do.
    for controller in CONTROLLERS {
        let _ = std::fs::write(format!("{TREE}/cgroup.subtree_control"), controller);
    }
    Ok(())
}

fn enter(cgroup: &str) -> io::Result<()> {
    std::fs::write(format!("{cgroup}/cgroup.procs"), "0")
}
