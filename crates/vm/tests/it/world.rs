//! What the tests share: the files made of the distribution's kernel, once, and a program to boot.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use garth_vm::guest::{Artifacts, Error, ErrorKind, KernelSource, Options, Progress, setup};

/// Stands for the agent where nothing runs it.
pub const AGENT: &[u8] = b"agent";

pub fn make(data_dir: &Path, kernel: KernelSource, said: &mut Vec<Progress>) -> Result<Artifacts, Error> {
    let options = Options { data_dir, agent: AGENT, kernel };
    setup(&options, &mut |progress| said.push(progress))
}

/// Where the distribution's files are made; stays between runs, so that the packages are downloaded once.
pub fn data_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest-files")
}

/// The distribution's files; none, said loudly, when there is no apt or it reaches no mirror.
pub fn distribution(test: &str) -> Option<&'static Artifacts> {
    static MADE: OnceLock<Result<Artifacts, String>> = OnceLock::new();
    let made = MADE.get_or_init(|| match make(&data_dir(), KernelSource::Distribution, &mut Vec::new()) {
        Ok(made) => Ok(made),
        Err(error) => match error.kind() {
            ErrorKind::NoApt(_) | ErrorKind::NoKernelPackage(_) | ErrorKind::Program { .. } => Err(error.to_string()),
            kind => panic!("setup failed: {kind}: {:?}", std::error::Error::source(&error)),
        },
    });
    made.as_ref().map_err(|error| println!("SKIP {test}: a kernel package ({error})")).ok()
}

/// A static busybox: installed, or out of its package.
pub fn busybox(test: &str) -> Option<PathBuf> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("busybox");
    let program = directory.join("bin/busybox");
    if !program.exists() {
        std::fs::create_dir_all(&directory).expect("directory");
        let script = "apt-get download -qq busybox-static && dpkg-deb -x busybox-static_*.deb .";
        let made = Command::new("sh").args(["-c", script]).current_dir(&directory).stderr(Stdio::null()).status();
        if !made.is_ok_and(|status| status.success()) {
            println!("SKIP {test}: busybox-static from apt");
            return None;
        }
    }
    Some(program)
}

/// What a guest is booted with: the files, and a shell; none when one of them or QEMU is not to be had.
pub fn guest(test: &str) -> Option<(&'static Artifacts, PathBuf)> {
    if !is_installed("qemu-system-x86_64", test) {
        return None;
    }
    Some((distribution(test)?, busybox(test)?))
}

/// The kernel's package, which `distribution` has fetched.
pub fn package() -> PathBuf {
    let packages = std::fs::read_dir(data_dir().join("guest/packages")).expect("packages");
    packages.flatten().next().expect("a package").path()
}

pub fn is_installed(program: &str, test: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
    if !found {
        println!("SKIP {test}: {program}");
    }
    found
}
