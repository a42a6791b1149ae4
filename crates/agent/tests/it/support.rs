//! A running agent and a client of it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use bytes::Bytes;
use connectrpc::ConnectError;
use connectrpc::client::{BoxFuture, ClientBody, ClientConfig, ClientTransport, ServerStream};
use garth_protocol::agent::{
    EndReason, Ended, EventView, Failed, ProcessesClient, SandboxClient, StartRequest, Stream, oneof::event::Event,
};
use garth_protocol::filesystem::FilesystemClient;
use http::{Request, Response, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustix::process::Signal;
use tokio::net::UnixStream;

/// No test waits longer for anything: what takes so long hangs, also on a busy machine or in a guest.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Fails the test when `future` takes too long.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, future).await.expect("it does not hang")
}

/// Bytes of memory that a process has, pages that it shares counted as its own.
pub fn resident(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup");
    let line = text.lines().find_map(|line| line.strip_prefix("Rss:")).expect("Rss");
    line.split_whitespace().next().and_then(|number| number.parse::<u64>().ok()).expect("a number") << 10
}

/// Whether tests can change users and own their children; says so when not.
pub fn is_root(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP {test}: root");
    }
    root
}

/// An agent that is told to end, and waited for, when dropped.
pub struct Agent {
    child: Child,
    /// What ends it and all that it started.
    end: Signal,
    directory: tempfile::TempDir,
}

