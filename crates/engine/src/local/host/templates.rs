//! The templates of this machine, in its cache: `templates/KEY`, each the snapshot of one machine that nobody had told
//! what it is. All daemons of the machine share them.
//!
//! One is good or it is not used: what is damaged, half-made, or did not start a project, is made again. Whoever makes or
//! removes one holds the lock; who only reads finds it whole, or does without.

use std::collections::{HashMap, VecDeque};
use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use garth_spec::Hex;
use garth_vm::{Snapshot, Template};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::lock;
use crate::error::{Error, ErrorKind};

/// Templates that are kept, and the bytes of all.
const MOST: usize = 8;
const MOST_BYTES: u64 = 2 << 30;
/// A template that did not start a project is made again; one that keeps doing so is not.
const PATIENCE: u32 = 2;
/// Guests whose random numbers are remembered.
const REMEMBERED: usize = 4096;

/// See above.
#[derive(Debug)]
pub(super) struct Templates {
    directory: PathBuf,
    known: Mutex<HashMap<String, Known>>,
    making: Mutex<Option<Making>>,
    begun: Mutex<VecDeque<Hex<32>>>,
}

#[derive(Debug, Default)]
struct Known {
    snapshot: Option<Snapshot>,
    failures: u32,
}

#[derive(Debug)]
struct Making {
    cancelled: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Templates {
    /// Touches nothing yet.
    pub(super) fn new(cache_dir: &Path) -> Self {
        let directory = cache_dir.join("templates");
        Self { directory, known: Mutex::default(), making: Mutex::default(), begun: Mutex::default() }
    }

    /// The template, if there is a good one. All of it is read once in the daemon's life.
    pub(super) fn find(&self, template: &Template) -> Option<Snapshot> {
        let place = self.place(template);
        let mut all = lock(&self.known);
        let known = all.entry(template.key().to_owned()).or_default();
        if !place.join("manifest.json").exists() || known.failures >= PATIENCE {
            known.snapshot = None;
            return None;
        }
        if known.snapshot.is_none() {
            let opened = Snapshot::open(&place);
            let opened = opened.inspect_err(|error| tracing::warn!(%error, "a template is made again"));
            known.snapshot = opened.ok();
        }
        // The time of its last use.
        let _ = File::open(&place).and_then(|place| place.set_modified(SystemTime::now()));
        known.snapshot.clone()
    }

    /// Whether it is worth making.
    pub(super) fn lacks(&self, template: &Template) -> bool {
        let all = lock(&self.known);
        all.get(template.key()).is_none_or(|known| known.snapshot.is_none() && known.failures < PATIENCE)
    }

    /// It did not start a project.
    pub(super) fn refuse(&self, template: &Template) {
        let mut all = lock(&self.known);
        let known = all.entry(template.key().to_owned()).or_default();
        *known = Known { snapshot: None, failures: known.failures + 1 };
        drop(all);
        if let Ok(Some(_alone)) = self.alone() {
            let _ = fs::remove_dir_all(self.place(template));
        }
    }

    /// Makes it, in an empty directory that is its own and with others for the files of its disks, unless someone else
    /// is at it. Old ones make room.
    pub(super) fn make(
        &self,
        template: &Template,
        save: impl FnOnce(&Path, &Path) -> Result<Snapshot, Error>,
    ) -> Result<(), Error> {
        let Some(_alone) = self.alone()? else { return Ok(()) };
        let (place, disks) = (self.place(template), self.directory.join("disks"));
        if Snapshot::open(&place).is_ok() {
            return Ok(());
        }
        self.make_room().map_err(failed)?;
        for directory in [&place, &disks] {
            remove(directory).and_then(|()| DirBuilder::new().mode(0o700).create(directory)).map_err(failed)?;
        }
        let saved = save(&disks, &place);
        let removed = remove(&disks).map_err(failed);
        match saved {
            Ok(snapshot) => {
                lock(&self.known).entry(template.key().to_owned()).or_default().snapshot = Some(snapshot);
                removed
            }
            Err(error) => {
                let _ = remove(&place);
                Err(error)
            }
        }
    }

    /// Has a template made on another thread, one at a time. `make` ends early once it is told.
    pub(super) fn begin(&self, make: impl FnOnce(&Notify) + Send + 'static) {
        let mut making = lock(&self.making);
        if making.as_ref().is_some_and(|making| !making.task.is_finished()) {
            return;
        }
        let cancelled = Arc::new(Notify::new());
        let told = Arc::clone(&cancelled);
        let task = tokio::task::spawn_blocking(move || make(&told));
        *making = Some(Making { cancelled, task });
    }

    /// Waits until none is made any more.
    pub(super) fn stop(&self) {
        let Some(Making { cancelled, task }) = lock(&self.making).take() else { return };
        cancelled.notify_one();
        // What it says it has logged.
        let _ = tokio::runtime::Handle::current().block_on(task);
    }

    /// Refuses a guest that has the random numbers of another: it is not to run.
    pub(super) fn check_random(&self, random: Hex<32>) -> Result<(), Error> {
        let mut begun = lock(&self.begun);
        if begun.contains(&random) {
            return Err(Error::because(ErrorKind::Guest, "its random numbers are those of another guest"));
        }
        begun.truncate(REMEMBERED - 1);
        begun.push_front(random);
        Ok(())
    }

    fn place(&self, template: &Template) -> PathBuf {
        self.directory.join(template.key())
    }

    /// The lock, if nobody has it.
    fn alone(&self) -> Result<Option<File>, Error> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        let file = made.and_then(|()| File::create(self.directory.join("lock"))).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// Removes those that were used longest ago, until one more is within bounds. Guests that run keep what they have.
    fn make_room(&self) -> std::io::Result<()> {
        let mut all = Vec::new();
        for entry in fs::read_dir(&self.directory)?.flatten().filter(|entry| entry.path().is_dir()) {
            all.push((entry.metadata()?.modified()?, size(&entry.path()), entry.path()));
        }
        all.sort();
        let mut bytes: u64 = all.iter().map(|(_, size, _)| size).sum();
        let (mut count, mut oldest) = (all.len(), all.into_iter());
        while let Some((_, size, place)) = oldest.next()
            && (count >= MOST || bytes >= MOST_BYTES)
        {
            remove(&place)?;
            (count, bytes) = (count - 1, bytes - size);
        }
        Ok(())
    }
}

/// What a directory's files take.
fn size(directory: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|file| file.blocks() * 512).sum()
}

