//! The files that microVMs start from, made by `garth setup microvm`.

use std::path::PathBuf;

pub use garth_vm::guest::{KernelSource, Progress, Step};

use garth_spec::Accel;

use crate::doctor::Finding;

/// How microVMs are run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestConfig {
    /// What all daemons of the machine share: the files that guests start from.
    pub cache_dir: PathBuf,
    /// What may run a guest's instructions.
    pub accel: Accel,
}

impl Default for GuestConfig {
    fn default() -> Self {
        Self { cache_dir: "/var/cache/garth".into(), accel: Accel::default() }
    }
}

/// What guests start from now, and what else microVMs lack here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestReport {
    /// The kernel's release.
    pub release: String,
    /// Its packages with their versions, or its file.
    pub source: Vec<String>,
    /// The directory of the files.
    pub directory: PathBuf,
    /// What is still missing.
    pub lacking: Vec<Finding>,
}
