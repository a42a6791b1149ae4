//! What works on this machine.

use std::path::Path;

use garth_runtime::Level;
use garth_spec::Runtime;

mod microvm;

/// What was found, by subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What each runtime needs.
    pub runtimes: Vec<(Runtime, Vec<Finding>)>,
    /// What the pool of disks needs.
    pub storage: Vec<Finding>,
    /// What the network needs.
    pub network: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// Whether it is as it has to be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// The command or setting that mends it.
    pub fix: Option<String>,
}

impl Finding {
    /// Something that is as it has to be.
    pub(crate) fn fine(name: &str, detail: impl Into<String>) -> Self {
        Self { name: name.to_owned(), ok: true, detail: detail.into(), fix: None }
    }
}

impl From<garth_runtime::Finding> for Finding {
    fn from(found: garth_runtime::Finding) -> Self {
        let (name, fix) = (found.name.to_owned(), found.fix.map(str::to_owned));
        Self { name, ok: found.ok, detail: found.detail, fix }
    }
}

/// Looks at this machine and changes nothing; needs no daemon. The agent's program tries KVM in a process of its own.
pub fn probe(agent: &[u8], data_dir: Option<&Path>) -> Findings {
    let network = garth_network::Network::probe().into_iter().map(|found| Finding {
        name: found.name.to_owned(),
        ok: found.ok,
        detail: found.detail,
        fix: found.fix,
    });
    let runtimes = [Runtime::Default, Runtime::Sysbox, Runtime::Microvm];
    Findings {
        runtimes: runtimes.map(|runtime| (runtime, of_runtime(runtime, agent, data_dir))).into(),
        storage: vec![btrfs(), mkfs()],
        network: network.collect(),
    }
}

pub(crate) fn of_runtime(runtime: Runtime, agent: &[u8], data_dir: Option<&Path>) -> Vec<Finding> {
    match runtime {
        Runtime::Default => of_level(Level::Default),
        Runtime::Sysbox => of_level(Level::Sysbox),
        Runtime::Microvm => microvm::findings(agent, data_dir),
    }
}

/// What a runtime lacks here; `None` when it works. That the default one works is taken for granted: what it lacks, the
/// first start says.
pub(crate) fn missing(runtime: Runtime) -> Option<String> {
    let findings = match runtime {
        Runtime::Default => return None,
        Runtime::Sysbox => of_level(Level::Sysbox),
        Runtime::Microvm => vec![microvm::handler()],
    };
    let lacking = findings.into_iter().filter(|finding| !finding.ok);
    let lacking: Vec<String> = lacking.map(|finding| finding.detail).collect();
    (!lacking.is_empty()).then(|| lacking.join("; "))
}

fn of_level(level: Level) -> Vec<Finding> {
    garth_runtime::probe(level).into_iter().map(Finding::from).collect()
}

fn btrfs() -> Finding {
    let known = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    match known.lines().any(|line| line.trim_start_matches("nodev").trim() == "btrfs") {
        true => Finding::fine("btrfs", "the kernel has it: disks have hard limits and instant copies"),
        false => Finding {
            name: "btrfs".to_owned(),
            ok: false,
            detail: "this kernel has no btrfs loaded: disks have no limits (overlay driver)".to_owned(),
            fix: Some("modprobe btrfs".to_owned()),
        },
    }
}

fn mkfs() -> Finding {
    let dirs = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];
    match dirs.iter().map(|dir| std::path::Path::new(dir).join("mkfs.btrfs")).find(|path| path.exists()) {
        Some(path) => Finding::fine("mkfs.btrfs", path.display().to_string()),
        None => Finding {
            name: "mkfs.btrfs".to_owned(),
            ok: false,
            detail: "not installed; a pool file cannot be made".to_owned(),
            fix: Some("apt-get install btrfs-progs".to_owned()),
        },
    }
}