fn remove(directory: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::because(ErrorKind::Guest, error).step("keep a template")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_guests_with_the_same_random_numbers_are_one_too_many() {
        let templates = Templates::new(Path::new("/nowhere"));
        templates.check_random(Hex([1; 32])).expect("the first");
        templates.check_random(Hex([2; 32])).expect("another");
        let refused = templates.check_random(Hex([1; 32])).expect_err("the first again");
        assert!(refused.chain().contains("another guest"), "{}", refused.chain());
        for n in 0..2 * REMEMBERED {
            let mut random = [3; 32];
            random[..8].copy_from_slice(&n.to_be_bytes());
            templates.check_random(Hex(random)).expect("another");
        }
        assert_eq!(lock(&templates.begun).len(), REMEMBERED);
    }

    #[test]
    fn the_oldest_make_room_and_no_two_are_made_at_once() {
        let cache = tempfile::tempdir().expect("directory");
        let templates = Templates::new(cache.path());
        let alone = templates.alone().expect("a directory").expect("nobody else");
        assert!(templates.alone().expect("a directory").is_none());
        drop(alone);
        for n in 0..MOST + 2 {
            let place = templates.directory.join(format!("key{n}"));
            fs::create_dir(&place).expect("template");
            fs::write(place.join("state"), "x").expect("state");
            let age = std::time::Duration::from_secs(1000 - n as u64);
            File::open(&place).and_then(|place| place.set_modified(SystemTime::now() - age)).expect("age");
        }
        templates.make_room().expect("room");
        let left = |n: usize| templates.directory.join(format!("key{n}")).exists();
        assert!(!left(0) && !left(1) && !left(2) && left(3) && left(MOST + 1));
    }
}
