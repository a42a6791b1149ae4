//! Makes the files that guests start from.

use std::fs::{self, DirBuilder, File};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::artifacts::Artifacts;
use super::digest;
use super::error::Error;
use super::kernel::Kernel;
use super::manifest::{FORMAT, Manifest, Recorded, Source};
use super::modules::{Found, Tree};
use super::package::{self, Package};
use super::{initramfs, unpack};

/// What to make.
#[derive(Debug)]
pub struct Options<'a> {
    /// Where: `guest` in here is ours.
    pub data_dir: &'a Path,
    /// The agent's static program.
    pub agent: &'a [u8],
    /// The kernel to use.
    pub kernel: KernelSource,
}

/// Where the kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KernelSource {
    /// The distribution's newest, by apt.
    #[default]
    Distribution,
    /// The user's.
    File {
        /// A vmlinux or a bzImage.
        kernel: PathBuf,
        /// The directory of its modules; without, all that guests need is taken to be built in.
        modules: Option<PathBuf>,
    },
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// Bytes done of the step, where it is one of bytes.
    pub done: u64,
    /// Bytes of the step; 0 where it is none of bytes.
    pub total: u64,
}

/// What is done, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// apt is asked for the newest kernel.
    Find,
    /// Its packages are downloaded.
    Download,
    /// They are unpacked.
    Unpack,
    /// The kernel is decompressed, modules are chosen, the files are written.
    Build,
}

/// Makes the files and gives them out; quick when they are there already. One at a time may run in a data directory.
///
/// Packages that an interrupted one has downloaded are used by the next. Whatever fails, files that were there before stay.
pub fn setup(options: &Options<'_>, progress: &mut dyn FnMut(Progress)) -> Result<Artifacts, Error> {
    let guest = options.data_dir.join("guest");
    let packages = guest.join("packages");
    let (draft, tree) = (guest.join("draft"), guest.join("draft.tree"));
    // What a daemon that was killed has left.
    for left in [&draft, &tree] {
        remove(left)?;
    }
    // apt's user passes through ours to its own.
    for (directory, mode) in [(&guest, 0o711), (&packages, 0o700), (&draft, 0o700), (&tree, 0o700)] {
        let made = DirBuilder::new().recursive(true).mode(mode).create(directory);
        made.map_err(Error::file("made", directory))?;
    }
    let made = make(options, &[&packages, &tree, &draft], progress);
    let removed = remove(&tree).and(remove(&draft));
    let made = made?;
    removed?;
    Ok(made)
}

fn make(
    options: &Options<'_>,
    [packages, tree, draft]: &[&Path; 3],
    progress: &mut dyn FnMut(Progress),
) -> Result<Artifacts, Error> {
    let mut say = |step, done, total| progress(Progress { step, done, total });
    let (kernel, source, modules) = match &options.kernel {
        KernelSource::Distribution => {
            say(Step::Find, 0, 0);
            let wanted = package::newest()?;
            let source = Source::Packages(wanted.iter().map(record).collect());
            if let Ok(Some(found)) = Artifacts::find(options.data_dir, options.agent)
                && found.manifest().source == source
                && found.verify().is_ok()
            {
                return Ok(found);
            }
            let total = wanted.iter().map(|package| package.size).sum();
            say(Step::Download, 0, total);
            package::fetch(&wanted, packages, &mut |done| say(Step::Download, done.min(total), total))?;
            say(Step::Unpack, 0, 0);
            let copy = tree.join("package.deb");
            for package in &wanted {
                package.take(packages, &copy)?;
                unpack::unpack(&copy, tree)?;
            }
            forget_others(packages, &wanted)?;
            (unpack::kernel(tree, &wanted[0].name)?, source, Some(*tree))
        }
        KernelSource::File { kernel, modules } => {
            let source = Source::File(kernel.clone(), digest::of_file(kernel)?);
            (kernel.clone(), source, modules.as_deref())
        }
    };
    say(Step::Build, 0, 0);
    let kernel = Kernel::read(&kernel)?;
    let modules = modules.map_or_else(|| Ok(Found::default()), |modules| Tree::read(modules)?.find(&kernel.release))?;
    build(draft, &kernel, source, &modules, options)
}

fn record(package: &Package) -> (String, String, String) {
    (package.name.clone(), package.version.clone(), package.sha256.clone())
}

/// Fills the draft, and lets it become what it is named after.
fn build(
    draft: &Path,
    kernel: &Kernel,
    source: Source,
    found: &Found,
    options: &Options<'_>,
) -> Result<Artifacts, Error> {
    let initrd = initramfs::archive(&initramfs::entries(options.agent, &found.modules));
    let manifest = Manifest {
        format: FORMAT,
        release: kernel.release.clone(),
        has_pvh: kernel.has_pvh,
        source,
        agent: digest::of(options.agent),
        modules: found.modules.iter().map(|module| module.name.clone()).collect(),
        missing: found.missing.clone(),
        vmlinux: write(&draft.join("vmlinux"), &kernel.vmlinux)?,
        initrd: write(&draft.join("initrd.img"), &initrd)?,
    };
    // The initrd is a function of the agent and the modules, so these two and the format name all of it.
    let key = digest::of(format!("{FORMAT} {} {}", manifest.vmlinux.sha256, manifest.initrd.sha256).as_bytes());
    let key = &key[..32];
    let text = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
    write(&draft.join("manifest.json"), &text)?;
    sync(draft)?;
    publish(draft, key)
}

/// Puts the draft in its place, unless the same stands there already.
fn publish(draft: &Path, key: &str) -> Result<Artifacts, Error> {
    let guest = draft.parent().unwrap_or(draft);
    let place = guest.join(key);
    let standing = Artifacts::open(place.clone()).ok().flatten().filter(|standing| standing.verify().is_ok());
    if standing.is_none() {
        remove(&place)?;
        fs::rename(draft, &place).map_err(Error::file("renamed", draft))?;
    }
    let (current, next) = (guest.join("current"), guest.join("current.new"));
    remove(&next)?;
    std::os::unix::fs::symlink(key, &next).map_err(Error::file("written", &next))?;
    fs::rename(&next, &current).map_err(Error::file("renamed", &next))?;
    sync(guest)?;
    let changed = || Error::from(super::ErrorKind::Changed(place.clone()));
    Artifacts::open(place.clone())?.ok_or_else(changed)
}

fn write(path: &Path, content: &[u8]) -> Result<Recorded, Error> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(content)?;
        file.sync_all()
    });
    written.map_err(Error::file("written", path))?;
    Recorded::of(path, content)
}

fn sync(directory: &Path) -> Result<(), Error> {
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(Error::file("written", directory))
}

/// Removes older packages, and what a failed download left.
fn forget_others(packages: &Path, used: &[Package]) -> Result<(), Error> {
    let used: Vec<PathBuf> = used.iter().filter_map(|package| package.file(packages)).collect();
    let entries = fs::read_dir(packages).map_err(Error::file("listed", packages))?;
    let others = entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| !used.contains(path));
    others.into_iter().try_for_each(|other| remove(&other))
}

fn remove(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    removed.map_err(Error::file("removed", path))
}
