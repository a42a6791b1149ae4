//! Finding the daemon, and starting one when none answers.
//!
//! ```text
//! connect -- ENOENT, ECONNREFUSED --> spawn `garth serve` (own session, log in the data directory)
//!                                       | one line on a pipe: ready, or why not
//!    ^------------------ again ---------+   (a lock in the data directory decides races)
//! ```

use std::ffi::OsString;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use garth_api::{Client, Place};
use http::uri::Authority;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep, timeout_at};

use crate::cli::Global;
use crate::exit::Exit;
use crate::failure::{Failure, Result};

/// How long a daemon may take until it answers: it may first have to make its pool, or to find out
/// what became of a thousand sandboxes.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a daemon keeps everything when nothing else is said.
const DATA_DIR: &str = "/var/lib/garth";

/// So many daemons in a row that end without a word are enough.
const DEATHS: u32 = 5;

/// How long a daemon of someone else's may take before another one is tried.
const OTHERS_TURN: Duration = Duration::from_secs(1);

/// `unix:///path/of/a.sock`, `https://host`, or `http://host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Host {
    Socket(PathBuf),
    Network { authority: Authority, encrypted: bool },
}

impl FromStr for Host {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Socket(path.into()));
        }
        let (rest, encrypted) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
            (Some(rest), _) => (rest, true),
            (None, rest) => (rest.unwrap_or_default(), false),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest).parse::<Authority>().ok();
        let fits = |authority: &Authority| {
            // Not the port of the web by mistake: nobody means that without encryption.
            (encrypted || authority.port_u16().is_some()) && !authority.as_str().contains('@')
        };
        match authority.filter(fits) {
            Some(authority) => Ok(Self::Network { authority, encrypted }),
            None => Err("write unix:///path/of/garth.sock, https://host or http://host:port"),
        }
    }
}

/// Where a daemon is, and whether this program may start it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// The daemon of a data directory; started on demand.
    DataDir(PathBuf),
    /// Someone else's daemon.
    Elsewhere(Place),
}

impl Endpoint {
    /// The endpoint that the flags name, else the environment, else the default. A host comes before
    /// a data directory, which becomes absolute.
    pub fn of(flags: &Global, environment: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let from_environment = |name: &str| environment(name).filter(|value| !value.is_empty());
        let elsewhere = |host: Host| {
            Self::Elsewhere(match host {
                Host::Socket(path) => Place::Socket(path),
                Host::Network { authority, encrypted } => {
                    let key = from_environment("GARTH_API_KEY").map(|key| key.to_string_lossy().trim().to_owned());
                    Place::Network { authority, encrypted, key }
                }
            })
        };
        if let Some(host) = &flags.host {
            return Ok(elsewhere(host.clone()));
        }
        if let (None, Some(host)) = (&flags.data_dir, from_environment("GARTH_HOST")) {
            let host = host.to_string_lossy().parse::<Host>();
            return host.map(elsewhere).map_err(|why| Failure::usage("GARTH_HOST names no daemon").hint(why));
        }
        let data_dir = flags.data_dir.clone().or_else(|| from_environment("GARTH_DATA_DIR").map(PathBuf::from));
        let absolute = std::path::absolute(data_dir.unwrap_or_else(|| DATA_DIR.into()));
        absolute.map(Self::DataDir).map_err(|error| Failure::io("cannot find the data directory", &error))
    }

    /// A client for it; nothing is connected yet.
    pub fn client(&self) -> Client {
        match self {
            Self::DataDir(dir) => Client::new(socket(dir)),
            Self::Elsewhere(place) => Client::at(place.clone()),
        }
    }

    /// Makes the daemon answer after `error` on connecting to it; the caller then tries again.
    pub async fn revive(&self, error: &io::Error) -> Result<()> {
        match (error.kind(), self) {
            // The queue of a daemon that runs is full; unix sockets do not wait (connect(2), EAGAIN).
            (io::ErrorKind::WouldBlock, _) => {
                sleep(Duration::from_millis(3)).await;
                Ok(())
            }
            (io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused, Self::DataDir(dir)) => start(dir).await,
            _ => Err(self.unreachable(error)),
        }
    }

