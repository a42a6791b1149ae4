use garth_spec::{Handler, Runtime};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// `POST /v1/projects/{name}/verify`: whether the boundary of its sandbox holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// The level that was checked: that of the running sandbox.
    pub runtime: Runtime,
    /// What carries it out; none where a cluster's own default runtime does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<Handler>,
    /// Whether every check passed.
    pub passed: bool,
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// Each check.
    pub checks: Vec<Check>,
}

/// One check of a boundary.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its name; stable.
    pub id: String,
    /// What has to be so.
    pub what: String,
    /// Whether it is.
    pub passed: bool,
    /// What was seen: one line of at most 200 characters.
    pub evidence: String,
}

/// What is kept of the last verification of a project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Verified {
    /// When.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub at: Timestamp,
    /// The level that was checked.
    pub runtime: Runtime,
    /// Whether every check passed.
    pub passed: bool,
    /// How many checks were made.
    pub checks: u64,
    /// The names of those that failed.
    pub failed: Vec<String>,
}