impl Agent {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().expect("temporary directory"), "{}").await
    }

    /// `config` is JSON; what it leaves out has a value fit for tests.
    /// In a pid namespace of its own, where it is PID 1.
    pub async fn start_as_init() -> Self {
        let mut unshare = Command::new("unshare");
        unshare.args(["--fork", "--kill-child", "--pid", "--mount-proc", "--", env!("CARGO_BIN_EXE_garth-agent")]);
        let mut agent = Self::start_by(unshare, tempfile::tempdir().expect("temporary directory"), "{}").await;
        // unshare(1) ignores the other, and its end kills the namespace's init.
        agent.end = Signal::KILL;
        agent
    }

    /// In a mount namespace of its own, after `script` was run there. What it has there is below `seen`.
    pub async fn start_after(script: &str) -> Self {
        let mut unshare = Command::new("unshare");
        let script = format!("set -e\n{script}\nexec \"$0\" \"$@\"");
        unshare.args(["--mount", "--propagation", "private", "--", "sh", "-c", &script]);
        unshare.arg(env!("CARGO_BIN_EXE_garth-agent"));
        Self::start_by(unshare, tempfile::tempdir().expect("temporary directory"), "{}").await
    }

    /// Where its `path` is for this process.
    pub fn seen(&self, path: &Path) -> PathBuf {
        let inside = path.strip_prefix("/").expect("an absolute path");
        Path::new("/proc").join(self.pid().to_string()).join("root").join(inside)
    }

    pub async fn start_in(directory: tempfile::TempDir, config: &str) -> Self {
        Self::start_by(Command::new(env!("CARGO_BIN_EXE_garth-agent")), directory, config).await
    }

    pub async fn start_by(mut command: Command, directory: tempfile::TempDir, config: &str) -> Self {
        let path = |name: &str| directory.path().join(name);
        let mut fields = serde_json::json!({
            "env": [], "user": "root", "workdir": "/", "no_new_privs": false, "output_ring": 1 << 20
        });
        let given: serde_json::Value = serde_json::from_str(config).expect("JSON");
        for (name, value) in given.as_object().expect("an object") {
            fields[name] = value.clone();
        }
        std::fs::write(path("config"), fields.to_string()).expect("config");
        std::fs::create_dir_all(path("state")).expect("state directory");
        let _ = std::fs::remove_file(path("socket"));
        let child = command
            .args(["serve", "--socket"])
            .arg(path("socket"))
            .arg("--state-dir")
            .arg(path("state"))
            .arg("--config")
            .arg(path("config"))
            .spawn()
            .expect("the agent starts");
        let agent = Self { child, end: Signal::TERM, directory };
        soon(async {
            while UnixStream::connect(agent.socket()).await.is_err() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
        agent
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("socket")
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn processes(&self) -> ProcessesClient<Socket> {
        ProcessesClient::new(Socket(self.socket()), config())
    }

    pub fn filesystem(&self) -> FilesystemClient<Socket> {
        FilesystemClient::new(Socket(self.socket()), config())
    }

    /// Sends so many zeros as a new file, piece by piece.
    pub async fn upload(&self, path: &Path, size: u64) -> http::StatusCode {
        let piece = Bytes::from(vec![0u8; 1 << 20]);
        let pieces = (0..size >> 20).map(move |_| Ok(http_body::Frame::data(piece.clone())));
        let body = http_body_util::StreamBody::new(futures::stream::iter(pieces)).boxed();
        let request = Request::post(format!("/files?path={}", path.display()));
        let request = request.header("content-type", "application/octet-stream").body(body).expect("request");
        Socket(self.socket()).send(request).await.expect("answer").status()
    }

    pub fn sandbox(&self) -> SandboxClient<Socket> {
        SandboxClient::new(Socket(self.socket()), config())
    }

    /// Ends the agent as a sandbox that goes away would, and keeps its files.
    pub fn kill(mut self) -> tempfile::TempDir {
        self.end();
        std::mem::replace(&mut self.directory, tempfile::tempdir().expect("temporary directory"))
    }

    fn end(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_some()) {
            return;
        }
        // The agent kills all that it started, which SIGKILL of the agent alone would leave behind.
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, self.end);
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

fn config() -> ClientConfig {
    ClientConfig::new(Uri::from_static("http://agent"))
}

/// A transport that makes a connection per request.
#[derive(Clone)]
pub struct Socket(pub PathBuf);

impl ClientTransport for Socket {
    type ResponseBody = Incoming;
    type Error = ConnectError;

    fn send(&self, request: Request<ClientBody>) -> BoxFuture<'static, Result<Response<Incoming>, ConnectError>> {
        let path = self.0.clone();
        Box::pin(async move {
            let unavailable = |error: &dyn std::error::Error| ConnectError::unavailable(error.to_string());
            let stream = UnixStream::connect(path).await.map_err(|error| unavailable(&error))?;
            let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
                .await
                .map_err(|error| unavailable(&error))?;
            tokio::spawn(connection);
            sender.send_request(request).await.map_err(|error| unavailable(&error))
        })
    }
}

/// What comes back from Start and Attach.
pub type Events = ServerStream<Incoming, EventView<'static>>;

/// The next event; `None` when the stream has ended well.
pub async fn next(events: &mut Events) -> Option<Event> {
    soon(events.message()).await.expect("an event")?.to_owned_message().event
}

/// A stream read to its end.
#[derive(Debug, Default)]
pub struct Outcome {
    pub id: String,
    pub pid: u32,
    pub stdout: Vec<u8>,
    pub stderr: Vec<u8>,
    pub terminal: Vec<u8>,
    /// The offset of the first byte.
    pub first_offset: Option<u64>,
    pub ended: Option<Ended>,
    pub failed: Option<Failed>,
}

impl Outcome {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    pub fn terminal_text(&self) -> String {
        String::from_utf8_lossy(&self.terminal).into_owned()
    }

    #[track_caller]
    pub fn code(&self) -> i32 {
        let ended = self.ended.as_ref().expect("ended");
        assert_eq!(ended.reason, EndReason::END_REASON_EXITED, "{self:?}");
        ended.exit_code
    }

    #[track_caller]
    pub fn reason(&self) -> EndReason {
        self.ended.as_ref().expect("ended").reason.as_known().expect("a known reason")
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Started(started) => (self.id, self.pid) = (started.id, started.pid),
            Event::Output(output) => {
                self.first_offset.get_or_insert(output.offset);
                let stream = output.stream.as_known().expect("a known stream");
                let data: &Bytes = &output.data;
                match stream {
                    Stream::STREAM_STDERR => self.stderr.extend_from_slice(data),
                    Stream::STREAM_TERMINAL => self.terminal.extend_from_slice(data),
                    _ => self.stdout.extend_from_slice(data),
                }
            }
            Event::Ended(ended) => self.ended = Some(*ended),
            Event::Failed(failed) => self.failed = Some(*failed),
            Event::Keepalive(_) => {}
        }
    }
}

/// Reads to the end.
pub async fn collect(mut events: Events) -> Outcome {
    let mut outcome = Outcome::default();
    while let Some(event) = next(&mut events).await {
        outcome.take(event);
    }
    outcome
}

/// Reads until the terminal has shown `text`.
pub async fn until(events: &mut Events, outcome: &mut Outcome, text: &str) {
    while !outcome.terminal_text().contains(text) && !outcome.text().contains(text) {
        let event = next(events).await.unwrap_or_else(|| panic!("{text:?} never came: {outcome:?}"));
        outcome.take(event);
    }
}

pub fn start(argv: &[&str]) -> StartRequest {
    StartRequest { argv: argv.iter().map(|word| (*word).to_owned()).collect(), ..Default::default() }
}

pub fn shell(script: &str) -> StartRequest {
    start(&["sh", "-c", script])
}

/// Starts and reads to the end.
pub async fn run(agent: &Agent, request: StartRequest) -> Outcome {
    collect(soon(agent.processes().start(request)).await.expect("start")).await
}
