//! A daemon of its own for one test, in a data directory of its own, and the check that nothing of it stays.
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No command of a test takes longer; one that does is a hang. A move out of a translated guest takes minutes.
const DEADLINE: Duration = Duration::from_secs(600);

pub struct Yard {
    dir: tempfile::TempDir,
}

/// What a command left behind.
pub struct Done {
    pub code: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl std::fmt::Debug for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {}\n{}\n{}", self.code, self.text(), self.stderr)
    }
}

impl Done {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_owned()
    }
}

impl Yard {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("garth-test.").tempdir_in("/var/tmp").expect("a data directory");
        Self { dir }
    }

    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// A `garth` command that talks to this daemon.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).env("GARTH_DATA_DIR", self.data_dir()).env_remove("GARTH_HOST").env_remove("GARTH_FAULT");
        command
    }

    pub fn garth(&self, args: &[&str]) -> Done {
        self.garth_with(args, b"")
    }

    /// Runs a command with this standard input.
    pub fn garth_with(&self, args: &[&str], input: &[u8]) -> Done {
        let mut command = self.command(args);
        finish(&mut command, input)
    }

    /// Runs a command that must succeed; its standard output without the last newline.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.garth(args);
        assert_eq!(done.code, 0, "garth {args:?}: {done:?}");
        done.text()
    }

    /// Runs a shell line in a project; it must succeed.
    #[track_caller]
    pub fn sh(&self, name: &str, line: &str) -> String {
        self.ok(&["exec", name, "--", "sh", "-c", line])
    }

    /// Runs a shell line in a project and says whether it succeeded.
    pub fn sh_succeeds(&self, name: &str, line: &str) -> bool {
        self.garth(&["exec", name, "--", "sh", "-c", line]).code == 0
    }

    pub fn json(&self, args: &[&str]) -> serde_json::Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let done = self.garth(&args);
        serde_json::from_slice(&done.stdout).unwrap_or_else(|e| panic!("garth {args:?}: {e}: {done:?}"))
    }

    pub fn daemon_pid(&self) -> Option<i32> {
        std::fs::read_to_string(self.data_dir().join("garth.pid")).ok()?.trim().parse().ok()
    }

    /// Ends the daemon as a crash would.
    pub fn kill_daemon(&self) {
        self.end_daemon(rustix::process::Signal::KILL);
    }

    /// Ends the daemon as an administrator would.
    pub fn terminate_daemon(&self) {
        self.end_daemon(rustix::process::Signal::TERM);
    }

    fn end_daemon(&self, signal: rustix::process::Signal) {
        let Some(pid) = self.daemon_pid().and_then(rustix::process::Pid::from_raw) else { return };
        let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { return };
        let _ = rustix::process::pidfd_send_signal(&pidfd, signal);
        let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
        let limit = rustix::event::Timespec { tv_sec: 30, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut polled, Some(&limit)), Ok(1), "the daemon does not end");
    }

    /// The pids, on the host, of the inits of this daemon's sandboxes.
    pub fn inits(&self) -> Vec<i32> {
        let names: Vec<String> = self.project_names();
        names
            .iter()
            .filter_map(|name| self.json(&["inspect", name])["pid"].as_i64())
            .filter_map(|pid| i32::try_from(pid).ok())
            .collect()
    }

    pub fn project_names(&self) -> Vec<String> {
        self.ok(&["ls", "-a", "-q"]).lines().map(str::to_owned).collect()
    }

    /// What this daemon has on the host besides files: mounts, loop devices.
    pub fn traces(&self) -> Vec<String> {
        let dir = self.data_dir().to_string_lossy().into_owned();
        let mut traces = Vec::new();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
        traces.extend(mounts.lines().filter(|l| l.contains(&dir)).map(|l| format!("mount: {l}")));
        for entry in std::fs::read_dir("/sys/block").expect("/sys/block").flatten() {
            let backing = std::fs::read_to_string(entry.path().join("loop/backing_file")).unwrap_or_default();
            if backing.contains(&dir) {
                traces.push(format!("loop device: {}", entry.path().display()));
            }
        }
        traces
    }

    /// Those that stay: a daemon of another test that made a mount namespace at this moment has copies of the mounts until it
    /// drops them.
    pub fn lasting_traces(&self) -> Vec<String> {
        let deadline = Instant::now() + PATIENCE;
        let mut traces = self.traces();
        while !traces.is_empty() && Instant::now() < deadline {
            std::thread::sleep(PAUSE);
            traces = self.traces();
        }
        traces
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        for name in self.garth(&["ls", "-a", "-q"]).text().lines() {
            self.garth(&["rm", "-f", name]);
        }
        self.terminate_daemon();
        let traces = self.lasting_traces();
        if !std::thread::panicking() {
            assert!(traces.is_empty(), "left behind: {traces:#?}");
        }
    }
}

