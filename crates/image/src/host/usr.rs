//! The machine's own `/usr` as one read-only file, for guests with a kernel of their own: EROFS, made without a mount.
//!
//! What is in it is the `/usr` of the day it was made. It is made again when it is asked for, not by itself: copying
//! gigabytes must not meet a start by surprise.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, ErrorKind};

const MKFS: &str = "mkfs.erofs";

/// The file, made now if there is none. One process makes it at a time; the others wait.
///
/// # Errors
/// [`ErrorKind::ProgramMissing`] without erofs-utils; [`ErrorKind::NoSpace`].
pub fn usr(cache_dir: &Path) -> Result<PathBuf, Error> {
    let directory = cache_dir.join("usr");
    let path = directory.join("usr.erofs");
    if path.is_file() {
        return Ok(path);
    }
    let doing = |error: io::Error| Error::write(&path, error);
    DirBuilder::new().recursive(true).mode(0o755).create(&directory).map_err(doing)?;
    let lock = File::create(directory.join("lock")).map_err(doing)?;
    lock.lock().map_err(doing)?;
    if !path.is_file() {
        make(&path)?;
    }
    Ok(path)
}

fn make(path: &Path) -> Result<(), Error> {
    let doing = |error: io::Error| Error::write(path, error);
    let draft = path.with_extension("draft");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(doing(error)),
        _ => {}
    }
    let output = Command::new(MKFS).args(["-d0", "-zlz4"]).arg(&draft).arg("/usr").stdin(Stdio::null()).output();
    let output = match output {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(Error::new(ErrorKind::ProgramMissing(MKFS)));
        }
        output => output.map_err(doing)?,
    };
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().last().unwrap_or_default().to_owned();
        let _ = fs::remove_file(&draft);
        return Err(if last.contains("No space left") {
            Error::new(ErrorKind::NoSpace)
        } else {
            doing(io::Error::other(last))
        });
    }
    File::open(&draft).and_then(|file| file.sync_all()).and_then(|()| fs::rename(&draft, path)).map_err(doing)
}
