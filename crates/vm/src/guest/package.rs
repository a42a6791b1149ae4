//! The distribution's kernel, as apt gives it: the newest that its sources have, made for virtual machines.
//!
//! ```text
//! apt-cache pkgnames --> newest linux-image-* --Depends--> linux-binary-*, linux-modules-*, … --> apt-get download
//! ```
//!
//! apt checks the chain of signatures down to the digest of each package. Nothing is installed.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::digest;
use super::error::{Error, ErrorKind};

/// What kernel packages end with, best first: Debian's for clouds and for all, Ubuntu's for clouds and for all.
const FLAVOURS: [&str; 4] = ["-cloud-amd64", "-amd64", "-virtual", "-generic"];
/// What a kernel package may be split into (Debian from 6.19 on; Ubuntu has the modules apart).
const PARTS: [&str; 4] = ["linux-image-", "linux-binary-", "linux-modules-", "linux-base-"];

/// A package as apt knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) size: u64,
    pub(super) sha256: String,
    depends: Vec<String>,
}

/// The kernel's package and the parts of it that are packages of their own.
pub(super) fn newest() -> Result<Vec<Package>, Error> {
    let names = words("apt-cache", &["pkgnames", "linux-image-"])?;
    let name = choose(names.lines()).ok_or(ErrorKind::NoKernelPackage(std::env::consts::ARCH))?;
    let mut packages = vec![show(name)?];
    let mut at = 0;
    while let Some(package) = packages.get(at) {
        let parts: Vec<String> = package.depends.clone();
        for part in parts {
            if !packages.iter().any(|package| package.name == part) {
                packages.push(show(&part)?);
            }
        }
        at += 1;
    }
    Ok(packages)
}

/// Of the best flavour that there is the latest release.
fn choose<'a>(names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let ranked = names.filter_map(|name| {
        let release = name.strip_prefix("linux-image-")?;
        let flavour = FLAVOURS.iter().position(|flavour| release.ends_with(flavour))?;
        let release = release.strip_suffix(FLAVOURS[flavour])?;
        // What has another word in it is another flavour (rt), a candidate (rc1), or no kernel (unsigned).
        let is_release = release.starts_with(|c: char| c.is_ascii_digit()) && !release.contains("rc");
        let is_plain = release.split('-').all(|part| part.starts_with(|c: char| c.is_ascii_digit()));
        (is_release && is_plain).then(|| ((std::cmp::Reverse(flavour), numbers(release)), name))
    });
    ranked.max().map(|(_, name)| name)
}

/// `6.12.117+deb12` is 6, 12, 117, 12.
fn numbers(release: &str) -> Vec<u64> {
    release.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn show(name: &str) -> Result<Package, Error> {
    let text = words("apt-cache", &["show", "--no-all-versions", name])?;
    parse(name, &text)
        .ok_or_else(|| ErrorKind::Package { package: name.to_owned(), what: "has no size or digest" }.into())
}

/// A paragraph of deb822(5).
fn parse(name: &str, text: &str) -> Option<Package> {
    let field = |key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(": "));
        line.map(|value| value.trim().to_owned())
    };
    let depends = field("Depends").unwrap_or_default();
    let depends = depends.split([',', '|']).filter_map(|depend| depend.split_whitespace().next());
    // `linux-base` itself, without a release, is scripts for installing.
    let is_part = |depend: &&str| PARTS.iter().any(|part| depend.starts_with(part));
    Some(Package {
        name: name.to_owned(),
        version: field("Version")?,
        size: field("Size")?.parse().ok()?,
        sha256: field("SHA256")?,
        depends: depends.filter(is_part).map(str::to_owned).collect(),
    })
}

/// Has the packages as files in a directory, downloading those that are not there; says how many bytes are there.
///
/// The directory becomes that of apt's own user, where there is one: it is he who then talks to the network. So nothing
/// in it is to be believed, but by its digest.
pub(super) fn fetch(packages: &[Package], directory: &Path, progress: &mut dyn FnMut(u64)) -> Result<(), Error> {
    if let Some(user) = downloader() {
        std::os::unix::fs::chown(directory, Some(user), None).map_err(Error::file("given away", directory))?;
    }
    let missing: Vec<&Package> = packages.iter().filter(|package| package.file(directory).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let (all, left) = (sum(packages.iter()), sum(missing.iter().copied()));
    download(&missing, directory, &mut |percent| progress(all - left + (left as f64 * percent / 100.0) as u64))
}

fn downloader() -> Option<u32> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| line.strip_prefix("_apt:")?.split(':').nth(1)?.parse().ok())
}

fn sum<'a>(packages: impl Iterator<Item = &'a Package>) -> u64 {
    packages.map(|package| package.size).sum()
}

impl Package {
    /// A file that has the package's name and size.
    pub(super) fn file(&self, directory: &Path) -> Option<PathBuf> {
        let start = format!("{}_", self.name);
        let files = fs::read_dir(directory).ok()?.filter_map(Result::ok);
        let named = files.filter(|file| file.file_name().to_string_lossy().starts_with(&start));
        let mut paths = named.map(|file| file.path());
        paths.find(|path| fs::symlink_metadata(path).is_ok_and(|file| file.is_file() && file.len() == self.size))
    }

