use std::fs;
use std::path::{Path, PathBuf};

use super::digest;
use super::error::{Error, ErrorKind};
use super::manifest::{FORMAT, Manifest};

/// The files of one kernel with one agent, complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Artifacts {
    directory: PathBuf,
    manifest: Manifest,
}

impl Artifacts {
    /// The files to start guests from, for this agent: those that were made last. None when there are none, or only
    /// those of another agent or format; an error when they are not what was made.
    pub fn find(data_dir: &Path, agent: &[u8]) -> Result<Option<Self>, Error> {
        let current = data_dir.join("guest/current");
        let Ok(key) = fs::read_link(&current) else { return Ok(None) };
        let found = Self::open(data_dir.join("guest").join(key))?;
        Ok(found.filter(|found| found.manifest.agent == digest::of(agent)))
    }

    /// The files in a directory, looked at as quickly as can be.
    pub(super) fn open(directory: PathBuf) -> Result<Option<Self>, Error> {
        let path = directory.join("manifest.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(Error::file("read", &path))?,
        };
        let damaged = |error| Error::because(ErrorKind::Changed(path.clone()), error);
        let value: serde_json::Value = serde_json::from_slice(&text).map_err(damaged)?;
        if value["format"] != FORMAT {
            return Ok(None);
        }
        let manifest: Manifest = serde_json::from_value(value).map_err(damaged)?;
        let found = Self { directory, manifest };
        found.manifest.vmlinux.check(&found.vmlinux())?;
        found.manifest.initrd.check(&found.initrd())?;
        Ok(Some(found))
    }

    /// Reads all of it and compares it with what was made.
    pub fn verify(&self) -> Result<(), Error> {
        self.manifest.vmlinux.verify(&self.vmlinux())?;
        self.manifest.initrd.verify(&self.initrd())
    }

    /// The kernel, an ELF file.
    pub fn vmlinux(&self) -> PathBuf {
        self.directory.join("vmlinux")
    }

    /// The first root filesystem.
    pub fn initrd(&self) -> PathBuf {
        self.directory.join("initrd.img")
    }

    /// Where all of them are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// What they were made of.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Names what they were made of: the name of their directory.
    pub fn key(&self) -> String {
        self.directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
    }
}
