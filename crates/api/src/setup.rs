use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{Error, Finding};

/// `POST /v1/setup/microvm`: which kernel guests shall have; without one, the distribution's newest.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetupMicrovm {
    /// A vmlinux or bzImage on the daemon's machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub kernel: Option<PathBuf>,
    /// The directory of its modules there; without, they are taken to be built in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub modules: Option<PathBuf>,
}

/// One line of the answer; the last is `done` or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum SetupEvent {
    /// It goes on.
    Progress(SetupProgress),
    /// The files are there.
    Done(GuestFiles),
    /// They are not; those that were there before still are.
    Failed(Error),
}

/// How far a setup is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct SetupProgress {
    /// What is being done.
    pub step: SetupStep,
    /// Bytes done of this step.
    pub done: u64,
    /// Bytes of this step; 0 where it is none of bytes.
    pub total: u64,
}

/// What a setup does, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum SetupStep {
    /// Looks for the kernel.
    Find,
    /// Downloads its packages.
    Download,
    /// Unpacks them.
    Unpack,
    /// Makes the guest's files.
    Build,
}

/// What guests start from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct GuestFiles {
    /// The kernel's release.
    pub release: String,
    /// Its packages with their versions, or its file.
    pub source: Vec<String>,
    /// Where the files are on the daemon's machine.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub directory: PathBuf,
    /// What microVMs still lack there.
    pub lacking: Vec<Finding>,
}