    /// Copies the file out of the reach of apt's user, and checks that it is what apt's signed lists say.
    pub(super) fn take(&self, directory: &Path, to: &Path) -> Result<(), Error> {
        let what = "is not what apt's lists say";
        let damaged = || Error::from(ErrorKind::Package { package: self.name.clone(), what });
        let path = self.file(directory).ok_or_else(damaged)?;
        fs::copy(&path, to).map_err(Error::file("copied", &path))?;
        if digest::of_file(to)? == self.sha256 {
            return Ok(());
        }
        // The next try downloads it again.
        fs::remove_file(&path).map_err(Error::file("removed", &path))?;
        Err(damaged())
    }
}

fn download(packages: &[&Package], directory: &Path, progress: &mut dyn FnMut(f64)) -> Result<(), Error> {
    const PROGRAM: &str = "apt-get download";
    let mut command = command("apt-get");
    // The status lines say how far it is; without a terminal it says nothing else.
    command.args(["download", "--quiet=2", "-o", "APT::Status-Fd=1"]).current_dir(directory);
    command.args(packages.iter().map(|package| format!("{}={}", package.name, package.version)));
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| Error::because(ErrorKind::NoApt("apt-get"), error))?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    // Two pipes, each read by a thread of its own: apt would wait for the one that nobody reads.
    let said = std::thread::spawn(move || stderr.map(|stderr| std::io::read_to_string(stderr).unwrap_or_default()));
    for line in stdout.into_iter().flat_map(|stdout| BufReader::new(stdout).lines().map_while(Result::ok)) {
        // dlstatus:1:42.5:Retrieving file 1 of 2
        let percent = line.strip_prefix("dlstatus:").and_then(|rest| rest.split(':').nth(1)?.parse().ok());
        percent.into_iter().for_each(&mut *progress);
    }
    let ended = child.wait().map_err(|error| Error::because(ErrorKind::NoApt("apt-get"), error))?;
    let said = said.join().ok().flatten().unwrap_or_default();
    if ended.success() { Ok(()) } else { Err(ErrorKind::Program { program: PROGRAM, said: last_words(&said) }.into()) }
}

/// What a program of apt's says.
fn words(program: &'static str, arguments: &[&str]) -> Result<String, Error> {
    let output = command(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| Error::because(ErrorKind::NoApt(program), error))?;
    if !output.status.success() {
        let said = last_words(&String::from_utf8_lossy(&output.stderr));
        return Err(ErrorKind::Program { program, said }.into());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// In English, and with what a proxy needs.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env("LC_ALL", "C.UTF-8");
    command
}

/// The last line that is an error, or the last.
pub(super) fn last_words(text: &str) -> String {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let error = lines().rfind(|line| line.starts_with("E:")).or_else(|| lines().next_back());
    error.unwrap_or("it said nothing").chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_for_clouds_is_chosen() {
        let check = |names: &[&str], expected: Option<&str>| assert_eq!(choose(names.iter().copied()), expected);
        check(&[], None);
        check(&["linux-image-cloud-amd64", "linux-image-amd64-signed-template"], None);
        let debian = [
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.12.99+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.18.1+deb12-amd64",
            "linux-image-6.19-rc7-cloud-amd64",
            "linux-image-6.18.1+deb12-rt-amd64",
            "linux-image-cloud-amd64",
        ];
        check(&debian, Some("linux-image-6.12.117+deb12-cloud-amd64"));
        check(&debian[5..8], Some("linux-image-6.18.1+deb12-amd64"));
        check(
            &["linux-image-6.8.0-45-generic", "linux-image-6.8.0-100-generic"],
            Some("linux-image-6.8.0-100-generic"),
        );
    }

    #[test]
    fn the_parts_of_a_kernel_are_followed() {
        let text = "Package: linux-image-6.19.3+deb14-cloud-amd64\nVersion: 6.19.3-1\nDepends: linux-base (>= 4.12~), \
                    linux-base-6.19.3+deb14-cloud-amd64 (= 6.19.3-1), linux-binary-6.19.3+deb14-cloud-amd64 | other, \
                    kmod, linux-modules-6.19.3+deb14-cloud-amd64\nSize: 1234\nSHA256: ab\nDescription: x\n Size: 9\n";
        let package = parse("it", text).expect("a package");
        assert_eq!((package.version.as_str(), package.size, package.sha256.as_str()), ("6.19.3-1", 1234, "ab"));
        let release = "6.19.3+deb14-cloud-amd64";
        assert_eq!(package.depends, ["base", "binary", "modules"].map(|part| format!("linux-{part}-{release}")));
    }

    #[test]
    fn a_file_that_is_not_what_the_lists_say_is_not_taken() {
        let (directory, to) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
        let (file, to) = (directory.path().join("it_1_amd64.deb"), to.path().join("copy"));
        fs::write(&file, "whole").expect("file");
        let package = |size, sha256: String| Package {
            name: "it".into(),
            version: "1".into(),
            size,
            sha256,
            depends: Vec::new(),
        };
        assert!(package(6, digest::of(b"whole")).file(directory.path()).is_none());
        package(5, digest::of(b"whole")).take(directory.path(), &to).expect("taken");
        assert_eq!(fs::read(&to).expect("copy"), b"whole");
        package(5, digest::of(b"other")).take(directory.path(), &to).expect_err("damaged");
        assert!(!file.exists(), "the next try downloads it again");
    }
}
