//! The cluster, the operator, and a gateway for each test.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use garth_cluster_lab::{BUSYBOX, Lab};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::yard::{Done, finish, program, skip};

/// The image with the agent.
const GARTH_IMAGE: &str = "localhost/garth:test";

/// Where Garth's own parts would run.
pub const HOME: &str = "garth";

/// What all tests share.
pub struct Cluster {
    pub lab: Lab,
    /// Ends with the tests.
    _operator: Process,
}

/// One test's namespace, and its gateway.
pub struct Stage {
    pub lab: &'static Lab,
    pub namespace: String,
    dir: tempfile::TempDir,
    gateway: Process,
    /// Last: the next test may begin once all of this one is gone.
    _turn: Turn,
}

/// Tests that break what all share are alone; the others go side by side.
enum Turn {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

static TURNS: RwLock<()> = RwLock::new(());

/// A program that ends when this does, or the tests do, whatever becomes of them.
pub struct Process(Child);

impl Process {
    /// Starts what the command says; a shell looks after it, until nobody holds the shell's standard input any more.
    pub fn start(command: &Command) -> Self {
        let mut shell = Command::new("sh");
        let script = "\"$@\" & exec 2>/dev/null; read -r _; kill -9 $!";
        shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
        Self(shell.spawn().expect("a shell"))
    }

    /// Has it do nothing meanwhile.
    pub fn at_rest(&self, work: impl FnOnce()) {
        let shell = self.0.id();
        let children = std::fs::read_to_string(format!("/proc/{shell}/task/{shell}/children")).expect("of the shell");
        let pid = children.split_whitespace().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?)).expect("a child");
        kill_process(pid, Signal::STOP).expect("stopped");
        work();
        kill_process(pid, Signal::CONT).expect("goes on");
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| {
        let lab = Lab::with_node().expect("a cluster");
        let archive = lab.state().join("garth.tar");
        let out = ["cluster", "image", "--agent-only", "--name", GARTH_IMAGE, "--output"];
        garth(Command::new(program()).args(out).arg(&archive));
        lab.import_archive(&archive).expect("the agent's image");
        lab.apply(&rights("default")).expect("definitions and rights");
        let operator = operator(&lab, "first");
        Cluster { lab, _operator: operator }
    })
}

/// An operator with the rights of its manifests and no others.
pub fn operator(lab: &Lab, identity: &str) -> Process {
    let kubeconfig = lab.service_account(HOME, "garth-operator").expect("the operator's account");
    let mut log = File::create(lab.state().join(format!("operator-{identity}.log"))).expect("a log");
    let mut command = Command::new(program());
    command.args(["operator", "--agent-image", GARTH_IMAGE, "--namespace", HOME, "--identity", identity]);
    let mut process = Process::start(command.env("KUBECONFIG", kubeconfig));
    let mut lines = process.0.stderr.take().expect("piped");
    std::thread::spawn(move || std::io::copy(&mut lines, &mut log));
    process
}

/// What `garth cluster manifests` prints, without what would run in the cluster: that runs beside it here.
pub fn rights(projects: &str) -> String {
    let mut command = Command::new(program());
    let all = garth(command.args(["cluster", "manifests", "--namespace", HOME, "--projects", projects]));
    let kept = all.split("---\n").filter(|object| !object.contains("kind: Deployment"));
    kept.collect::<Vec<_>>().join("---\n")
}

#[track_caller]
fn garth(command: &mut Command) -> String {
    let done = finish(command, b"");
    assert_eq!(done.code, 0, "{command:?}: {done:?}");
    done.text()
}

impl Stage {
    /// None where no cluster can run; that is said.
    pub fn open(test: &str) -> Option<Self> {
        let turn = || Turn::Shared { _guard: TURNS.read().unwrap_or_else(PoisonError::into_inner) };
        is_possible(test).then(|| Self::of(turn()))
    }

    /// For a test that breaks what all share.
    pub fn alone(test: &str) -> Option<Self> {
        let turn = || Turn::Alone { _guard: TURNS.write().unwrap_or_else(PoisonError::into_inner) };
        is_possible(test).then(|| Self::of(turn()))
    }

    fn of(turn: Turn) -> Self {
        let lab = &cluster().lab;
        let namespace = lab.namespace().expect("a namespace");
        let strict = ["label", "namespace", &namespace, "pod-security.kubernetes.io/enforce=restricted"];
        lab.run(&strict).expect("a label");
        lab.apply(&rights(&namespace)).expect("the gateway's rights");
        let kubeconfig = lab.service_account(HOME, "garth-gateway").expect("the gateway's account");
        let dir = tempfile::Builder::new().prefix("garth-test.").tempdir_in("/var/tmp").expect("a directory");
        let gateway = gateway(&namespace, &kubeconfig, dir.path());
        Self { lab, namespace, dir, gateway, _turn: turn }
    }

    pub fn data_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Ends the gateway as a crash would, and starts another.
    pub fn restart_gateway(&mut self) {
        let kubeconfig = self.lab.service_account(HOME, "garth-gateway").expect("the gateway's account");
        self.gateway.kill();
        self.gateway = gateway(&self.namespace, &kubeconfig, self.dir.path());
    }