    fn unreachable(&self, error: &io::Error) -> Failure {
        let client = self.client();
        let message = format!("no daemon answers at {}", client.place());
        let failure = Failure::new(Exit::Unreachable, "daemon_unreachable", message);
        let failure = failure.because(error);
        match (error.kind(), self) {
            (io::ErrorKind::PermissionDenied, _) => {
                failure.hint("run as root, or as a member of the group garth (usermod -aG garth USER)")
            }
            (io::ErrorKind::InvalidInput, _) => {
                failure.hint("a socket's path has at most 107 bytes: use a shorter one")
            }
            // As rustls says that it is not who it should be.
            (io::ErrorKind::InvalidData, Self::Elsewhere(Place::Network { encrypted: true, .. })) => failure
                .hint("SSL_CERT_FILE names a file of the authorities to believe; without TLS there, write http://"),
            (_, Self::Elsewhere(_)) => {
                failure.hint("GARTH_HOST or --host names this place: start its daemon with garth serve")
            }
            _ => failure,
        }
    }
}

/// The socket of the daemon of a data directory.
pub fn socket(data_dir: &Path) -> PathBuf {
    data_dir.join("garth.sock")
}

/// The log of a daemon that was started on demand.
pub fn log(data_dir: &Path) -> PathBuf {
    data_dir.join("garth.log")
}

/// What a daemon tells whoever started it, as one line of JSON.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It answers.
    Ready,
    /// Another daemon has the data directory.
    Taken,
    /// It cannot.
    Failed(Reason),
}

/// Why a daemon cannot run.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    code: String,
    message: String,
    hint: Option<String>,
    step: Option<Box<str>>,
    cause: Vec<String>,
}

impl From<Failure> for Reason {
    fn from(failure: Failure) -> Self {
        let Failure { code, message, hint, step, cause, .. } = failure;
        Self { code: code.into_owned(), message, hint, step, cause }
    }
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        let Reason { code, message, hint, step, cause } = reason;
        Self { exit: Exit::Unreachable, code: code.into(), message, hint, step, cause }
    }
}

async fn start(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + START_TIMEOUT;
    let mut deaths = 0;
    while Instant::now() < deadline {
        let told = timeout_at(deadline, read_report(spawn(dir)?)).await;
        match told.map_err(|_| slow(dir))? {
            Some(Report::Ready) => return Ok(()),
            Some(Report::Taken) if answers(dir).await => return Ok(()),
            // Whoever had the directory may have died since.
            Some(Report::Taken) => {}
            Some(Report::Failed(reason)) => return Err(reason.into()),
            None => deaths += 1,
        }
        if deaths == DEATHS {
            return Err(Failure::new(Exit::Unreachable, "daemon_start_failed", "the daemon ended as it started")
                .hint(format!("its log is {}", log(dir).display())));
        }
    }
    Err(slow(dir))
}

/// Whether the daemon that someone else is starting answers within a while.
async fn answers(dir: &Path) -> bool {
    let socket = socket(dir);
    let until = Instant::now() + OTHERS_TURN;
    while Instant::now() < until {
        if tokio::net::UnixStream::connect(&socket).await.is_ok() {
            return true;
        }
        sleep(Duration::from_millis(10)).await;
    }
    false
}

fn slow(dir: &Path) -> Failure {
    let seconds = START_TIMEOUT.as_secs();
    Failure::new(Exit::Unreachable, "daemon_start_failed", format!("the daemon did not answer within {seconds} s"))
        .hint(format!("its log is {}", log(dir).display()))
}

