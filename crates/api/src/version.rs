use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Which daemon answers, and where it keeps things.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Version {
    /// The daemon's version.
    pub version: String,
    /// The version of this contract.
    pub api: String,
    /// The daemon's process id.
    pub pid: u32,
    /// Where it keeps projects.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub data_dir: PathBuf,
    /// Since when it runs.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub started_at: Timestamp,
}
