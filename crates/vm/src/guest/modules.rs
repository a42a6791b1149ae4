//! The kernel's modules that a guest needs, in the order in which they can be loaded.
//!
//! What a module depends on is asked of the module itself (`modinfo`): packages have no `modules.dep`, which depmod
//! makes where they are installed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use object::read::elf::ElfFile64;
use object::{Object as _, ObjectSection as _};

use super::compression::Compression;
use super::error::{Error, ErrorKind};

/// Larger than any module.
const LARGEST: u64 = 64 << 20;

/// What guests use, where it comes from a module, and whether a guest can do without.
const WANTED: [(&str, Need); 14] = [
    // Two ways to find devices; which one a guest needs depends on its machine.
    ("virtio_mmio", Need::Useful),
    ("virtio_pci", Need::Useful),
    ("virtio_blk", Need::Must),
    ("virtio_console", Need::Useful),
    ("virtio_rng", Need::Useful),
    ("virtio_net", Need::Useful),
    ("virtio_balloon", Need::Useful),
    ("vsock", Need::Useful),
    ("vmw_vsock_virtio_transport", Need::Useful),
    ("overlay", Need::Must),
    ("erofs", Need::Must),
    ("ext4", Need::Must),
    ("virtiofs", Need::Useful),
    ("vmgenid", Need::Useful),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Must,
    Useful,
}

/// A module as the guest loads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its name, as in `/proc/modules`.
    pub name: String,
    /// The file, decompressed; a signature at its end stays.
    pub content: Vec<u8>,
}

/// The files below `/lib/modules/RELEASE`.
#[derive(Debug, Default)]
pub(super) struct Tree {
    builtin: BTreeSet<String>,
    files: BTreeMap<String, PathBuf>,
}

/// What was found for a guest.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// In the order to load them in.
    pub(super) modules: Vec<Module>,
    /// What the kernel does not have.
    pub(super) missing: Vec<String>,
    seen: BTreeSet<String>,
}

/// What a module says of itself.
#[derive(Debug, Default)]
struct Info {
    depends: Vec<String>,
    /// Loaded before it where they are there.
    before: Vec<String>,
    release: String,
}

impl Tree {
    /// Looks at every file below; follows no link (`build` leads out of it).
    pub(super) fn read(directory: &Path) -> Result<Self, Error> {
        let mut tree = Self::default();
        let mut left = vec![directory.to_owned()];
        while let Some(directory) = left.pop() {
            for entry in fs::read_dir(&directory).map_err(Error::file("listed", &directory))? {
                let entry = entry.map_err(Error::file("listed", &directory))?;
                let kind = entry.file_type().map_err(Error::file("read", &directory))?;
                let (path, file_name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
                if kind.is_dir() {
                    left.push(path);
                } else if file_name == "modules.builtin" {
                    let text = fs::read_to_string(&path).map_err(Error::file("read", &path))?;
                    tree.builtin.extend(text.lines().filter_map(|line| name(line.rsplit('/').next()?)));
                } else if let Some(name) = name(&file_name) {
                    tree.files.insert(name, path);
                }
            }
        }
        Ok(tree)
    }

    /// What a guest needs of it, for the kernel of this release.
    pub(super) fn find(&self, release: &str) -> Result<Found, Error> {
        let mut found = Found::default();
        for (name, need) in WANTED {
            if !self.visit(name, release, &mut found)? {
                if need == Need::Must {
                    return Err(ErrorKind::NoModule(name.to_owned()).into());
                }
                found.missing.push(name.to_owned());
            }
        }
        Ok(found)
    }

    /// Adds a module behind all that it depends on; false when there is no such module.
    fn visit(&self, name: &str, release: &str, found: &mut Found) -> Result<bool, Error> {
        if self.builtin.contains(name) || found.seen.contains(name) {
            return Ok(true);
        }
        let Some(path) = self.files.get(name) else { return Ok(false) };
        found.seen.insert(name.to_owned());
        let content = decompressed(path)?;
        let info = info(&content).ok_or_else(|| ErrorKind::Truncated(path.clone()))?;
        if info.release != release {
            return Err(ErrorKind::OtherModules { kernel: release.to_owned(), modules: info.release }.into());
        }
        for before in &info.before {
            self.visit(before, release, found)?;
        }
        for dependency in &info.depends {
            if !self.visit(dependency, release, found)? {
                return Err(ErrorKind::NoModule(dependency.clone()).into());
            }
        }
        found.modules.push(Module { name: name.to_owned(), content });
        Ok(true)
    }
}

/// The name of the module in a file of this name.
pub(super) fn name(file_name: &str) -> Option<String> {
    let (name, rest) = file_name.rsplit_once(".ko")?;
    matches!(rest, "" | ".xz" | ".zst" | ".gz").then(|| name.replace('-', "_"))
}

fn decompressed(path: &Path) -> Result<Vec<u8>, Error> {
    let bytes = fs::read(path).map_err(Error::file("read", path))?;
    let Some(compression) = Compression::of(&bytes) else { return Ok(bytes) };
    let mut content = Vec::new();
    let read = compression.read(&bytes).and_then(|stream| stream.take(LARGEST + 1).read_to_end(&mut content));
    read.map_err(|error| Error::because(ErrorKind::Truncated(path.to_owned()), error))?;
    match content.len() as u64 > LARGEST {
        true => Err(ErrorKind::TooLarge { path: path.to_owned(), limit: LARGEST }.into()),
        false => Ok(content),
    }
}

/// The section `.modinfo`: `key=value`, each with a zero byte at its end.
fn info(content: &[u8]) -> Option<Info> {
    let elf = ElfFile64::<object::LittleEndian>::parse(content).ok()?;
    let section = elf.section_by_name(".modinfo")?.data().ok()?;
    let mut info = Info::default();
    for line in section.split(|byte| *byte == 0).filter_map(|line| std::str::from_utf8(line).ok()) {
        let names = |text: &str, separator| -> Vec<String> {
            text.split(separator).filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
        };
        match line.split_once('=') {
            Some(("depends", text)) => info.depends.extend(names(text, ',')),
            Some(("softdep", text)) => {
                let before = text.split("post:").next().unwrap_or_default();
                info.before.extend(before.strip_prefix("pre:").map(|text| names(text, ' ')).unwrap_or_default());
            }
            Some(("vermagic", text)) => text.split(' ').next().unwrap_or_default().clone_into(&mut info.release),
            _ => {}
        }
    }
    Some(info)
}

#[cfg(test)]
mod tests;
