//! HTTP/1.1 for orders to a program: one connection, one request, one answer, so that a late answer never meets another
//! request. What comes from the program is bounded in size and time: a guest may have taken it over.

use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::{Error, ErrorKind};
use crate::socket::{self, Directory};

/// How long an order may take that moves no memory.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);
/// Longer than any head and any body of an answer to an order of ours.
const LONGEST_HEAD: usize = 16 << 10;
const LONGEST_BODY: usize = 1 << 20;
const MOST_HEADERS: usize = 32;

/// What is asked of a program.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Request {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) body: Option<Value>,
}

impl Request {
    pub(crate) fn get(path: &str) -> Self {
        Self { method: "GET", path: path.to_owned(), body: None }
    }

    pub(crate) fn put(path: impl Into<String>, body: Value) -> Self {
        Self { method: "PUT", path: path.into(), body: Some(body) }
    }

    /// A PUT that says all by its path.
    pub(crate) fn put_nothing(path: &str) -> Self {
        Self { method: "PUT", path: path.to_owned(), body: None }
    }

    pub(crate) fn patch(path: impl Into<String>, body: Value) -> Self {
        Self { method: "PATCH", path: path.into(), body: Some(body) }
    }

    /// What errors call it.
    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    pub(crate) fn text(&self) -> String {
        let Self { method, path, body } = self;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n");
        match body.as_ref().map(Value::to_string) {
            None => format!("{head}\r\n"),
            Some(body) => {
                let length = body.len();
                format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
            }
        }
    }
}

/// Where a program takes orders.
#[derive(Debug)]
pub(crate) enum Api {
    /// A socket that the host made.
    Trusted(PathBuf),
    /// One that the program makes, by name.
    Own(Directory, &'static str),
}

impl Api {
    /// Asks, and waits for an answer that says that it was done; what else it says.
    pub(crate) fn order(&self, request: &Request, patience: Duration) -> Result<Value, Error> {
        let (order, deadline) = (request.name(), Instant::now() + patience);
        let mut stream = self.connect()?;
        // Whoever refuses may answer before all was read: the answer counts.
        let written = stream.write_all(request.text().as_bytes());
        let answer = read_answer(&mut stream, &order, deadline);
        let answer = answer.map_err(|error| written.err().map_or(error, |error| failed(error, &order)))?;
        match answer.status {
            200..=299 if answer.body.is_empty() => Ok(Value::Null),
            200..=299 => serde_json::from_slice(&answer.body).map_err(|_| Error::nonsense(&order)),
            _ => Err(Error::refused(&order, &said(&answer))),
        }
    }

    /// Waits until orders are taken.
    pub(crate) fn await_listener(&self) -> Result<(), Error> {
        match self {
            // The host listened before the program was started.
            Self::Trusted(_) => Ok(()),
            Self::Own(directory, name) => {
                directory.await_connection(name, PATIENCE).map(drop).map_err(Error::connection)
            }
        }
    }

    fn connect(&self) -> Result<UnixStream, Error> {
        let connected = match self {
            Self::Trusted(path) => socket::connect(path, PATIENCE),
            Self::Own(directory, name) => directory.connect(name, PATIENCE),
        };
        connected.map_err(Error::connection)
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    body: Vec<u8>,
}

/// Firecracker gives its reason in `fault_message`, Cloud Hypervisor a list from the outer to the inner.
fn said(answer: &Answer) -> String {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let parsed: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let chain = parsed.as_array().map(|chain| chain.iter().filter_map(text).collect::<Vec<_>>().join(": "));
    chain
        .or_else(|| parsed.get("fault_message").and_then(text))
        .unwrap_or_else(|| format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)))
}

fn read_answer(stream: &mut UnixStream, order: &str, deadline: Instant) -> Result<Answer, Error> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(head) = Head::parse(&bytes).map_err(|()| Error::nonsense(order))? {
            break head;
        }
        if bytes.len() > LONGEST_HEAD {
            return Err(Error::nonsense(order));
        }
        read(stream, &mut bytes, order, deadline)?;
    };
    let end = head.size + head.body;
    while bytes.len() < end {
        read(stream, &mut bytes, order, deadline)?;
    }
    match bytes.len() == end {
        true => Ok(Answer { status: head.status, body: bytes.split_off(head.size) }),
        // It says more than it said that it would.
        false => Err(Error::nonsense(order)),
    }
}

fn read(stream: &mut UnixStream, bytes: &mut Vec<u8>, order: &str, deadline: Instant) -> Result<(), Error> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Error::silent(order));
    }
    stream.set_read_timeout(Some(left)).map_err(Error::connection)?;
    let mut buffer = [0; 4096];
    match stream.read(&mut buffer) {
        Ok(0) => Err(ErrorKind::Gone.into()),
        Ok(count) => {
            bytes.extend_from_slice(&buffer[..count]);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
        Err(error) => Err(failed(error, order)),
    }
}

fn failed(error: io::Error, order: &str) -> Error {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Error::silent(order),
        _ => Error::connection(error),
    }
}

/// The head of an answer, with its size and that of the body.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    size: usize,
    body: usize,
}

impl Head {
    /// `None` when there is more to come.
    fn parse(bytes: &[u8]) -> Result<Option<Self>, ()> {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(size) = response.parse(bytes).map_err(drop)? else { return Ok(None) };
        let status = response.code.filter(|status| *status >= 200).ok_or(())?;
        let mut body = None;
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(());
            }
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse().ok());
                let length = length.filter(|length| *length <= LONGEST_BODY).ok_or(())?;
                if body.replace(length).is_some() {
                    return Err(());
                }
            }
        }
        Ok(Some(Self { status, size, body: body.unwrap_or(0) }))
    }
}

#[cfg(test)]
mod tests;