/// Starts `garth serve` in the background; what it reports comes through the pipe.
fn spawn(dir: &Path) -> Result<OwnedFd> {
    if !rustix::process::geteuid().is_root() {
        let message = format!("no daemon runs for {}, and only root can start one", dir.display());
        let failure = Failure::new(Exit::Unreachable, "daemon_unreachable", message);
        return Err(failure.hint("sudo garth serve, or use a data directory whose daemon runs"));
    }
    let cannot = |error: io::Error| {
        let failure = Failure::io(format!("cannot start a daemon for {}", dir.display()), &error);
        Failure { exit: Exit::Unreachable, code: "daemon_start_failed".into(), ..failure }
    };
    // Others may pass through to the socket, which has its own mode, and see nothing else.
    DirBuilder::new().recursive(true).mode(0o711).create(dir).map_err(cannot)?;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(log(dir)).map_err(cannot)?;
    let (reader, writer) = io::pipe().map_err(cannot)?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("garth").args(["serve", "--background", "--data-dir"]).arg(dir);
    command.env_clear().envs(kept_environment()).current_dir("/");
    command.stdin(Stdio::null()).stdout(writer).stderr(log);
    // Never waited for: it outlives this program, and init inherits it.
    command.spawn().map_err(cannot)?;
    Ok(reader.into())
}

/// The daemon lives long and serves everyone: it gets none of the first user's secrets.
fn kept_environment() -> impl Iterator<Item = (OsString, OsString)> {
    std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy();
        matches!(&*name, "PATH" | "HOME" | "LANG" | "TMPDIR" | "RUST_LOG" | "RUST_BACKTRACE")
            || (name.starts_with("GARTH_") && name != "GARTH_HOST")
    })
}

/// The one line; none when the daemon ended without a word.
async fn read_report(pipe: OwnedFd) -> Option<Report> {
    let mut pipe = pipe::Receiver::from_owned_fd(pipe).ok()?;
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && pipe.read_buf(&mut line).await.ok()? > 0 {}
    serde_json::from_slice(&line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_an_absolute_unix_socket_or_an_address_with_a_port() {
        assert_eq!("unix:///run/x.sock".parse(), Ok(Host::Socket("/run/x.sock".into())));
        let network = |text: &str, authority: &'static str, encrypted| {
            let authority = Authority::from_static(authority);
            assert_eq!(text.parse(), Ok(Host::Network { authority, encrypted }));
        };
        network("http://garth.example:7070/", "garth.example:7070", false);
        network("https://garth.example", "garth.example", true);
        network("https://[::1]:7070/", "[::1]:7070", true);
        for text in
            ["", "unix://x", "tcp://127.0.0.1:1", "/run/x.sock", "http://x", "http://k@x:1", "https://", "https://k@x"]
        {
            assert!(text.parse::<Host>().is_err(), "{text}");
        }
    }

    #[test]
    fn flags_come_before_the_environment_and_a_host_before_a_directory() {
        let flags = |data_dir: Option<&str>, host: Option<&str>| Global {
            data_dir: data_dir.map(Into::into),
            host: host.map(|path| Host::Socket(path.into())),
            json: false,
        };
        let both = |name: &str| match name {
            "GARTH_HOST" => Some("unix:///env.sock".into()),
            "GARTH_DATA_DIR" => Some("/env".into()),
            _ => None,
        };
        let none = |_: &str| None;
        assert_eq!(
            Endpoint::of(&flags(None, Some("/x.sock")), both),
            Ok(Endpoint::Elsewhere(Place::Socket("/x.sock".into())))
        );
        assert_eq!(Endpoint::of(&flags(Some("/d"), None), both), Ok(Endpoint::DataDir("/d".into())));
        assert_eq!(Endpoint::of(&flags(None, None), both), Ok(Endpoint::Elsewhere(Place::Socket("/env.sock".into()))));
        assert_eq!(Endpoint::of(&flags(None, None), none), Ok(Endpoint::DataDir(DATA_DIR.into())));
        let empty = |_: &str| Some(OsString::new());
        assert_eq!(Endpoint::of(&flags(None, None), empty), Ok(Endpoint::DataDir(DATA_DIR.into())));
    }

    #[tokio::test]
    async fn a_socket_of_someone_elses_is_never_started() {
        let endpoint = Endpoint::Elsewhere(Place::Socket("/x.sock".into()));
        let failure = endpoint.revive(&io::ErrorKind::ConnectionRefused.into()).await.expect_err("not started");
        assert_eq!(failure.exit, Exit::Unreachable);
    }

    #[tokio::test]
    async fn a_daemon_that_dies_without_a_word_is_noticed() {
        let (reader, writer) = io::pipe().expect("pipe");
        drop(writer);
        assert_eq!(read_report(reader.into()).await, None);
    }
}
