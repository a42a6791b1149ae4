//! The cgroups that an OCI runtime makes for containers: in every hierarchy there is, not in those with limits alone.
//!
//! They are apart from those of slots: the rules for devices on the parent of these leave a runtime no room for its own.
use std::io;
use std::path::{Path, PathBuf};

use crate::cgroups::{Cgroups, Usage, remove_tree};
use crate::error::{Doing, Result};

/// Below it each container has a directory, for as long as it lives, with nothing in it but the places that the disk is
/// attached to where the runtime looks; its daemons look there too, in their own mount namespace.
const ATTACHED: &str = "/run/garth/oci";

/// The directory that a container's disk is attached in.
pub(crate) fn attached(container: &str) -> PathBuf {
    Path::new(ATTACHED).join(container)
}

/// Where the containers of one data directory are.
#[derive(Debug)]
pub(crate) struct Places {
    name: String,
    cgroups: Cgroups,
    /// In each hierarchy.
    parents: Vec<PathBuf>,
}

impl Places {
    /// Finds the hierarchies. Makes nothing.
    pub(crate) fn find(tag: &str) -> Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mounts").doing(|| "read the list of mounts".to_owned())?;
        let name = format!("garth-{tag}.oci");
        let cgroups = Cgroups::made_by_others(&mounts, &name).doing(|| "find the cgroups".to_owned())?;
        let parents = hierarchies(&mounts).map(|mount| mount.join(&name)).collect();
        Ok(Self { name, cgroups, parents })
    }

    /// As a bundle says it.
    pub(crate) fn path(&self, container: &str) -> String {
        format!("/{}/{container}", self.name)
    }

    pub(crate) fn usage(&self, container: &str) -> io::Result<Usage> {
        self.cgroups.usage(container)
    }

    pub(crate) fn processes(&self, container: &str) -> io::Result<Vec<i32>> {
        self.cgroups.processes(container)
    }

    /// Containers that have cgroups.
    pub(crate) fn containers(&self) -> io::Result<Vec<String>> {
        self.cgroups.slots()
    }

    /// Removes what a runtime left of an ended container's.
    pub(crate) fn remove(&self, container: &str) -> io::Result<()> {
        remove_empty(&attached(container))?;
        self.parents.iter().try_for_each(|parent| remove_tree(&parent.join(container)))
    }

    /// Removes the parents that are empty.
    pub(crate) fn close(&self) {
        for parent in &self.parents {
            let _ = std::fs::remove_dir(parent);
        }
    }
}

/// Removes a directory of empty ones. Never more than that: should something be mounted there after all, it is not ours
/// to empty.
fn remove_empty(directory: &Path) -> io::Result<()> {
    let gone = |result: io::Result<()>| match result {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    };
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        gone(std::fs::remove_dir(entry?.path()))?;
    }
    gone(std::fs::remove_dir(directory))
}

fn hierarchies(mounts: &str) -> impl Iterator<Item = &Path> {
    mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (mount, kind) = (words.next()?, words.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| Path::new(mount))
    })
}
