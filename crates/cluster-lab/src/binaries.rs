//! Where `tests/cluster/build` keeps the programs of a cluster.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::place::output;

/// One half of what is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Kubernetes and what a node runs.
    Cluster,
    /// Fake nodes and autoscalers.
    Extras,
}

impl Part {
    fn word(self) -> &'static str {
        match self {
            Self::Cluster => "cluster",
            Self::Extras => "extras",
        }
    }

    /// The folder of its programs, and whether they are all there.
    pub fn find(self) -> Result<(PathBuf, bool)> {
        let said = output(Command::new(script()).args(["--where", self.word()]))?;
        let folder = PathBuf::from(said.trim());
        let complete = folder.join("complete").exists();
        Ok((folder, complete))
    }

    /// Builds what is not there; says on standard error how that goes.
    pub fn build(self) -> Result<()> {
        let built = Command::new(script()).arg(self.word()).status().context("tests/cluster/build")?;
        anyhow::ensure!(built.success(), "tests/cluster/build {}: {built}", self.word());
        Ok(())
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/cluster/build")
}

/// What tests keep on a machine between checkouts.
pub fn cache() -> PathBuf {
    env::var_os("GARTH_TEST_CACHE").map_or_else(|| PathBuf::from("/var/cache/garth-test"), PathBuf::from)
}

/// What is missing here for a lab; `None` where it runs.
pub fn missing(part: Part) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("root".to_owned());
    }
    for program in ["unshare", "nsenter", "ip", "flock"] {
        if Command::new(program).arg("-V").output().is_err() {
            return Some(format!("the program {program}"));
        }
    }
    match part.find() {
        Ok((_, true)) => None,
        Ok((folder, false)) => Some(format!("{}: run tests/cluster/build {}", folder.display(), part.word())),
        Err(error) => Some(format!("{error:#}")),
    }
}
