//! What must survive the daemon: projects and images, in one SQLite file.
//!
//! ```text
//! store.db       the truth; written through, read once at start
//! store.db.bak   a whole and checked copy, marked as a copy, for when store.db is damaged
//! store.db.new   a store or copy that is being made; worthless
//! ```
//!
//! A damaged file is never written to and never replaced.

mod backup;
mod rows;
mod schema;

pub(crate) use backup::Backups;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, params};

use crate::error::{Error, ErrorKind};
use crate::images::ImageEntry;
use crate::project::Project;

/// Whether a change must survive a power cut before anyone is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Durability {
    /// It survives a crash of the daemon; a power cut takes the sandbox too, so nothing is lost.
    Crash,
    /// It survives a power cut.
    PowerCut,
}

impl Durability {
    /// In WAL, NORMAL is safe over a crash of the process and consistent over a power cut; FULL is durable over a
    /// power cut (<https://sqlite.org/pragma.html#pragma_synchronous>).
    const fn pragma(self) -> &'static str {
        match self {
            Self::Crash => "PRAGMA synchronous = NORMAL",
            Self::PowerCut => "PRAGMA synchronous = FULL",
        }
    }
}

/// Where the file that was opened came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The same daemon's, or an earlier one's.
    Continued,
    /// There was none.
    New,
    /// Someone put a backup in its place: images that it does not know belong to someone.
    Restored,
}

/// The open store.
#[derive(Debug)]
pub(crate) struct Store {
    connection: Mutex<(Connection, Durability)>,
    path: PathBuf,
    backups: Arc<backup::Backups>,
}

impl Store {
    /// Opens the store in a data directory, makes it if there is none, refuses it if it is damaged.
    pub(crate) fn open(data_dir: &Path) -> Result<(Self, Origin), Error> {
        let path = data_dir.join("store.db");
        let backup = data_dir.join("store.db.bak");
        let mut origin = Origin::Continued;
        if !path.exists() {
            if backup.exists() {
                let hint = format!("cp {} {}; or, to begin anew, remove the backup", backup.display(), path.display());
                return Err(Error::from(ErrorKind::StoreMissing(path)).hint(hint));
            }
            schema::make(&path)?;
            origin = Origin::New;
        }
        let connection = open_checked(&path, &backup)?;
        if origin == Origin::Continued && backup::unmark(&connection)? {
            origin = Origin::Restored;
        }
        let backups = Arc::new(backup::Backups::new(path.clone(), backup));
        Ok((Self { connection: Mutex::new((connection, Durability::PowerCut)), path, backups }, origin))
    }

    /// Every project.
    pub(crate) fn projects(&self) -> Result<Vec<Project>, Error> {
        self.all("SELECT * FROM projects", rows::project)
    }

    /// Every image.
    pub(crate) fn images(&self) -> Result<Vec<ImageEntry>, Error> {
        self.all("SELECT * FROM images", rows::image)
    }

    /// Adds a project that is being made. A power cut may forget it, and leave an empty disk that
    /// comes back as a project; it is durable once it is made.
    pub(crate) fn insert(&self, project: &Project) -> Result<(), Error> {
        self.write(Durability::Crash, |connection| rows::insert_project(connection, project))
    }

    /// Writes what changed in a project.
    pub(crate) fn save(&self, project: &Project, durability: Durability) -> Result<(), Error> {
        self.write(durability, |connection| rows::update_project(connection, project))
    }

    /// Forgets a project. After a power cut it may still be there, being removed.
    pub(crate) fn delete(&self, project: &Project) -> Result<(), Error> {
        self.write(Durability::Crash, |connection| {
            connection.prepare_cached("DELETE FROM projects WHERE id = ?1")?.execute(params![project.id.to_string()])
        })
    }

    /// Adds an image.
    pub(crate) fn insert_image(&self, image: &ImageEntry) -> Result<(), Error> {
        self.write(Durability::PowerCut, |connection| rows::insert_image(connection, image))
    }

