//! What a machine was when it was saved: a directory with the program's files and a `manifest.json` of ours, written
//! last, which says who wrote them, of which machine, and what they hold. No program looks for itself whether the files
//! belong together or are whole.

mod manifest;
mod taken;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use manifest::{FORMAT, Manifest, Recorded, Shape};
use rustix::fs::OFlags;

use crate::error::{Error, ErrorKind, SnapshotFault};
use crate::guest::digest;
use crate::machine::Machine;

pub(crate) use taken::take;

const MANIFEST: &str = "manifest.json";
/// Longer than any manifest of ours.
const LONGEST_MANIFEST: u64 = 1 << 16;

/// A snapshot that was looked at: all of it was read once, and compared with what was written. Keep it to load it many
/// times; each load makes sure that the files are still the same.
#[derive(Debug, Clone)]
pub struct Snapshot {
    directory: PathBuf,
    manifest: Manifest,
    seen: Vec<(String, Seen)>,
}

/// What tells that a file was not written or replaced since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Files that a program has just written, and that are no snapshot yet. Dropped, they are gone.
#[derive(Debug)]
#[must_use = "without its record it is no snapshot"]
pub struct Saved {
    directory: PathBuf,
    vmm: String,
    machine: Shape,
    is_recorded: bool,
}

impl Saved {
    /// Empties the directory when it is dropped, so it must be empty now.
    pub(crate) fn begin(directory: &Path, vmm: &str, machine: &Machine) -> Result<Self, Error> {
        let mut entries = fs::read_dir(directory).map_err(Error::io("list the snapshot"))?;
        if entries.next().is_some() {
            return Err(Error::io("save beside other files")(io::ErrorKind::DirectoryNotEmpty.into()));
        }
        let (vmm, machine) = (vmm.to_owned(), Shape::of(machine)?);
        Ok(Self { directory: directory.to_owned(), vmm, machine, is_recorded: false })
    }

    /// Reads all of it and writes down what it is, to disk. The machine may run on meanwhile.
    pub fn record(mut self) -> Result<Snapshot, Error> {
        let (mut files, mut seen) = (BTreeMap::new(), Vec::new());
        for entry in fs::read_dir(&self.directory).map_err(Error::io("list the snapshot"))? {
            let name = entry.map_err(Error::io("list the snapshot"))?.file_name().to_string_lossy().into_owned();
            let mut file = open(&self.directory.join(&name)).map_err(Error::io("read the snapshot"))?;
            file.sync_all().map_err(Error::io("write the snapshot to disk"))?;
            let looked = Seen::of(&file)?;
            files.insert(name.clone(), Recorded { size: looked.size, sha256: digest_of(&mut file)? });
            seen.push((name, looked));
        }
        let (vmm, machine) = (self.vmm.clone(), self.machine.clone());
        let manifest = Manifest { format: FORMAT, vmm, machine, files };
        let written = File::create_new(self.directory.join(MANIFEST)).and_then(|mut file| {
            file.write_all(&serde_json::to_vec_pretty(&manifest).unwrap_or_default())?;
            file.sync_all()?;
            File::open(&self.directory)?.sync_all()
        });
        written.map_err(Error::io("write the snapshot's manifest"))?;
        self.is_recorded = true;
        Ok(Snapshot { directory: self.directory.clone(), manifest, seen })
    }
}

impl Drop for Saved {
    fn drop(&mut self) {
        if self.is_recorded {
            return;
        }
        for entry in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            // What stays is not a snapshot: the manifest is written last.
            let _ = fs::remove_file(entry.path());
        }
    }
}

impl Snapshot {
    /// Reads a snapshot and all of its files.
    ///
    /// # Errors
    /// [`ErrorKind::Snapshot`], with what is wrong with it.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let manifest = read_manifest(directory)?;
        let mut seen = Vec::new();
        for (name, recorded) in &manifest.files {
            let mut file = open(&directory.join(name)).map_err(|_| SnapshotFault::Damaged)?;
            let looked = Seen::of(&file)?;
            // Its size alone tells of most damage, before gigabytes are read.
            if looked.size != recorded.size || digest_of(&mut file)? != recorded.sha256 {
                return Err(SnapshotFault::Damaged.into());
            }
            seen.push((name.clone(), looked));
        }
        Ok(Self { directory: directory.to_owned(), manifest, seen })
    }

    /// Where it is.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Whether this program can load it into this machine, and its files are as they were when they were read.
    pub(crate) fn check(&self, vmm: &str, machine: &Machine) -> Result<(), Error> {
        if self.manifest.vmm != vmm {
            let fault = SnapshotFault::OtherVmm { wrote: self.manifest.vmm.clone(), reads: vmm.to_owned() };
            return Err(fault.into());
        }
        if self.manifest.machine != Shape::of(machine)? {
            return Err(SnapshotFault::OtherMachine.into());
        }
        for (name, seen) in &self.seen {
            let file = open(&self.directory.join(name)).map_err(|_| SnapshotFault::Damaged)?;
            if Seen::of(&file)? != *seen {
                return Err(SnapshotFault::Damaged.into());
            }
        }
        Ok(())
    }
}

/// Programs say that they could not write, and seldom why.
pub(crate) fn or_no_space(error: Error, on: impl rustix::fd::AsFd) -> Error {
    let full = || rustix::fs::fstatvfs(on).is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) < 1 << 20);
    match error.kind() {
        ErrorKind::Refused { said, .. } if said.contains("No space left") || full() => ErrorKind::NoSpace.into(),
        _ => error,
    }
}

fn read_manifest(directory: &Path) -> Result<Manifest, Error> {
    let file = open(&directory.join(MANIFEST)).map_err(|_| SnapshotFault::Foreign)?;
    let mut text = Vec::new();
    file.take(LONGEST_MANIFEST).read_to_end(&mut text).map_err(Error::io("read the snapshot's manifest"))?;
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(|_| SnapshotFault::Damaged)?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        None => Err(SnapshotFault::Foreign.into()),
        Some(format) if format != FORMAT => Err(SnapshotFault::OtherFormat(format).into()),
        Some(_) => serde_json::from_value(value).map_err(|_| SnapshotFault::Damaged.into()),
    }
}

fn digest_of(file: &mut File) -> Result<String, Error> {
    digest::of_content(file).map_err(Error::io("read the snapshot"))
}

/// A file and nothing else of that name.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Seen {
    fn of(file: &File) -> Result<Self, Error> {
        let metadata = file.metadata().map_err(Error::io("look at the snapshot"))?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[cfg(test)]
mod tests;
