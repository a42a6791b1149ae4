//! What checks are tried on: a daemon of this machine, or the gateway of a cluster. They see no difference but its answers.

use std::fmt;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use garth_cluster_lab::{BUSYBOX, Image, Lab};
use serde_json::Value;

use crate::lives::Lives;
use crate::stage::{Process, Stage, address, serving};
use crate::yard::{Done, Yard, finish, program};

/// One line of the table.
#[derive(Clone, Copy)]
pub struct Check {
    /// The verb or option that it is about; docs/kubernetes.md has it among what is missing, where it is.
    pub word: &'static str,
    /// What a user relies on.
    pub what: &'static str,
    pub by: fn(&Endpoint) -> Checked,
}

/// What did not hold is a panic, as in any test.
pub type Checked = Result<(), Outcome>;

/// What came of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Pass,
    Fail,
    /// The engine says that it has no such thing.
    Missing,
    /// The surroundings of the test cannot show it.
    Untold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Local,
    Kubernetes,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "local",
            Self::Kubernetes => "kubernetes",
        })
    }
}

/// One engine, and a project that runs in it.
pub struct Endpoint {
    pub engine: Engine,
    host: String,
    address: String,
    scratch: tempfile::TempDir,
    pub lives: Lives,
    _held: Held,
}

/// What ends with it.
enum Held {
    Local { _daemon: Process, _yard: Yard },
    Cluster { _stage: Stage },
}

/// The project that checks of processes and files share.
pub const BOX: &str = "box";

/// The name on one machine of the image that the cluster's node has.
const IMAGE: &str = "busybox";

/// What makes a project small.
const SMALL: [&str; 4] = ["--memory", "64MiB", "--disk", "1GiB"];

impl Endpoint {
    /// A daemon with the image that the cluster's node has.
    pub fn local(lab: &Lab) -> Self {
        let yard = Yard::new();
        let mut command = yard.command(&["serve", "--listen", "127.0.0.1:0"]);
        command.env("GARTH_DATA_DIR", yard.data_dir());
        let daemon = serving(&command, yard.data_dir());
        let archive = yard.data_dir().join("busybox.tar");
        let image = Image::busybox(&lab.program("")).and_then(|image| image.save(&archive));
        image.expect("an archive of the image");
        yard.ok(&["image", "import", IMAGE, &archive.to_string_lossy()]);
        let host = format!("unix://{}", yard.data_dir().join("garth.sock").display());
        let scratch = yard.data_dir().to_owned();
        Self::of(Engine::Local, host, &scratch, Held::Local { _daemon: daemon, _yard: yard })
    }

    pub fn cluster(stage: Stage) -> Self {
        let (host, scratch) = (stage.host(), stage.data_dir().to_owned());
        Self::of(Engine::Kubernetes, host, &scratch, Held::Cluster { _stage: stage })
    }

    fn of(engine: Engine, host: String, dir: &Path, held: Held) -> Self {
        let scratch = tempfile::Builder::new().prefix("garth-test.").tempdir_in("/var/tmp").expect("a directory");
        let endpoint = Self { engine, host, address: address(dir), scratch, lives: Lives::default(), _held: held };
        endpoint.create(BOX, &[]);
        endpoint.ok(&["start", BOX]);
        endpoint
    }

    /// `garth`, to be run against it.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(args).env("GARTH_HOST", &self.host).env_remove("GARTH_DATA_DIR");
        command
    }

    pub fn garth(&self, args: &[&str]) -> Done {
        self.garth_with(args, b"")
    }

    pub fn garth_with(&self, args: &[&str], input: &[u8]) -> Done {
        finish(&mut self.command(args), input)
    }

    /// A command that must succeed; its standard output without the last newline.
    #[track_caller]
    pub fn ok(&self, args: &[&str]) -> String {
        let done = self.garth(args);
        assert_eq!(done.code, 0, "{}: garth {args:?}: {done:?}", self.engine);
        done.text()
    }

    /// A shell line in a project; it must succeed.
    #[track_caller]
    pub fn sh(&self, name: &str, line: &str) -> String {
        self.ok(&["exec", name, "--", "sh", "-ec", line])
    }

    /// What says that a project is small, and of the image that both engines have.
    fn small(&self) -> Vec<&str> {
        let image = match self.engine {
            Engine::Local => IMAGE,
            Engine::Kubernetes => BUSYBOX,
        };
        [&["--image", image], &SMALL[..]].concat()
    }

    /// A project of the image that both engines have.
    #[track_caller]
    pub fn create(&self, name: &str, more: &[&str]) {
        self.ok(&[&["create", name], &self.small()[..], more].concat());
    }

    /// What is asked of a small project, and may be missing.
    #[track_caller]
    pub fn try_create(&self, name: &str, more: &[&str]) -> Result<Value, Outcome> {
        self.ask(&[&["create", name], &self.small()[..], more].concat())
    }

    /// The same for one that goes with the command.
    pub fn run(&self, more: &[&str], program: &[&str]) -> Done {
        self.garth(&[&["run"], &self.small()[..], more, &["--"], program].concat())
    }

    /// The answer to a command that must succeed, or be said to be missing here.
    #[track_caller]
    pub fn ask(&self, args: &[&str]) -> Result<Value, Outcome> {
        let done = self.garth(&[args, &["--json"]].concat());
        let answer = serde_json::from_slice::<Value>(&done.stdout);
        let answer = answer.unwrap_or_else(|error| panic!("{}: garth {args:?}: {error}: {done:?}", self.engine));
        if answer["error"]["code"] == "unsupported" {
            assert!(answer["error"]["hint"].is_string(), "it does not say what to do instead: {answer}");
            return Err(Outcome::Missing);
        }
        assert_eq!(done.code, 0, "{}: garth {args:?}: {done:?}", self.engine);
        Ok(answer)
    }

    /// What an inspection says.
    #[track_caller]
    pub fn inspect(&self, name: &str) -> Value {
        self.ask(&["inspect", name]).expect("inspect is everywhere")
    }

    /// A command that must be refused by this exit code and error code.
    #[track_caller]
    pub fn refused(&self, args: &[&str], exit: i32, code: &str) {
        let done = self.garth(&[args, &["--json"]].concat());
        let answer: Value = serde_json::from_slice(&done.stdout).unwrap_or_default();
        assert_eq!((done.code, &answer["error"]["code"]), (exit, &code.into()), "{}: {args:?}: {done:?}", self.engine);
    }

    /// `garth`, as a caller over the network with this key.
    pub fn with_key(&self, key: &str, args: &[&str]) -> Done {
        let mut command = self.command(args);
        command.env("GARTH_HOST", format!("http://{}", self.address)).env("GARTH_API_KEY", key);
        finish(&mut command, b"")
    }

    /// The status and body of the answer to a request over the network.
    pub fn http(&self, key: &str, request: &str, body: &str) -> (u16, Value) {
        let mut stream = TcpStream::connect(&self.address).expect("connects");
        let head = format!(
            "{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nauthorization: Bearer {key}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(head.as_bytes()).expect("asks");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answers");
        let status = answer.split(' ').nth(1).and_then(|word| word.parse().ok()).expect("a status");
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
        (status, serde_json::from_str(body).unwrap_or_default())
    }

    /// A file or directory of this name for a check's own use.
    pub fn scratch(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }
}

/// What was said to be missing by another way than the error `unsupported`.
pub fn present(is_there: bool) -> Checked {
    if is_there { Ok(()) } else { Err(Outcome::Missing) }
}
