use garth_spec::{Handler, Runtime};
use serde::{Deserialize, Serialize};

/// What works on this machine, what does not, and the command that fixes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Doctor {
    /// Each handler of each runtime, the one that is preferred first.
    pub runtimes: Vec<RuntimeDoctor>,
    /// The pool of disks.
    pub storage: Vec<Finding>,
    /// Addresses, the bridge and its rules.
    pub network: Vec<Finding>,
}

/// Whether one runtime works here by one handler.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RuntimeDoctor {
    /// The runtime.
    pub runtime: Runtime,
    /// What would carry it out. A runtime works where one of its handlers does.
    pub handler: Handler,
    /// Whether a project that asks for it starts.
    pub ok: bool,
    /// What it needs, one by one.
    pub findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// Whether it is as it has to be.
    pub ok: bool,
    /// What was found.
    pub detail: String,
    /// The command or setting that mends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}
