use std::fs;

use garth_spec::{ImageConfig, ProjectId, ProjectSpec, ProjectState};
use jiff::Timestamp;

use super::*;
use crate::project::random_bits;

fn project(name: &str) -> Project {
    Project {
        id: ProjectId::from_bits(random_bits()),
        name: name.parse().expect("name"),
        state: ProjectState::Stopped,
        ephemeral: false,
        spec: ProjectSpec { user: Some("web".to_owned()), ..ProjectSpec::default() },
        image: None,
        image_config: ImageConfig { cmd: vec!["sh".to_owned()], ..ImageConfig::default() },
        created_at: Timestamp::now(),
        started_at: Some(Timestamp::now()),
        ended: None,
        verified: Some(garth_verify::Verified {
            at: Timestamp::now(),
            runtime: garth_spec::Runtime::Default,
            checks: 2,
            failed: vec!["mounts".to_owned()],
        }),
        sandbox: None,
    }
}

fn open(dir: &Path) -> (Store, Origin) {
    Store::open(dir).expect("open")
}

/// A store with one project and a backup of it, closed.
fn filled() -> (tempfile::TempDir, Project) {
    let dir = tempfile::tempdir().expect("dir");
    let (store, origin) = open(dir.path());
    assert_eq!(origin, Origin::New);
    let project = project("web");
    store.insert(&project).expect("insert");
    store.save(&project, Durability::PowerCut).expect("save");
    store.backups().copy().expect("copy");
    (dir, project)
}

#[test]
fn a_store_of_the_first_version_is_taken_on() {
    let (dir, project) = filled();
    let connection = Connection::open(dir.path().join("store.db")).expect("open");
    connection
        .execute_batch("ALTER TABLE projects DROP COLUMN verified; PRAGMA user_version = 1")
        .expect("the first version");
    drop(connection);
    let (store, _) = open(dir.path());
    let older = Project { verified: None, ..project };
    assert_eq!(store.projects().expect("projects"), [older]);
}

#[test]
fn what_is_written_is_read_back() {
    let (dir, project) = filled();
    let (store, origin) = open(dir.path());
    assert_eq!((store.projects().expect("projects"), origin), (vec![project], Origin::Continued));
}

#[test]
fn a_second_project_of_one_name_is_refused() {
    let (dir, _) = filled();
    assert!(open(dir.path()).0.insert(&project("web")).is_err());
}

#[track_caller]
fn refused_and_kept(damage: impl FnOnce(&Path)) {
    let (dir, _) = filled();
    let path = dir.path().join("store.db");
    damage(&path);
    let before = fs::read(&path).expect("read");
    let error = Store::open(dir.path()).expect_err("damaged");
    assert!(matches!(error.kind(), ErrorKind::StoreCorrupt { .. }), "{error:?}");
    let hint = error.suggestion().expect("a hint");
    assert!(hint.contains("store.db.bak"), "{hint}");
    assert_eq!(fs::read(&path).expect("read"), before, "the file was changed");
}

#[test]
fn a_damaged_store_is_refused_and_kept() {
    refused_and_kept(|path| fs::write(path, b"").expect("write"));
    refused_and_kept(|path| fs::write(path, b"not a database").expect("write"));
    refused_and_kept(|path| fs::write(path, [0; 8192]).expect("write"));
    refused_and_kept(|path| {
        let mut bytes = fs::read(path).expect("read");
        bytes.truncate(bytes.len() / 2);
        fs::write(path, bytes).expect("write");
    });
    refused_and_kept(|path| {
        let mut bytes = fs::read(path).expect("read");
        let half = bytes.len() / 2;
        bytes[4096..half].fill(0xa5);
        fs::write(path, bytes).expect("write");
    });
}

#[test]
fn the_hint_of_a_damaged_store_brings_it_back() {
    let (dir, project) = filled();
    fs::write(dir.path().join("store.db"), b"not a database").expect("write");
    let hint = Store::open(dir.path()).expect_err("damaged").suggestion().expect("a hint");
    let command = hint.split("backup: ").nth(1).expect("a command").split(". Projects").next().expect("its end");
    assert!(std::process::Command::new("sh").args(["-c", command]).status().expect("sh").success(), "{command}");
    let (store, origin) = open(dir.path());
    assert_eq!((store.projects().expect("projects"), origin), (vec![project], Origin::Restored));
    drop(store);
    assert_eq!(open(dir.path()).1, Origin::Continued);
}

#[test]
fn a_missing_store_with_a_backup_is_not_begun_anew() {
    let (dir, _) = filled();
    fs::remove_file(dir.path().join("store.db")).expect("remove");
    assert!(matches!(Store::open(dir.path()).expect_err("missing").kind(), ErrorKind::StoreMissing(_)));
}

#[test]
fn no_one_else_can_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, _) = filled();
    let _open = open(dir.path());
    for file in fs::read_dir(dir.path()).expect("list").flatten() {
        assert_eq!(file.metadata().expect("file").permissions().mode() & 0o077, 0, "{}", file.path().display());
    }
}

#[test]
fn a_half_made_store_is_begun_again() {
    let dir = tempfile::tempdir().expect("dir");
    fs::write(dir.path().join("store.db.new"), b"half").expect("write");
    assert_eq!(open(dir.path()).1, Origin::New);
}

#[test]
fn a_store_of_a_later_version_is_refused() {
    let (dir, _) = filled();
    let connection = Connection::open(dir.path().join("store.db")).expect("open");
    connection.execute_batch("PRAGMA user_version = 99").expect("later");
    drop(connection);
    let error = Store::open(dir.path()).expect_err("later");
    assert!(matches!(error.kind(), ErrorKind::StoreNewer { found: 99, .. }), "{error}");
}