    /// Where its gateway answers.
    pub fn host(&self) -> String {
        format!("unix://{}", self.dir.path().join("garth.sock").display())
    }

    pub fn garth(&self, args: &[&str]) -> Done {
        self.garth_with(args, b"")
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).env("GARTH_HOST", self.host());
        command
    }

    pub fn garth_with(&self, args: &[&str], input: &[u8]) -> Done {
        finish(&mut self.command(args), input)
    }

    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.garth(args);
        assert_eq!(done.code, 0, "garth {args:?}: {done:?}\n{}", self.seen());
        done.text()
    }

    #[track_caller]
    pub fn sh(&self, name: &str, line: &str) -> String {
        self.ok(&["exec", name, "--", "sh", "-c", line])
    }

    /// An answer that must be a refusal with this code; its message and hint.
    #[track_caller]
    pub fn refused(&self, args: &[&str], code: &str) -> String {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let done = self.garth(&args);
        let answer: Value = serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{args:?}: {done:?}"));
        assert_eq!(answer["error"]["code"], code, "{args:?}: {answer}");
        format!("{} {}", answer["error"]["message"], answer["error"]["hint"])
    }

    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["--json"]).collect();
        let done = self.garth(&args);
        serde_json::from_slice(&done.stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {done:?}"))
    }

    /// kubectl in the test's namespace; it must succeed.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        let mut words = vec!["--namespace", self.namespace.as_str()];
        words.extend(args);
        self.lab.run(&words).unwrap_or_else(|error| panic!("{error:#}\n{}", self.seen()))
    }

    /// A manifest of a project of the busybox image; `more` are further lines of its spec.
    pub fn project(&self, name: &str, more: &str) -> String {
        format!(
            "apiVersion: garth.dev/v1alpha1
kind: Project
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  image: \"{BUSYBOX}\"
  limits: {{memory: 64Mi, disk: 1Gi}}
{more}",
            namespace = self.namespace
        )
    }

    pub fn apply(&self, manifest: &str) {
        self.lab.apply(manifest).expect("applied");
    }

    /// Waits until the project's condition has this reason, and returns its message.
    #[track_caller]
    pub fn comes_to(&self, project: &str, reason: &str) -> String {
        let condition = |part: &str| {
            let path = format!("-o=jsonpath={{.status.conditions[?(@.type==\"Ready\")].{part}}}");
            self.lab.run(&["--namespace", &self.namespace, "get", "project", project, &path]).unwrap_or_default()
        };
        let came = self.lab.wait_for(reason, || Ok(condition("reason") == reason));
        assert!(came.is_ok(), "{project} is {}: {}\n{}", condition("reason"), condition("message"), self.seen());
        condition("message")
    }

    /// Waits for something of the cluster.
    #[track_caller]
    pub fn until(&self, what: &str, happened: impl Fn() -> bool) {
        let came = self.lab.wait_for(what, || Ok(happened()));
        assert!(came.is_ok(), "{what} never came\n{}", self.seen());
    }

    /// What there is, for a test that fails.
    pub fn seen(&self) -> String {
        let kinds = "projects,pods,persistentvolumeclaims,events";
        self.lab.run(&["--namespace", &self.namespace, "get", kinds, "-o", "wide"]).unwrap_or_default()
    }
}

/// Whether a cluster can run here; it is said where none can.
pub fn is_possible(test: &str) -> bool {
    let possible = Lab::is_possible(test);
    if !possible {
        skip(test, "a cluster");
    }
    possible
}

fn gateway(namespace: &str, kubeconfig: &PathBuf, dir: &Path) -> Process {
    let mut command = Command::new(program());
    command.args(["serve", "--engine", "kubernetes", "--namespace", namespace, "--own-namespace", HOME]);
    command.args(["--default-image", BUSYBOX, "--start-within", "2m", "--listen", "127.0.0.1:0"]);
    command.env("GARTH_DATA_DIR", dir).env("KUBECONFIG", kubeconfig).env_remove("GARTH_HOST");
    serving(&command, dir)
}

/// A started `garth serve` once it answers; what it said until then is the file `log` of the directory.
pub fn serving(command: &Command, dir: &Path) -> Process {
    let mut process = Process::start(command);
    let mut log = BufReader::new(process.0.stderr.take().expect("piped"));
    let mut lines = String::new();
    while !lines.contains("\"ready\"") {
        let read = log.read_line(&mut lines).expect("its log");
        assert!(read > 0, "it ended: {lines}");
    }
    std::fs::write(dir.join("log"), &lines).expect("written");
    // A pipe that nobody reads would stop it.
    std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
    process
}

/// The address at which it listens for callers with keys.
pub fn address(dir: &Path) -> String {
    let log = std::fs::read_to_string(dir.join("log")).expect("its log");
    let from = log.find("127.0.0.1:").expect("an address");
    log[from..].chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect()
}

/// What a lease may take to change hands, on a busy machine: it is held for 15 s.
pub const TAKEOVER: Duration = Duration::from_secs(120);
