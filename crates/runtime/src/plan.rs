use std::net::IpAddr;
use std::path::PathBuf;

use garth_spec::{AgentConfig, Limits};
use serde::{Deserialize, Serialize};

/// Everything needed to start one sandbox. Paths are the host's and trusted; what is below them is not.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxPlan {
    /// Told in the sandbox as the machine's id, where users are mapped.
    pub machine: [u8; 16],
    /// The sandbox's host name: a label of up to 63 characters.
    pub hostname: String,
    /// The disk.
    pub root: Root,
    /// For the image `host`: what is mounted on the disk's `/usr`.
    pub usr: Option<Overlay>,
    /// A directory of the project, outside the root, that the agent keeps records in.
    pub state_dir: PathBuf,
    /// Whether its root can be written.
    pub access: Access,
    /// Capabilities that processes can have, of the level's; all of them when absent.
    pub capabilities: Option<u64>,
    /// Directories of the host that it sees; one that is below another comes after it.
    pub volumes: Vec<Volume>,
    /// A directory that no volume may show, nor anything in it.
    pub hidden: PathBuf,
    /// What it may use.
    pub limits: Limits,
    /// The content of `/etc/resolv.conf`; left as it is when absent.
    pub resolv_conf: Option<String>,
    /// More lines for `/etc/hosts`, written when the file lacks the name.
    pub hosts: Vec<(IpAddr, String)>,
    /// What the agent is told.
    pub agent: AgentConfig,
    /// Whether what is written must survive the machine.
    pub durability: Durability,
}

/// What a sandbox may do with its root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Access {
    /// All.
    #[default]
    Write,
    /// Read it; /tmp is a file system of its own then.
    Read,
}

/// A directory of the host that a sandbox sees. Whoever asks for it is trusted with it; the sandbox is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Which; links in it are followed.
    pub host: PathBuf,
    /// Where, absolute; made when it is missing.
    pub at: String,
    /// Whether the sandbox may only read it.
    pub read_only: bool,
}

/// Where the sandbox's `/` comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// This directory itself.
    Directory(PathBuf),
    /// A writable layer over a read-only one.
    Overlay(Overlay),
}

/// An overlayfs mount. No other mount may use the same `upper` and `work` at the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlay {
    /// Read only.
    pub lower: PathBuf,
    /// Takes the changes.
    pub upper: PathBuf,
    /// Scratch space on the same file system as `upper`.
    pub work: PathBuf,
}

/// What a write to the disk is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Durability {
    /// The project stays: fsync means it.
    #[default]
    Kept,
    /// The project goes with its sandbox: overlays are mounted `volatile`, so that fsync and the end cost nothing.
    Discarded,
}

/// A plan that cannot be carried out whatever the machine.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPlan {
    /// The host name is empty, too long, or holds more than letters, digits and `-`.
    #[error("{0:?} is not a host name")]
    Hostname(String),
    /// A path is not absolute.
    #[error("the path {0} is not absolute")]
    RelativePath(PathBuf),
    /// A limit is out of range.
    #[error(transparent)]
    Limit(#[from] garth_spec::InvalidLimit),
    /// A bundle for an OCI runtime has no place for this.
    #[error("sysbox-runc makes no sandbox with {0}: that needs the handler sysbox/native")]
    NotInContainer(&'static str),
}

impl SandboxPlan {
    /// A plan with defaults for all but what has none.
    pub fn new(hostname: impl Into<String>, root: Root, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            machine: [0; 16],
            hostname: hostname.into(),
            root,
            usr: None,
            state_dir: state_dir.into(),
            access: Access::default(),
            capabilities: None,
            volumes: Vec::new(),
            hidden: PathBuf::from("/"),
            limits: Limits::default(),
            resolv_conf: None,
            hosts: Vec::new(),
            agent: AgentConfig::default(),
            durability: Durability::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<(), InvalidPlan> {
        let label = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        if self.hostname.is_empty() || self.hostname.len() > 63 || !self.hostname.bytes().all(label) {
            return Err(InvalidPlan::Hostname(self.hostname.clone()));
        }
        match self.paths().find(|path| !path.is_absolute()) {
            Some(path) => return Err(InvalidPlan::RelativePath(path.clone())),
            None => self.limits.check()?,
        }
        Ok(())
    }

    /// Refuses what a container would be started without.
    pub(crate) fn check_container(&self) -> Result<(), InvalidPlan> {
        let beyond = [
            (!self.volumes.is_empty(), "volumes"),
            (self.access == Access::Read, "a read-only root"),
            (self.capabilities.is_some(), "a choice of capabilities"),
        ];
        match beyond.into_iter().find(|(asked, _)| *asked) {
            Some((_, option)) => Err(InvalidPlan::NotInContainer(option)),
            None => self.check(),
        }
    }

    fn paths(&self) -> impl Iterator<Item = &PathBuf> {
        let directory = match &self.root {
            Root::Directory(path) => Some(path),
            Root::Overlay(_) => None,
        };
        let layers = self.overlays().flat_map(|overlay| [&overlay.lower, &overlay.upper, &overlay.work]);
        directory
            .into_iter()
            .chain(layers)
            .chain([&self.state_dir])
            .chain(self.volumes.iter().map(|volume| &volume.host))
    }

    pub(crate) fn overlays(&self) -> impl Iterator<Item = &Overlay> {
        let root = match &self.root {
            Root::Directory(_) => None,
            Root::Overlay(overlay) => Some(overlay),
        };
        root.into_iter().chain(&self.usr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plans_that_no_machine_could_carry_out_are_refused() {
        let plan = |hostname: &str| SandboxPlan::new(hostname, Root::Directory("/disk".into()), "/state");
        assert_eq!(plan("web-1").check(), Ok(()));
        for name in ["", "a.b", "a b", "a\n127.0.0.1 evil", &"a".repeat(64)] {
            assert!(plan(name).check().is_err(), "{name:?}");
        }
        let relative = SandboxPlan { state_dir: "state".into(), ..plan("web") };
        assert!(relative.check().is_err());
    }
}
