//! What works on this machine.

use garth_spec::Runtime;

/// What was found, by subject.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// What the `default` runtime needs.
    pub runtime: Vec<Finding>,
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

/// Looks at this machine and changes nothing; needs no daemon.
pub fn probe() -> Findings {
    let runtime = garth_runtime::probe().into_iter().map(|found| Finding {
        name: found.name.to_owned(),
        ok: found.ok,
        detail: found.detail,
        fix: found.fix.map(str::to_owned),
    });
    Findings { runtime: runtime.collect(), storage: Vec::new(), network: Vec::new() }
}

/// What a runtime lacks by itself, whatever the machine has; `None` for one that this version has.
pub fn missing(runtime: Runtime) -> Option<Finding> {
    let error = crate::lifecycle::handler(runtime).err()?;
    Some(Finding { name: "handler".to_owned(), ok: false, detail: error.to_string(), fix: error.suggestion() })
}
