//! Calling the OCI runtime's program.
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::error::ErrorKind;
use crate::slots::Process;

/// How long the program may take for one command. Sysbox talks to two daemons and may move files.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most that is read of its log.
const LOG: u64 = 64 << 10;

/// The program with the directory that it keeps its state in.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) program: PathBuf,
    /// One directory for each container.
    pub(crate) state: PathBuf,
}

/// What a command has as its standard input, output and error.
pub(crate) struct Places(pub(crate) Stdio, pub(crate) Stdio, pub(crate) Stdio);

impl Places {
    /// Nothing to read and nowhere to write.
    pub(crate) fn none() -> Self {
        Self(Stdio::null(), Stdio::null(), Stdio::null())
    }
}

impl Program {
    /// Runs a command to its end; an error has its own words, which `log` gets.
    pub(crate) fn call(&self, log: &Path, words: &[&str], places: Places) -> Result<(), ErrorKind> {
        self.spawn(log, words, places).and_then(|child| self.wait(child, log))
    }

    /// The same, with something to read on its standard input.
    pub(crate) fn tell(&self, log: &Path, words: &[&str], text: &str) -> Result<(), ErrorKind> {
        let mut child = self.spawn(log, words, Places(Stdio::piped(), Stdio::null(), Stdio::null()))?;
        if let Some(mut input) = child.stdin.take() {
            // One that ends without reading says why in its log.
            let _ = input.write_all(text.as_bytes());
        }
        self.wait(child, log)
    }

    fn spawn(&self, log: &Path, words: &[&str], Places(input, output, error): Places) -> Result<Child, ErrorKind> {
        let command = Command::new(&self.program)
            .arg("--root")
            .arg(&self.state)
            .arg("--log")
            .arg(log)
            .args(["--log-format", "json"])
            .args(words)
            .current_dir("/")
            .stdin(input)
            .stdout(output)
            .stderr(error)
            .spawn();
        command.map_err(|e| self.said(format!("it does not run: {e}")))
    }

    fn wait(&self, mut child: Child, log: &Path) -> Result<(), ErrorKind> {
        let pid = i32::try_from(child.id()).map_err(|_| ErrorKind::Spawner)?;
        let handle = rustix::process::Pid::from_raw(pid).ok_or(ErrorKind::Spawner)?;
        let pidfd = rustix::process::pidfd_open(handle, rustix::process::PidfdFlags::empty())?;
        let process = Process { pid, pidfd };
        if !process.gone_within(PATIENCE)? {
            let _ = process.end();
            let _ = child.wait();
            return Err(self.said(format!("it did not end within {} s", PATIENCE.as_secs())));
        }
        let status = child.wait()?;
        match status.success() {
            true => Ok(()),
            false => Err(self.said(last_error(log).unwrap_or_else(|| format!("it ended with {status}")))),
        }
    }

    fn said(&self, said: String) -> ErrorKind {
        ErrorKind::OciRuntime { program: self.program.display().to_string(), said }
    }
}

/// The last error in a log of JSON lines.
fn last_error(log: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(log).ok()?.take(LOG).read_to_string(&mut text).ok()?;
    let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let mut errors = lines.filter(|line| line["level"] == "error" || line["level"] == "fatal");
    errors.next_back().and_then(|line| Some(line["msg"].as_str()?.to_owned()))
}
