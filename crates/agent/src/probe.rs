//! `garth-agent probe`: an ordinary process of the sandbox that tries what it is asked to and says what came of it.
//!
//! ```text
//! daemon --POST /garth/probe--> agent --stdin--> this program again, as a user's process would be
//!                                     <-stdout--
//! ```
//!
//! It judges nothing: what should come of a try is the daemon's knowledge, which trusts none of this.

mod network;
mod offspring;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use garth_kernel::attempt::{Call, attempt};
use garth_spec::{Observed, ProbeCall, ProbeReport, ProbeRequest, Try};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Pid;

/// Bytes of a request or an answer that are read at most.
pub(crate) const LARGEST: usize = 256 << 10;
/// Bytes of one file, list or link that are told.
const LONGEST: usize = 16 << 10;
/// Directories below `/dev` that are looked into.
const DEPTH: u32 = 3;

/// The program: a request on standard input, a report on standard output. With a word more it is a child of itself.
pub fn run(mut arguments: impl Iterator<Item = String>) -> io::Result<u8> {
    if let Some(part) = arguments.next() {
        return Ok(offspring::run(&part, arguments.next().as_deref()));
    }
    let mut text = Vec::new();
    io::stdin().lock().take(LARGEST as u64).read_to_end(&mut text)?;
    let request: ProbeRequest = serde_json::from_slice(&text)?;
    let observed = request.tries.iter().map(|one| observed(attempted(one))).collect();
    io::stdout().lock().write_all(&serde_json::to_vec(&ProbeReport { observed })?)?;
    Ok(0)
}

fn observed(result: io::Result<Observed>) -> Observed {
    result.unwrap_or_else(|error| Observed::Errno(error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error())))
}

fn attempted(one: &Try) -> io::Result<Observed> {
    match one {
        Try::Read(path) => beginning(path),
        Try::OpenForWrite(path) => {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty())?;
            Ok(Observed::Done)
        }
        Try::Entries(path) => {
            let mut names: Vec<String> = fs::read_dir(path)?
                .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
                .collect::<io::Result<_>>()?;
            names.sort();
            Ok(text(names.join("\n")))
        }
        Try::Devices(path) => {
            let mut lines = Vec::new();
            devices(Path::new(path), DEPTH, &mut lines)?;
            lines.sort();
            Ok(text(lines.join("\n")))
        }
        Try::Link(path) => Ok(text(fs::read_link(path)?.to_string_lossy().into_owned())),
        Try::Identity(path) => {
            let found = fs::metadata(path)?;
            Ok(text(format!("{}:{}", found.dev(), found.ino())))
        }
        Try::BlockDevice { major, minor } => block_device(*major, *minor),
        Try::Call(ProbeCall::UnshareUser) => offspring::unshare(),
        Try::Call(call) => attempt(kernel_call(*call)).map(|()| Observed::Done),
        Try::Mount(kind) => mount(kind),
        Try::RemountWritable(path) => remount(path),
        Try::Signal(pid) => {
            let pid = Pid::from_raw(*pid).ok_or(io::ErrorKind::InvalidInput)?;
            rustix::process::test_kill_process(pid)?;
            Ok(Observed::Done)
        }
        Try::Connect(address) => network::connect(*address).map(|()| Observed::Done),
        Try::Loopback => network::loopback().map(|()| Observed::Done),
        Try::Allocate(bytes) => offspring::allocate(*bytes),
        Try::Threads(count) => offspring::threads(*count),
    }
}

fn devices(directory: &Path, depth: u32, lines: &mut Vec<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (kind, name) = (entry.file_type()?, entry.file_name());
        if kind.is_dir() && depth > 0 {
            devices(&entry.path(), depth - 1, lines)?;
        }
        let letter = if kind.is_block_device() { 'b' } else { 'c' };
        if kind.is_block_device() || kind.is_char_device() {
            let number = entry.metadata()?.rdev();
            let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
            lines.push(format!("{letter} {major}:{minor} {}", name.to_string_lossy()));
        }
    }
    Ok(())
}

