//! Copies of the store, and the log's way back into it: work that no start should wait for.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use jiff::Timestamp;
use rusqlite::{Connection, params};
use tokio::sync::Notify;

use super::{failed, schema};
use crate::error::{Error, ErrorKind};

/// Writes after which the log is moved into the file; 1000 pages is SQLite's own measure.
const WRITES_PER_CHECKPOINT: u32 = 500;

/// What says that a file is a copy.
const MARK: &str = "copied_at";

/// Makes copies when asked, and knows whether one is due.
#[derive(Debug)]
pub(crate) struct Backups {
    store: PathBuf,
    copy: PathBuf,
    due: AtomicBool,
    writes: AtomicU32,
    busy: Mutex<()>,
    /// Rings when a copy or a checkpoint has become due.
    pub(crate) work: Notify,
}

impl Backups {
    pub(super) fn new(store: PathBuf, copy: PathBuf) -> Self {
        let (due, writes, busy, work) = <_>::default();
        Self { store, copy, due, writes, busy, work }
    }

    /// Notes a change that the next copy should have.
    pub(super) fn note_change(&self) {
        if !self.due.swap(true, Relaxed) {
            self.work.notify_one();
        }
    }

    /// Notes a write to the log.
    pub(super) fn note_write(&self) {
        if self.writes.fetch_add(1, Relaxed) == WRITES_PER_CHECKPOINT {
            self.work.notify_one();
        }
    }

    /// Whether the copy lacks something.
    pub(crate) fn copy_due(&self) -> bool {
        self.due.load(Relaxed)
    }

    /// Moves the log into the file, if it has grown.
    pub(crate) fn checkpoint(&self) -> Result<(), Error> {
        if self.writes.load(Relaxed) < WRITES_PER_CHECKPOINT {
            return Ok(());
        }
        self.writes.store(0, Relaxed);
        let run = || Connection::open(&self.store)?.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        run().map_err(|error| failed(&self.store, error))
    }

    /// Makes a whole copy and puts it in the place of the last.
    pub(crate) fn copy(&self) -> Result<(), Error> {
        let _one_at_a_time = self.busy.lock();
        self.due.store(false, Relaxed);
        let draft = self.copy.with_extension("new");
        self.copy_to(&draft).inspect_err(|_| {
            self.due.store(true, Relaxed);
            // What is left of it is in the way of the next copy, and removed there.
            let _ = fs::remove_file(&draft);
        })
    }

    fn copy_to(&self, draft: &Path) -> Result<(), Error> {
        let data_dir = |error| Error::because(ErrorKind::DataDir(self.copy.clone()), error);
        match fs::remove_file(draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(data_dir(error)),
            _ => {}
        }
        schema::make_private(draft).map_err(data_dir)?;
        let run = || -> rusqlite::Result<()> {
            let connection = Connection::open(&self.store)?;
            connection.execute("VACUUM INTO ?1", params![draft.to_string_lossy()])?;
            let copy = Connection::open(draft)?;
            let now = Timestamp::now().to_string();
            copy.execute("INSERT OR REPLACE INTO meta VALUES (?1, ?2)", params![MARK, now])?;
            copy.close().map_err(|(_, error)| error)
        };
        run().map_err(|error| failed(draft, error))?;
        schema::sync(draft)
            .and_then(|()| fs::rename(draft, &self.copy))
            .and_then(|()| schema::sync_parent(&self.copy))
            .map_err(data_dir)
    }
}

/// Whether this store was a copy; from now on it is the store.
pub(super) fn unmark(connection: &Connection) -> Result<bool, Error> {
    let marked = connection.execute("DELETE FROM meta WHERE key = ?1", params![MARK]);
    marked.map(|rows| rows > 0).map_err(|error| Error::because(ErrorKind::Store, error))
}
