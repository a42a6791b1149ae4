//! QMP: a line of JSON for an order, a line for its answer, events in between (QEMU's qmp-spec). What comes from the
//! program is bounded in size and time: a guest may have taken it over.

use std::io::{IoSlice, Read as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind};

/// How long an order may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than any answer to an order of ours.
const LONGEST_LINE: usize = 1 << 20;

/// A connection.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: UnixStream,
    unread: Vec<u8>,
}

impl Qmp {
    pub(super) fn connect(socket: &Path) -> Result<Self, Error> {
        let stream = UnixStream::connect(socket).map_err(Error::connection)?;
        let mut qmp = Self { stream, unread: Vec::new() };
        let deadline = Instant::now() + PATIENCE;
        let greeting = qmp.line("the greeting", deadline)?;
        if greeting.get("QMP").is_none() {
            return Err(Error::nonsense("the greeting"));
        }
        qmp.order("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Gives an order and waits for its answer.
    pub(super) fn order(&mut self, order: &str, arguments: Value) -> Result<Value, Error> {
        self.order_with(order, arguments, None)
    }

    /// The same, with a descriptor.
    pub(super) fn order_with(
        &mut self,
        order: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<Value, Error> {
        let mut text = json!({ "execute": order, "arguments": arguments }).to_string();
        text.push('\n');
        self.send(text.as_bytes(), fd)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut line = self.line(order, deadline)?;
            if line.get("event").is_some() {
                continue;
            }
            if let Some(error) = line.get("error") {
                let said = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
                return Err(Error::refused(order, said));
            }
            return line.get_mut("return").map(Value::take).ok_or_else(|| Error::nonsense(order));
        }
    }

    /// Waits for the next event of this name; its data.
    pub(super) fn event(&mut self, name: &str, deadline: Instant) -> Result<Value, Error> {
        loop {
            let mut line = self.line(name, deadline)?;
            if line.get("event").and_then(Value::as_str) == Some(name) {
                return Ok(line.get_mut("data").map(Value::take).unwrap_or_default());
            }
        }
    }

    fn send(&mut self, mut bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        self.stream.set_write_timeout(Some(PATIENCE)).map_err(Error::connection)?;
        let mut fds: Vec<BorrowedFd<'_>> = fd.into_iter().collect();
        while !bytes.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&fds));
            }
            let flags = SendFlags::NOSIGNAL;
            let sent = rustix::io::retry_on_intr(|| {
                rustix::net::sendmsg(self.stream.as_fd(), &[IoSlice::new(bytes)], &mut control, flags)
            });
            bytes = &bytes[sent.map_err(|error| Error::connection(error.into()))?..];
            fds.clear();
        }
        Ok(())
    }

    fn line(&mut self, order: &str, deadline: Instant) -> Result<Value, Error> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(|_| Error::nonsense(order));
            }
            if self.unread.len() > LONGEST_LINE {
                return Err(Error::nonsense(order));
            }
            self.read(order, deadline)?;
        }
    }

    fn read(&mut self, order: &str, deadline: Instant) -> Result<(), Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::silent(order));
        }
        self.stream.set_read_timeout(Some(left)).map_err(Error::connection)?;
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(ErrorKind::Gone.into()),
            Ok(count) => {
                self.unread.extend_from_slice(&buffer[..count]);
                Ok(())
            }
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                Err(Error::silent(order))
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(Error::connection(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::net::UnixListener;

    use super::*;

    /// A program that greets and then answers each line with the next of these.
    fn answering(answers: &'static [&'static str]) -> (tempfile::TempDir, Result<Qmp, Error>) {
        let directory = tempfile::tempdir().expect("directory");
        let path = directory.path().join("q");
        let listener = UnixListener::bind(&path).expect("listen");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let mut lines = BufReader::new(stream.try_clone().expect("clone")).lines();
            stream.write_all(b"{\"QMP\": {}}\n").expect("greet");
            for answer in std::iter::once(&"{\"return\": {}}").chain(answers) {
                if lines.next().is_none() {
                    return;
                }
                stream.write_all(answer.as_bytes()).and_then(|()| stream.write_all(b"\n")).expect("answer");
            }
        });
        (directory, Qmp::connect(&path))
    }

    fn refused(answers: &'static [&'static str]) -> ErrorKind {
        let (_directory, qmp) = answering(answers);
        qmp.expect("connected").order("stop", json!({})).expect_err("an error").into_kind()
    }

    #[test]
    fn an_answer_comes_behind_events() {
        let (_directory, qmp) = answering(&["{\"event\": \"STOP\"}\n{\"return\": {\"status\": \"paused\"}}"]);
        let answer = qmp.expect("connected").order("query-status", json!({})).expect("an answer");
        assert_eq!(answer["status"], "paused");
    }

    #[test]
    fn what_is_no_answer_is_an_error_of_its_own() {
        assert!(
            matches!(refused(&["{\"error\": {\"desc\": \"not now\"}}"]), ErrorKind::Refused { said, .. } if said == "not now")
        );
        assert!(matches!(refused(&["garbage"]), ErrorKind::Nonsense { .. }));
        assert!(matches!(refused(&["{}"]), ErrorKind::Nonsense { .. }));
        assert!(matches!(refused(&[]), ErrorKind::Gone));
    }

    #[test]
    fn an_endless_line_is_not_kept() {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let mut qmp = Qmp { stream: ours, unread: Vec::new() };
        std::thread::spawn(move || {
            let mut theirs = theirs;
            while theirs.write_all(&[b'x'; 4096]).is_ok() {}
        });
        let error = qmp.order("stop", json!({})).expect_err("endless");
        assert!(matches!(error.kind(), ErrorKind::Nonsense { .. }));
        assert!(qmp.unread.len() < 2 * LONGEST_LINE);
    }
}
