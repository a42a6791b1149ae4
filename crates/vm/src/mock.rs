//! A program that takes orders over HTTP and runs nothing: it holds each request against a schema, and does wrong when
//! it is told to.

mod schema;

use std::io::{Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use garth_spec::ByteSize;
use serde_json::Value;

use crate::machine::{Accelerator, Drive, DriveAccess, DriveRate, Machine, Nic};
use crate::snapshot::{Saved, Snapshot};

pub(crate) use schema::Schema;

/// A machine that has one of everything.
pub(crate) fn machine() -> Machine {
    let drive = |serial: &str, access, rate| Drive {
        serial: serial.to_owned(),
        file: format!("/pool/{serial}").into(),
        access,
        rate,
    };
    let held = DriveRate { bytes: Some(1 << 20), operations: None };
    Machine {
        vcpus: 2,
        memory: ByteSize::mib(256),
        kernel: "/dev/null".into(),
        initrd: "/dev/null".into(),
        drives: vec![
            drive("root", DriveAccess::ReadWrite, held),
            drive("usr", DriveAccess::ReadOnly, DriveRate::default()),
        ],
        nic: Some(Nic { mac: [2, 0, 0, 0, 0, 1] }),
        shares: Vec::new(),
        accelerator: Accelerator::Kvm,
    }
}

/// A snapshot of that machine with these files.
pub(crate) fn snapshot(directory: &Path, files: &[&str]) -> Snapshot {
    let saved = Saved::begin(directory, "mock", &machine()).expect("an empty directory");
    files.iter().for_each(|name| std::fs::write(directory.join(name), name).expect("write"));
    saved.record().expect("recorded")
}

/// What it does instead of what it should.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Says this, and no more.
    Says(String),
    /// Says this, and then that again and again.
    Repeats(&'static str, &'static str),
    /// Keeps the connection and says nothing.
    Hangs,
}

/// Requests, each with what is wrong with it.
type Log = Arc<Mutex<Vec<(String, Result<(), String>)>>>;

/// What is done for a request that is right: an answer.
type Deed = Box<dyn FnMut(&str, &Value) -> String + Send>;

pub(crate) const DONE: &str = "HTTP/1.1 204 \r\nServer: mock\r\nConnection: keep-alive\r\n\r\n";

/// Says this of itself.
pub(crate) fn answer(body: &str) -> String {
    format!("HTTP/1.1 200 \r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// A running one. What it was asked is kept: `PUT /vsock`.
pub(crate) struct Mock {
    asked: Log,
}

impl Mock {
    /// Answers at this socket until the test ends.
    pub(crate) fn listen(
        socket: &Path,
        schema: Schema,
        deed: impl FnMut(&str, &Value) -> String + Send + 'static,
    ) -> Self {
        let listener = UnixListener::bind(socket).expect("listen");
        let asked = Log::default();
        let (log, mut deed): (_, Deed) = (Arc::clone(&asked), Box::new(deed));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.expect("a connection");
                // Whoever only looks whether somebody listens asks nothing.
                let Some((order, body)) = request(&mut stream) else { continue };
                let checked = schema.check(&order, &body);
                let answer = match &checked {
                    Ok(()) => deed(&order, &body),
                    Err(why) => refusal(why),
                };
                log.lock().expect("log").push((order, checked));
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        Self { asked }
    }

    /// Does this once.
    pub(crate) fn fault(socket: &Path, fault: Fault) {
        let listener = UnixListener::bind(socket).expect("listen");
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("accept");
            let _ = request(&mut stream);
            match fault {
                Fault::Says(text) => drop(stream.write_all(text.as_bytes())),
                Fault::Repeats(first, again) => {
                    let _ = stream.write_all(first.as_bytes());
                    while stream.write_all(again.as_bytes()).is_ok() {}
                }
                Fault::Hangs => drop(stream.read(&mut [0])),
            }
        });
    }

    /// What it was asked, if all of it was right.
    #[track_caller]
    pub(crate) fn asked(&self) -> Vec<String> {
        let asked = self.asked.lock().expect("log");
        asked.iter().for_each(|(order, checked)| assert_eq!(*checked, Ok(()), "{order}"));
        asked.iter().map(|(order, _)| order.clone()).collect()
    }
}

pub(crate) fn refusal(why: &str) -> String {
    let body = serde_json::json!({ "fault_message": why }).to_string();
    format!("HTTP/1.1 400 \r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Reads `PUT /path` and its body.
fn request(stream: &mut UnixStream) -> Option<(String, Value)> {
    let mut bytes = Vec::new();
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut head = httparse::Request::new(&mut headers);
        if let httparse::Status::Complete(size) = head.parse(&bytes).expect("a request") {
            let length = head.headers.iter().find(|header| header.name == "Content-Length");
            let length =
                length.map_or(0, |length| std::str::from_utf8(length.value).expect("text").parse().expect("a number"));
            if bytes.len() >= size + length {
                let order = format!("{} {}", head.method.expect("a method"), head.path.expect("a path"));
                let body = &bytes[size..size + length];
                let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(body).expect("JSON") };
                return Some((order, body));
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).unwrap_or(0) {
            0 => return None,
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}