fn text(mut text: String) -> Observed {
    let end = (0..=LONGEST.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.truncate(end);
    Observed::Text(text)
}

fn beginning(path: &str) -> io::Result<Observed> {
    // Not to wait at /proc/kmsg and the like, which are empty for now.
    let fd =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    let mut bytes = Vec::new();
    File::from(fd).take(LONGEST as u64).read_to_end(&mut bytes)?;
    Ok(text(String::from_utf8_lossy(&bytes).into_owned()))
}

pub(super) fn kernel_call(call: ProbeCall) -> Call {
    match call {
        ProbeCall::Bpf => Call::Bpf,
        ProbeCall::PerfEventOpen => Call::PerfEventOpen,
        ProbeCall::Keyctl => Call::Keyctl,
        ProbeCall::IoUringSetup => Call::IoUringSetup,
        ProbeCall::OpenByHandleAt => Call::OpenByHandleAt,
        ProbeCall::Userfaultfd => Call::Userfaultfd,
        ProbeCall::Syslog => Call::Syslog,
        ProbeCall::InitModule => Call::InitModule,
        ProbeCall::UnshareUser => Call::UnshareUser,
    }
}

/// A name that nobody else uses, where the sandbox's root can write; removed when dropped.
struct Scratch(PathBuf);

impl Scratch {
    fn name() -> Self {
        let own = format!(".garth-probe-{}", std::process::id());
        let parent = ["/run", "/dev/shm", "/tmp"].into_iter().find(|dir| Path::new(dir).is_dir()).unwrap_or("/");
        Self(Path::new(parent).join(own))
    }

    fn directory() -> io::Result<Self> {
        let scratch = Self::name();
        fs::create_dir(&scratch.0)?;
        Ok(scratch)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0).or_else(|_| fs::remove_file(&self.0));
    }
}

fn block_device(major: u32, minor: u32) -> io::Result<Observed> {
    let node = Scratch::name();
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, &node.0, FileType::BlockDevice, mode, rustix::fs::makedev(major, minor))?;
    // A number that no driver has cannot be opened, but the node could be made.
    match rustix::fs::open(&node.0, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
        Ok(_) | Err(rustix::io::Errno::NXIO | rustix::io::Errno::NODEV) => Ok(Observed::Done),
        Err(error) => Err(error.into()),
    }
}

fn mount(kind: &str) -> io::Result<Observed> {
    let place = Scratch::directory()?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    rustix::mount::mount(kind, &place.0, kind, flags, c"")?;
    rustix::mount::unmount(&place.0, UnmountFlags::DETACH)?;
    Ok(Observed::Done)
}

fn remount(path: &str) -> io::Result<Observed> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::BIND;
    rustix::mount::mount_remount(path, flags, c"")?;
    rustix::mount::mount_remount(path, flags | MountFlags::RDONLY, c"")?;
    Ok(Observed::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn seen(one: Try) -> Observed {
        observed(attempted(&one))
    }

    #[test]
    fn what_is_found_is_told_and_what_is_refused_has_its_number() {
        let dir = tempfile::tempdir().expect("dir");
        let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
        fs::write(path("b"), "words").expect("file");
        fs::write(path("a"), "").expect("file");
        assert_eq!(seen(Try::Read(path("b"))), Observed::Text("words".to_owned()));
        assert_eq!(seen(Try::Entries(path(""))), Observed::Text("a\nb".to_owned()));
        assert_eq!(seen(Try::OpenForWrite(path("a"))), Observed::Done);
        assert_eq!(seen(Try::Read(path("c"))), Observed::Errno(2));
        assert_eq!(seen(Try::Identity("/..".to_owned())), seen(Try::Identity("/".to_owned())));
        assert_eq!(seen(Try::Signal(std::process::id() as i32)), Observed::Done);
    }

    #[test]
    fn a_long_file_is_cut_between_characters() {
        let Observed::Text(cut) = text("ä".repeat(LONGEST)) else { panic!("no text") };
        assert_eq!(cut.len(), LONGEST);
        assert!(text(format!("a{}", "ä".repeat(LONGEST))) != Observed::Text(String::new()));
    }

    #[test]
    fn a_port_that_is_open_and_one_that_is_not_differ() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
        let address = listener.local_addr().expect("address");
        assert_eq!(seen(Try::Connect(address)), Observed::Done);
        assert_eq!(seen(Try::Loopback), Observed::Done);
        drop(listener);
        // A program that another test starts has, for a moment, a copy of it.
        let refused = Observed::Errno(rustix::io::Errno::CONNREFUSED.raw_os_error());
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while seen(Try::Connect(address)) != refused {
            assert!(std::time::Instant::now() < deadline, "nobody listens any more");
        }
    }
}
