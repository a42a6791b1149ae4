//! The files that microVMs start from, made by `garth setup microvm`.

use std::path::PathBuf;

pub use garth_vm::guest::{KernelSource, Progress, Step};

use crate::doctor::Finding;

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
