use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use garth_spec::ImageId;
use rustix::fs::{CWD, FileType, Mode, XattrFlags, makedev, mknodat, setxattr};
use sha2::{Digest, Sha256};

use super::{accounts, etc, hidden};
use crate::error::{Error, ErrorKind};

/// One thing in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Dir { mode: u32 },
    File { mode: u32, content: Vec<u8> },
    Link { target: PathBuf },
}

/// One thing in the layer over `/usr`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Mask {
    /// Shows the machine's directory, with what is below masked where named.
    Merged { mode: u32 },
    /// An empty directory in place of the machine's.
    Emptied { mode: u32 },
    /// Nothing in place of the machine's file or directory.
    Absent,
}

/// Everything that makes the image, by path without a leading `/`. Parents sort before what is in them.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) root: BTreeMap<PathBuf, Entry>,
    pub(super) usr: BTreeMap<PathBuf, Mask>,
}

/// How much was written.
pub(super) struct Written {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// The directories around `/usr`, and their modes. `/dev`, `/proc`, `/sys` and `/run` are mount points.
const DIRS: [(&str, u32); 29] = [
    ("boot", 0o755),
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("media", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o555),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o555),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("var", 0o755),
    ("var/backups", 0o755),
    ("var/cache", 0o755),
    ("var/lib", 0o755),
    ("var/lib/misc", 0o755),
    ("var/local", 0o755),
    ("var/log", 0o755),
    ("var/mail", 0o755),
    ("var/opt", 0o755),
    ("var/spool", 0o755),
    ("var/tmp", 0o1777),
    ("etc/opt", 0o755),
    ("etc/profile.d", 0o755),
    ("etc/ssl", 0o755),
    ("etc/ssl/private", 0o700),
];

impl Plan {
    /// Reads the machine and decides. Nothing is written.
    pub(super) fn read(machine: &Path) -> Result<Self, Error> {
        let mut plan = Self::default();
        plan.add_tree(machine)?;
        etc::add(&mut plan, machine);
        accounts::add(&mut plan, machine);
        hidden::add(&mut plan, &machine.join("usr"));
        Ok(plan)
    }

    pub(super) fn dir(&mut self, path: impl Into<PathBuf>, mode: u32) {
        self.root.insert(path.into(), Entry::Dir { mode });
    }

    pub(super) fn file(&mut self, path: impl Into<PathBuf>, mode: u32, content: impl Into<Vec<u8>>) {
        self.root.insert(path.into(), Entry::File { mode, content: content.into() });
    }

    pub(super) fn link(&mut self, path: impl Into<PathBuf>, target: impl Into<PathBuf>) {
        self.root.insert(path.into(), Entry::Link { target: target.into() });
    }

    /// The image's id: the first 64 bits of a digest of all that is in it.
    pub(super) fn id(&self) -> ImageId {
        let mut hash = Sha256::new();
        hash.update(b"garth host image 1\0");
        for (path, entry) in &self.root {
            match entry {
                Entry::Dir { mode } => hash.update(format!("{path:?} directory {mode:o}\0")),
                Entry::Link { target } => hash.update(format!("{path:?} link {target:?}\0")),
                Entry::File { mode, content } => {
                    hash.update(format!("{path:?} file {mode:o} {}\0", content.len()));
                    hash.update(content);
                }
            }
        }
        for (path, mask) in &self.usr {
            hash.update(format!("usr {path:?} {mask:?}\0"));
        }
        let digest: [u8; 32] = hash.finalize().into();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        ImageId::from_bits(u64::from_be_bytes(first))
    }

    /// Writes the image's root and the layer over `/usr` into two empty directories.
    pub(super) fn apply(&self, root: &Path, usr_upper: &Path) -> Result<Written, Error> {
        let mut written = Written { entries: 0, bytes: 0 };
        for (path, entry) in &self.root {
            let at = root.join(path);
            write_entry(&at, entry).map_err(|error| Error::write(path, error))?;
            written.entries += 1;
            if let Entry::File { content, .. } = entry {
                written.bytes += content.len() as u64;
            }
        }
        for (path, mask) in &self.usr {
            write_mask(&usr_upper.join(path), mask)
                .map_err(|error| Error::write(&Path::new("usr").join(path), error))?;
        }
        if self.root.contains_key(Path::new(accounts::HOME)) {
            give_home(&root.join(accounts::HOME)).map_err(|error| Error::write(Path::new(accounts::HOME), error))?;
        }
        Ok(written)
    }

    fn add_tree(&mut self, machine: &Path) -> Result<(), Error> {
        for (path, mode) in DIRS {
            self.dir(path, mode);
        }
        self.link("var/lock", "/run/lock");
        self.link("var/run", "/run");
        for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            match fs::read_link(machine.join(name)) {
                Ok(target) if target.to_string_lossy().trim_start_matches('/').starts_with("usr/") => {
                    self.link(name, target);
                }
                Ok(_) => return Err(not_merged(name)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => return Err(not_merged(name)),
            }
        }
        Ok(())
    }
}

fn not_merged(name: &str) -> Error {
    Error::new(ErrorKind::HostNotMerged(format!("/{name}")))
}

fn write_entry(at: &Path, entry: &Entry) -> io::Result<()> {
    match entry {
        Entry::Dir { mode } => {
            fs::create_dir(at)?;
            fs::set_permissions(at, fs::Permissions::from_mode(*mode))
        }
        Entry::File { mode, content } => {
            fs::write(at, content)?;
            fs::set_permissions(at, fs::Permissions::from_mode(*mode))
        }
        Entry::Link { target } => symlink(target, at),
    }
}

fn write_mask(at: &Path, mask: &Mask) -> io::Result<()> {
    match mask {
        Mask::Merged { mode } => write_entry(at, &Entry::Dir { mode: *mode }),
        Mask::Emptied { mode } => {
            write_entry(at, &Entry::Dir { mode: *mode })?;
            Ok(setxattr(at, garth_storage::opaque_mark()?, b"y", XattrFlags::empty())?)
        }
        // Documentation/filesystems/overlayfs.rst: a whiteout is a character device 0/0.
        Mask::Absent => Ok(mknodat(CWD, at, FileType::CharacterDevice, Mode::empty(), makedev(0, 0))?),
    }
}

fn give_home(home: &Path) -> io::Result<()> {
    chown(home, Some(accounts::USER_ID), Some(accounts::USER_ID))?;
    for entry in fs::read_dir(home)? {
        std::os::unix::fs::lchown(entry?.path(), Some(accounts::USER_ID), Some(accounts::USER_ID))?;
    }
    Ok(())
}
