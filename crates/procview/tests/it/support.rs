//! A mount that is attached nowhere: its files are reached through its descriptor, and it ends with it.

use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use garth_procview::{Cgroup, Owner, Served, Server, Sources, Started, View};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::time::{ClockId, clock_gettime};

pub const OWNER: Owner = Owner { uid: 500_000, gid: 500_001 };

/// A cgroup of version 1 of its own in each hierarchy; removed at the end.
pub struct OwnCgroup {
    name: String,
}

const HIERARCHIES: [&str; 4] = ["memory", "cpu", "cpuacct", "blkio"];

impl OwnCgroup {
    pub fn new(test: &str) -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let own = Self { name: format!("garth-procview-test-{}-{number}", std::process::id()) };
        for hierarchy in HIERARCHIES {
            if let Err(error) = fs::create_dir(own.path(hierarchy)) {
                eprintln!("SKIP {test}: the v1 cgroup hierarchy {hierarchy}: {error}");
                return None;
            }
        }
        Some(own)
    }

    fn path(&self, hierarchy: &str) -> PathBuf {
        Path::new("/sys/fs/cgroup").join(hierarchy).join(&self.name)
    }

    pub fn set(&self, hierarchy: &str, file: &str, value: &str) {
        fs::write(self.path(hierarchy).join(file), value).unwrap_or_else(|error| panic!("{file}: {error}"));
    }

    pub fn get(&self, hierarchy: &str, file: &str) -> String {
        fs::read_to_string(self.path(hierarchy).join(file)).unwrap()
    }

    /// Runs a command of the shell to its end in these cgroups.
    pub fn run(&self, command: &str) {
        let procs = HIERARCHIES.map(|hierarchy| self.path(hierarchy).join("cgroup.procs").display().to_string());
        let script = format!("for procs in {}; do echo $$ > $procs || exit 1; done; {command}", procs.join(" "));
        assert!(Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success(), "{command}");
    }

    /// Before its end: there must be nothing in it.
    pub fn remove(&self) {
        HIERARCHIES.iter().for_each(|hierarchy| fs::remove_dir(self.path(hierarchy)).unwrap());
    }

    fn open(&self) -> Cgroup {
        let [memory, cpu, cpuacct, blkio] =
            HIERARCHIES.map(|hierarchy| File::open(self.path(hierarchy)).unwrap().into());
        Cgroup::V1 { memory, cpu, cpuacct, blkio: Some(blkio) }
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        for hierarchy in HIERARCHIES {
            let _ = fs::remove_dir(self.path(hierarchy));
        }
    }
}

/// Now, as the start of a sandbox.
pub fn now() -> Started {
    let wall = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    Started { boottime: Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap(), wall, id: *b"0123456789abcdef" }
}

pub fn server(fuse: &OwnedFd, cgroup: &OwnCgroup, started: Started) -> Server {
    let sources = Sources { proc: File::open("/proc").unwrap().into(), cgroup: cgroup.open() };
    Server::new(fuse.try_clone().unwrap(), View::new(sources, started).unwrap(), OWNER)
}

/// A server in a thread; dropped, it ends as if killed: between two requests, with nothing told to the kernel.
pub struct Running {
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<Server>>,
}

impl Running {
    pub fn start(server: Server) -> Self {
        let (reader, stop) = std::io::pipe().unwrap();
        Self { stop: Some(stop), thread: Some(std::thread::spawn(move || serve(server, &reader))) }
    }

    pub fn stop(mut self) -> Server {
        self.stop = None;
        self.ended()
    }

    /// Waits until it ends by itself.
    pub fn ended(mut self) -> Server {
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(mut server: Server, stop: &PipeReader) -> Server {
    loop {
        let mut fds = [PollFd::new(&server, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        poll(&mut fds, None).unwrap();
        if !fds[1].revents().is_empty() {
            return server;
        }
        match server.serve() {
            Ok(Served::Waiting) => {}
            Ok(Served::Ended) => return server,
            Err(error) => {
                // Whoever reads would wait for ever.
                eprintln!("{error}: {:?}", std::error::Error::source(&error));
                std::process::exit(1);
            }
        }
    }
}

/// What a test needs; the fields end in this order, the mount before the last descriptor of its connection.
pub struct World {
    pub mount: OwnedFd,
    pub fuse: OwnedFd,
    pub cgroup: OwnCgroup,
}

impl World {
    /// Or `None` after saying what is missing.
    pub fn new(test: &str) -> Option<Self> {
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let fuse = match rustix::fs::open("/dev/fuse", flags, Mode::empty()) {
            Ok(fuse) => fuse,
            Err(error) => {
                eprintln!("SKIP {test}: /dev/fuse: {error}");
                return None;
            }
        };
        let mount = match mount(&fuse) {
            Ok(mount) => mount,
            Err(error) => {
                eprintln!("SKIP {test}: mounting FUSE: {error}");
                return None;
            }
        };
        Some(Self { mount, fuse, cgroup: OwnCgroup::new(test)? })
    }

    pub fn path(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.mount.as_raw_fd()))
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

fn mount(fuse: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let fd = fuse.as_raw_fd().to_string();
    for (key, value) in [("fd", fd.as_str()), ("rootmode", "40000"), ("user_id", "0"), ("group_id", "0")] {
        rustix::mount::fsconfig_set_string(fs.as_fd(), key, value)?;
    }
    rustix::mount::fsconfig_set_flag(fs.as_fd(), "allow_other")?;
    rustix::mount::fsconfig_create(fs.as_fd())?;
    rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}
