//! A program of the host, and the files it needs to start.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind};
use crate::vmm::{Access, Shown};

/// Directories that are looked through besides PATH: a daemon's may be short.
const DIRECTORIES: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/bin", "/usr/libexec"];

/// A program and the libraries that it is linked with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
    libraries: Vec<PathBuf>,
}

impl Program {
    /// Looks for a program and asks for its version; the first line of that is kept.
    pub(crate) fn find(name: &str, install: &str) -> Result<Self, Error> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = std::env::split_paths(&path).chain(DIRECTORIES.iter().map(PathBuf::from));
        let found = directories.map(|directory| directory.join(name)).find(|path| path.is_file());
        Self::at(found.ok_or_else(|| Error::missing(name, install))?)
    }

    /// The same; a variable of the environment may name the file.
    pub(crate) fn named(variable: &str, name: &str, install: &str) -> Result<Self, Error> {
        match std::env::var_os(variable) {
            None => Self::find(name, install),
            Some(path) if Path::new(&path).is_file() => Self::at(path.into()),
            Some(path) => Err(Error::missing(Path::new(&path).display().to_string(), format!("{variable} names it"))),
        }
    }

    /// Refuses a program that is not what its name says.
    pub(crate) fn saying(self, word: &str) -> Result<Self, Error> {
        match self.version.starts_with(word) {
            true => Ok(self),
            false => Err(ErrorKind::NotAVmm { program: self.path.display().to_string() }.into()),
        }
    }

    /// The program at this path. It is asked once as long as it is the same file: to start it and to list its libraries
    /// takes longer than a warm guest.
    pub(crate) fn at(path: PathBuf) -> Result<Self, Error> {
        static ASKED: Mutex<BTreeMap<(PathBuf, Identity), Program>> = Mutex::new(BTreeMap::new());
        let identity = identity(&path).map_err(Error::io("look at a program"))?;
        let asked = || ASKED.lock().unwrap_or_else(PoisonError::into_inner);
        let known = asked().get(&(path.clone(), identity)).cloned();
        match known.filter(|program| program.libraries.iter().all(|library| library.exists())) {
            Some(program) => Ok(program),
            None => {
                let program = Self::ask(path.clone())?;
                asked().insert((path, identity), program.clone());
                Ok(program)
            }
        }
    }

    fn ask(path: PathBuf) -> Result<Self, Error> {
        let said = output(Command::new(&path).arg("--version"))?;
        let version = said.lines().next().unwrap_or_default().trim().to_owned();
        if version.is_empty() {
            return Err(ErrorKind::NotAVmm { program: path.display().to_string() }.into());
        }
        // A program without libraries makes ldd fail: that is an answer as well.
        let listed = output(Command::new("ldd").arg(&path)).unwrap_or_default();
        Ok(Self { path, version, libraries: libraries(&listed) })
    }

    /// What it must see to start, itself included, each where it is on the host.
    pub(crate) fn shown(&self) -> impl Iterator<Item = Shown> + '_ {
        let files = std::iter::once(&self.path).chain(&self.libraries);
        files.map(|file| Shown { from: file.clone(), at: file.clone(), access: Access::Run })
    }
}

/// What changes when a file is another or was written: device, inode, time.
type Identity = (u64, u64, i64, i64);

fn identity(path: &Path) -> std::io::Result<Identity> {
    let metadata = std::fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino(), metadata.ctime(), metadata.ctime_nsec()))
}

fn output(command: &mut Command) -> Result<String, Error> {
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output();
    Ok(String::from_utf8_lossy(&output.map_err(Error::io("ask a program for its version"))?.stdout).into_owned())
}

/// Paths in what `ldd` (ldd(1)) prints: `libc.so.6 => /lib/libc.so.6 (0x…)`, `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn libraries(listed: &str) -> Vec<PathBuf> {
    let paths = listed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(|path| Path::new(path).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_prints() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibz.so.1 => /lib/libz.so.1 (0x00007f38)\n\
                      \t/lib64/ld-linux-x86-64.so.2 (0x00007f39)\n\tlibx.so => not found\n";
        let expected: [PathBuf; 2] = ["/lib/libz.so.1".into(), "/lib64/ld-linux-x86-64.so.2".into()];
        assert_eq!(libraries(listed), expected);
        assert!(libraries("\tnot a dynamic executable\n").is_empty());
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Program::find("no-such-vmm", "install it").expect_err("missing");
        assert_eq!((error.to_string().as_str(), error.hint()), ("no-such-vmm is not installed", Some("install it")));
    }
}