    /// Forgets an image.
    pub(crate) fn delete_image(&self, image: &ImageEntry) -> Result<(), Error> {
        self.write(Durability::PowerCut, |connection| {
            connection.prepare_cached("DELETE FROM images WHERE id = ?1")?.execute(params![image.id.to_string()])
        })
    }

    /// Moves the log into the file, so that the file alone is the store.
    pub(crate) fn settle(&self) -> Result<(), Error> {
        let (connection, _) = &*self.lock();
        let settled = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
        settled.map_err(|error| failed(&self.path, error))
    }

    /// Who makes the copies.
    pub(crate) fn backups(&self) -> &Arc<backup::Backups> {
        &self.backups
    }

    fn all<T>(&self, sql: &str, row: fn(&rusqlite::Row<'_>) -> rusqlite::Result<T>) -> Result<Vec<T>, Error> {
        let (connection, _) = &*self.lock();
        let read = || connection.prepare(sql)?.query_map([], row)?.collect::<rusqlite::Result<Vec<T>>>();
        read().map_err(|error| failed(&self.path, error))
    }

    fn write(
        &self,
        durability: Durability,
        change: impl FnOnce(&Connection) -> rusqlite::Result<usize>,
    ) -> Result<(), Error> {
        let (connection, set) = &mut *self.lock();
        let run = || {
            if *set != durability {
                connection.execute_batch(durability.pragma())?;
                *set = durability;
            }
            change(connection)
        };
        let changed = run().map_err(|error| failed(&self.path, error))?;
        if changed > 0 && durability == Durability::PowerCut {
            self.backups.note_change();
        }
        self.backups.note_write();
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, (Connection, Durability)> {
        // A panic between two statements leaves no transaction open: each change is one statement.
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open_checked(path: &Path, backup: &Path) -> Result<Connection, Error> {
    let refuse = |found: String| {
        let dir = path.parent().unwrap_or(path).display();
        let broken = format!("{dir}/store.broken");
        let restore = format!("mkdir {broken} && mv {dir}/store.db* {broken}/");
        let hint = if backup.exists() {
            format!(
                "nothing was changed. To go back to the last backup: {restore} && cp {broken}/store.db.bak {}. \
                 Projects made since then come back as recovered-…",
                path.display()
            )
        } else {
            format!("nothing was changed, and there is no backup. To begin with the disks alone: {restore}")
        };
        Error::from(ErrorKind::StoreCorrupt { path: path.to_owned(), found }).hint(hint)
    };
    // SQLite takes an empty file for a new database; ours is never empty (schema::make renames it into place).
    if path.metadata().is_ok_and(|meta| meta.len() == 0) {
        return Err(refuse("the file is empty".to_owned()));
    }
    let open = || -> Result<Connection, rusqlite::Error> {
        let connection = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        // Until it is known to be whole, closing it must not write the log back into it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        Ok(connection)
    };
    let connection = open().map_err(|error| damage(path, error, &refuse))?;
    let found: Option<String> = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .optional()
        .map_err(|error| damage(path, error, &refuse))?;
    if found.as_deref() != Some("ok") {
        return Err(refuse(found.unwrap_or_else(|| "the check says nothing".to_owned())));
    }
    schema::prepare(&connection).map_err(|error| damage(path, error, &refuse))?;
    schema::migrate(&connection, path)?;
    Ok(connection)
}

/// Tells a damaged file from a refusal of another kind.
fn damage(path: &Path, error: rusqlite::Error, refuse: &dyn Fn(String) -> Error) -> Error {
    match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => refuse(error.to_string()),
        _ => failed(path, error),
    }
}

pub(crate) fn failed(path: &Path, error: rusqlite::Error) -> Error {
    let kind = match error.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DiskFull) => ErrorKind::NoSpace,
        Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => {
            ErrorKind::StoreCorrupt { path: path.to_owned(), found: error.to_string() }
        }
        _ => ErrorKind::Store,
    };
    Error::because(kind, error).step("store")
}

#[cfg(test)]
mod tests;
