use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rusqlite::Connection;
use rusqlite::config::DbConfig;

use super::failed;
use crate::error::{Error, ErrorKind};

/// One step per version; never edited, only added to.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE projects (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL,
        ephemeral INTEGER NOT NULL,
        spec TEXT NOT NULL,
        image TEXT,
        image_config TEXT NOT NULL,
        created_at TEXT NOT NULL,
        started_at TEXT,
        ended TEXT,
        sandbox TEXT
    ) STRICT;
    CREATE TABLE images (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        source TEXT NOT NULL,
        config TEXT NOT NULL,
        size INTEGER,
        created_at TEXT NOT NULL
    ) STRICT;
",
    "
    ALTER TABLE projects ADD COLUMN verified TEXT;
",
];

/// Makes an empty store that appears whole or not at all.
pub(super) fn make(path: &Path) -> Result<(), Error> {
    let draft = path.with_extension("db.new");
    let data_dir = |source| Error::because(ErrorKind::DataDir(path.to_owned()), source);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(data_dir(error)),
        _ => {}
    }
    make_private(&draft).map_err(data_dir)?;
    let connection = Connection::open(&draft).map_err(|error| failed(&draft, error))?;
    migrate(&connection, &draft)?;
    connection.close().map_err(|(_, error)| failed(&draft, error))?;
    sync(&draft).and_then(|()| fs::rename(&draft, path)).and_then(|()| sync_parent(path)).map_err(data_dir)
}

/// Settings of a connection to a whole file.
pub(super) fn prepare(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
    connection.execute_batch(super::Durability::PowerCut.pragma())?;
    // A checkpoint syncs, and a start must not wait for that: backup::Backups does it on the side.
    connection.query_row("PRAGMA wal_autocheckpoint = 0", [], |_| Ok(()))
}

/// Brings the tables to this version.
pub(super) fn migrate(connection: &Connection, path: &Path) -> Result<(), Error> {
    let fail = |error| failed(path, error);
    let found: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(fail)?;
    let known = i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX);
    if found > known || found < 0 {
        return Err(ErrorKind::StoreNewer { found, known }.into());
    }
    for (version, sql) in (1..=known).zip(MIGRATIONS).skip(usize::try_from(found).unwrap_or(0)) {
        connection
            .execute_batch(&format!("BEGIN IMMEDIATE; {sql} PRAGMA user_version = {version}; COMMIT;"))
            .map_err(fail)?;
    }
    Ok(())
}

/// An empty file that only we can read: projects' environments may hold secrets. SQLite gives the
/// files beside it the same mode.
pub(super) fn make_private(path: &Path) -> std::io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map(drop)
}

pub(super) fn sync(path: &Path) -> std::io::Result<()> {
    File::open(path)?.sync_all()
}

pub(super) fn sync_parent(path: &Path) -> std::io::Result<()> {
    path.parent().map_or(Ok(()), sync)
}
