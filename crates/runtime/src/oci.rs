//! Sandboxes that an installed OCI runtime makes: Sysbox (`sysbox/sysbox-runc`).
use std::path::PathBuf;

mod probe;

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