/// The program under test; inside a virtual machine it is not where it was built.
pub fn program() -> std::ffi::OsString {
    std::env::var_os("GARTH_TEST_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_garth").into())
}

/// Runs a command to its end, feeding and reading all its streams.
pub fn finish(command: &mut Command, input: &[u8]) -> Done {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("garth starts");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_owned();
    // A program that does not read its input closes it early; that is not the test's failure.
    let feed = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = drain(child.stdout.take().expect("piped"));
    let stderr = drain(child.stderr.take().expect("piped"));
    let Some(status) = wait(&mut child) else { panic!("hangs: {command:?}") };
    feed.join().expect("feeder");
    Done {
        code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        stdout: stdout.join().expect("reader"),
        stderr: String::from_utf8_lossy(&stderr.join().expect("reader")).into_owned(),
    }
}

fn drain(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        all
    })
}

fn wait(child: &mut Child) -> Option<std::process::ExitStatus> {
    let pid = rustix::process::Pid::from_child(child);
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("pidfd");
    let mut polled = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
    let limit = rustix::event::Timespec { tv_sec: DEADLINE.as_secs() as i64, tv_nsec: 0 };
    if rustix::event::poll(&mut polled, Some(&limit)) != Ok(1) {
        let _ = child.kill();
        return None;
    }
    Some(child.wait().expect("wait"))
}

/// How long something may take that comes sooner or later: a guest that is translated, on a busy machine, takes minutes.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks: what is waited for needs the processor.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks until the answer is yes; fails the test when it never is.
#[track_caller]
pub fn eventually(what: &str, mut yes: impl FnMut() -> bool) {
    let start = Instant::now();
    while !yes() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Says that something was not tried here, past the harness, which keeps to itself what a test prints that passes. Where
/// nothing is to be missing (`GARTH_TEST_NO_SKIP`, as in CI), it fails.
#[track_caller]
pub fn skip(test: &str, what: &str) {
    let _ = writeln!(std::io::stderr(), "SKIP {test}: {what}");
    assert!(std::env::var_os("GARTH_TEST_NO_SKIP").is_none(), "{test} was skipped: {what}");
}

/// A file in the data directory's neighbourhood for the test's own input.
pub fn scratch(yard: &Yard, name: &str, content: &[u8]) -> PathBuf {
    let path = yard.data_dir().join(name);
    std::fs::write(&path, content).expect("scratch file");
    path
}

/// Does it with a project of every level on this host's kernel; says which this machine has not.
pub fn at_each_level(test: &str, options: &[&str], check: impl Fn(&Yard, &str)) {
    let yard = Yard::new();
    let doctor = yard.garth(&["doctor"]).text();
    for level in ["default", "sysbox"] {
        if doctor.contains(&format!("runtime {level}/native: works")) {
            yard.ok(&[&["create", level, "--runtime", level, "--network", "none"], options].concat());
            check(&yard, level);
            yard.garth(&["rm", "-f", level]);
        } else {
            skip(test, &format!("the runtime {level}"));
        }
    }
}
