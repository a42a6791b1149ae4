use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use garth_api::{Client, CreateProject, Project};
use garth_server::{EngineChoice, GuestConfig, ServeConfig};
use garth_spec::{ByteSize, Limits, ProjectName, ProjectSpec};

use crate::traces;

/// Set for the process that is the daemon.
const DATA_DIR: &str = "GARTH_TEST_DATA_DIR";

/// Nothing here takes longer; what does is a hang.
const DEADLINE: Duration = Duration::from_secs(60);

#[test]
#[ignore = "the daemon of the other tests"]
fn serve() {
    let Some(data_dir) = std::env::var_os(DATA_DIR) else { return };
    let engine = EngineChoice::Local { guests: GuestConfig::default(), agent: garth_agent_binary::AGENT };
    let config = ServeConfig { data_dir: data_dir.into(), socket: None, listen: None, tls: None, engine, ready: None };
    if let Err(error) = garth_server::run(config) {
        panic!("{}", serde_json::to_string(&error.report()).expect("json"));
    }
}

/// A data directory and the daemons that come and go on it.
pub struct Yard {
    dir: tempfile::TempDir,
    pub client: Client,
}

/// One daemon.
pub struct Daemon(pub Child);

/// Whether this process may do what these tests need; says so when it may not.
pub fn skip(test: &str) -> bool {
    if rustix::process::geteuid().is_root() {
        return false;
    }
    println!("SKIP {test}: root");
    true
}

impl Yard {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("garth-it.").tempdir_in("/var/tmp").expect("a data directory");
        let client = Client::new(dir.path().canonicalize().expect("a path").join("garth.sock"));
        Self { dir, client }
    }

    pub fn path(&self) -> PathBuf {
        self.dir.path().canonicalize().expect("a path")
    }

    /// Starts a daemon that dies at `fault`, if that is the name of a step.
    pub fn spawn(&self, fault: &str) -> Daemon {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "--ignored", "--nocapture", "daemon::serve"]);
        command.env(DATA_DIR, self.path()).env("GARTH_FAULT", fault).env("GARTH_LOG", "info");
        let log = std::fs::File::options().create(true).append(true).open(self.path().join("garth.log")).expect("log");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("log")).stderr(log).process_group(0);
        Daemon(command.spawn().expect("a daemon"))
    }

    /// Starts a daemon and waits until it answers.
    pub async fn start(&self) -> Daemon {
        let mut daemon = self.spawn("");
        let deadline = Instant::now() + DEADLINE;
        while self.client.version().await.is_err() {
            if let Some(status) = daemon.0.try_wait().expect("wait") {
                panic!("the daemon ended with {status}:\n{}", self.log());
            }
            assert!(Instant::now() < deadline, "the daemon does not answer:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        daemon
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path().join("garth.log")).unwrap_or_default()
    }

    pub async fn create(&self, name: &str) -> Project {
        self.client.create(&self.project(name)).await.unwrap_or_else(|error| panic!("{error:?}\n{}", self.log()))
    }

    /// A small project without network.
    pub fn project(&self, name: &str) -> CreateProject {
        let limits = Limits { memory: ByteSize::mib(256), disk: ByteSize::mib(256), pids: 64, ..Limits::default() };
        let spec = ProjectSpec { limits, ..ProjectSpec::default() };
        CreateProject { name: Some(named(name)), ephemeral: false, spec: spec.into() }
    }

    /// Removes every project, ends the daemon, and says what it left on the host. Processes that other tests begin have, for a
    /// moment, copies of its mounts, and other daemons look at its loop device: what goes within a minute was not left.
    pub async fn clear(&self, daemon: Daemon) -> Vec<String> {
        for project in self.client.projects().await.expect("projects").projects {
            let removed = self.client.remove(&project.name).await;
            // What nobody holds goes by itself.
            assert!(removed.is_ok() || project.ephemeral, "{removed:?}\n{}", self.log());
        }
        let status = daemon.terminate();
        assert!(status.success(), "{status}:\n{}", self.log());
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let traces = traces::of(&self.path());
            if traces.is_empty() || Instant::now() > deadline {
                return traces;
            }
            tokio::task::yield_now().await;
        }
    }
}

impl Daemon {
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    pub fn kill(mut self) {
        self.0.kill().expect("kill");
        self.0.wait().expect("wait");
    }

    pub fn terminate(mut self) -> ExitStatus {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("terminate");
        self.wait()
    }

    /// Waits until it has ended by itself.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.0.try_wait().expect("wait") {
                return status;
            }
            assert!(Instant::now() < deadline, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A test that failed leaves no daemon.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            traces::clear(Path::new(&self.path()));
        }
    }
}

pub fn named(name: &str) -> ProjectName {
    name.parse().expect("a name")
}
