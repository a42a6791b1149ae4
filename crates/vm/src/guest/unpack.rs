//! A package's kernel and modules as files, without installing it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::error::{Error, ErrorKind};
use super::{modules, package};

/// More than all kernels and modules of one release.
const LARGEST: u64 = 4 << 30;

/// `dpkg-deb`, ended when it is no longer read.
struct Unpacker(Child);

impl Drop for Unpacker {
    fn drop(&mut self) {
        // It has ended, or nobody wants the rest.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Puts what a guest is made of into a directory: `vmlinuz`, `modules.builtin` and every module, all by their last name.
pub(super) fn unpack(package: &Path, into: &Path) -> Result<(), Error> {
    let mut command = Command::new("dpkg-deb");
    command.arg("--fsys-tarfile").arg(package).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn();
    let mut child = Unpacker(child.map_err(|error| Error::because(ErrorKind::NoApt("dpkg-deb"), error))?);
    let Some(stdout) = child.0.stdout.take() else { return Ok(()) };
    let mut tar = stdout.take(LARGEST);
    let taken = take(&mut tar, into);
    // An early end of the tar is the program's failure, and it says more of it.
    io::copy(&mut tar, &mut io::sink()).map_err(Error::file("read", package))?;
    let ended = child.0.wait().map_err(Error::file("read", package))?;
    if !ended.success() {
        let said = child.0.stderr.take().map(|stderr| io::read_to_string(stderr).unwrap_or_default());
        let said = package::last_words(&said.unwrap_or_default());
        return Err(ErrorKind::Program { program: "dpkg-deb", said }.into());
    }
    taken
}

fn take(tar: impl Read, into: &Path) -> Result<(), Error> {
    let mut archive = tar::Archive::new(tar);
    let unreadable = |error| Error::because(ErrorKind::Truncated(into.to_owned()), error);
    for entry in archive.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let Some(name) = entry.path().ok().and_then(|path| wanted(&path)) else { continue };
        if entry.header().entry_type().is_file() {
            let path = into.join(name);
            let copied = File::create(&path).and_then(|mut file| io::copy(&mut entry, &mut file));
            copied.map_err(Error::file("written", &path))?;
        }
    }
    Ok(())
}

/// What a file of a package is called here; none when it is of no use.
fn wanted(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let is_kernel = name == "vmlinuz" || name.starts_with("vmlinuz-");
    match name {
        _ if is_kernel => Some("vmlinuz".into()),
        "modules.builtin" => Some(name.into()),
        _ => modules::name(name).map(|_| name.into()),
    }
}

/// The kernel among the unpacked files.
pub(super) fn kernel(directory: &Path, package: &str) -> Result<PathBuf, Error> {
    let path = directory.join("vmlinuz");
    match fs::exists(&path) {
        Ok(true) => Ok(path),
        _ => Err(ErrorKind::Package { package: package.to_owned(), what: "holds no kernel" }.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_their_directories() {
        let check = |path: &str, expected: Option<&str>| {
            assert_eq!(wanted(Path::new(path)), expected.map(PathBuf::from), "{path}");
        };
        check("./boot/vmlinuz-6.12.1-cloud", Some("vmlinuz"));
        check("./usr/lib/modules/6.19/vmlinuz", Some("vmlinuz"));
        check("./lib/modules/6.12.1/kernel/fs/erofs/erofs.ko.xz", Some("erofs.ko.xz"));
        check("./lib/modules/6.12.1/modules.builtin", Some("modules.builtin"));
        check("../../etc/x.ko", Some("x.ko"));
        check("./boot/System.map-6.12.1", None);
        check("./..", None);
    }

    #[test]
    fn a_file_that_is_no_package_is_refused_with_what_dpkg_says() {
        let directory = tempfile::tempdir().expect("directory");
        let package = directory.path().join("it.deb");
        fs::write(&package, "text").expect("file");
        let error = unpack(&package, directory.path()).expect_err("no package");
        match error.kind() {
            ErrorKind::NoApt(_) => println!("SKIP a_file_that_is_no_package…: dpkg-deb is not installed"),
            kind => assert!(matches!(kind, ErrorKind::Program { program: "dpkg-deb", .. }), "{error}"),
        }
    }
}
