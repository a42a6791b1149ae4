//! What works on this machine.

use garth_runtime::{Level, OciRuntime};
use garth_spec::{Handler, Runtime, RuntimeChoice};

use crate::error::{Error, ErrorKind};
use crate::guest::GuestConfig;

pub(crate) mod boots;
pub(crate) mod microvm;

/// What was found, by subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What each handler needs.
    pub runtimes: Vec<(Handler, Vec<Finding>)>,
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

/// What is known of where sandboxes are to run.
#[derive(Debug, Clone, Copy)]
pub struct Here<'a> {
    /// The agent's program: it tries KVM in a process of its own.
    pub agent: &'a [u8],
    /// How microVMs are run.
    pub guests: &'a GuestConfig,
}

/// Looks at this machine and changes nothing; needs no daemon.
pub fn probe(here: &Here<'_>) -> Findings {
    let network = garth_network::Network::probe().into_iter().map(|found| Finding {
        name: found.name.to_owned(),
        ok: found.ok,
        detail: found.detail,
        fix: found.fix,
    });
    Findings {
        runtimes: Handler::ALL.map(|handler| (handler, with_boot(handler, here))).into(),
        storage: vec![btrfs(), mkfs()],
        network: network.collect(),
    }
}

fn with_boot(handler: Handler, here: &Here<'_>) -> Vec<Finding> {
    let mut findings = of_handler(handler, here);
    if handler.runtime() == Runtime::Microvm && findings.iter().all(|finding| finding.ok) {
        findings.extend(boots::known(handler, here));
    }
    findings
}

pub(crate) fn of_handler(handler: Handler, here: &Here<'_>) -> Vec<Finding> {
    let found = match handler {
        Handler::DefaultNative => garth_runtime::probe(Level::Default),
        Handler::SysboxNative => garth_runtime::probe(Level::Sysbox),
        Handler::SysboxRunc => OciRuntime::sysbox().probe(),
        Handler::MicrovmQemu | Handler::MicrovmFirecracker | Handler::MicrovmCloudHypervisor => {
            return microvm::findings(handler, here);
        }
    };
    found.into_iter().map(Finding::from).collect()
}

/// The handler that is preferred of those that work here and will do.
pub(crate) fn handler(choice: RuntimeChoice, here: &Here<'_>) -> Result<Handler, Error> {
    let mut lacking = Vec::new();
    for handler in choice.handlers() {
        match missing(handler, here) {
            None => return Ok(handler),
            Some(missing) => lacking.push((handler, missing)),
        }
    }
    let missing = match lacking.as_slice() {
        [(_, missing)] => missing.clone(),
        several => {
            several.iter().map(|(handler, missing)| format!("{handler}: {missing}")).collect::<Vec<_>>().join("; ")
        }
    };
    Err(ErrorKind::RuntimeUnavailable { runtime: choice, missing }.into())
}

/// What a handler lacks here; `None` when it works. That the default one works is taken for granted: what it lacks, the
/// first start says.
fn missing(handler: Handler, here: &Here<'_>) -> Option<String> {
    if handler == Handler::DefaultNative {
        return None;
    }
    let lacking = of_handler(handler, here).into_iter().filter(|finding| !finding.ok);
    let lacking: Vec<String> = lacking.map(|finding| finding.detail).collect();
    (!lacking.is_empty()).then(|| lacking.join("; "))
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
