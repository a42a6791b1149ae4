//! The data directory, and the lock that gives it to one daemon at a time.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use crate::error::{Error, ErrorKind};

/// How long a daemon that goes down is waited for.
const LEAVING: Duration = Duration::from_secs(30);

/// A data directory that is ours until dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the directory if needed and locks it (flock(2) on `garth.lock`), or says who has it.
    ///
    /// Others may pass through it, to the socket, and cannot list it; what is below is root's alone.
    pub fn lock(path: &Path) -> Result<Self, Error> {
        let refuse = |error: io::Error| Error::because(ErrorKind::DataDir(path.to_owned()), error);
        DirBuilder::new().recursive(true).mode(0o711).create(path).map_err(refuse)?;
        let path = path.canonicalize().map_err(refuse)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(path.join("garth.lock")).map_err(refuse)?;
        let deadline = Instant::now() + LEAVING;
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) => {}
                Err(error) => return Err(refuse(error.into())),
            }
            // Without a pid the other is on its way out, or has come a moment ago.
            let pid = fs::read_to_string(path.join("garth.pid")).ok().and_then(|pid| pid.trim().parse().ok());
            if pid.is_some() || Instant::now() > deadline {
                return Err(ErrorKind::Locked { dir: path, pid: pid.unwrap_or(0) }.into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = path.join("garth.pid.new");
        fs::write(&pid, format!("{}\n", std::process::id())).map_err(refuse)?;
        fs::rename(&pid, path.join("garth.pid")).map_err(refuse)?;
        Ok(Self { path, _lock: lock })
    }

    /// Says that this daemon is on its way out, so that the next one waits for the lock.
    pub(crate) fn leave(&self) {
        let _ = fs::remove_file(self.path.join("garth.pid"));
    }

    /// The directory, without links in it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // Before the lock goes, so that it is never a later daemon's.
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_daemon() {
        let dir = tempfile::tempdir().expect("dir");
        let first = DataDir::lock(dir.path()).expect("the lock");
        let refused = DataDir::lock(dir.path()).expect_err("locked");
        assert!(matches!(refused.kind(), ErrorKind::Locked { pid, .. } if *pid == std::process::id()), "{refused}");
        drop(first);
        DataDir::lock(dir.path()).expect("free again");
    }

    #[test]
    fn the_next_daemon_waits_for_one_that_leaves() {
        let dir = tempfile::tempdir().expect("dir");
        let first = DataDir::lock(dir.path()).expect("the lock");
        first.leave();
        std::thread::scope(|scope| {
            let next = scope.spawn(|| DataDir::lock(dir.path()).map(drop));
            drop(first);
            next.join().expect("no panic").expect("the lock");
        });
    }
}
