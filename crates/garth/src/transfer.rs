//! Tar streams out of and into a project, through the agent's plain HTTP.

use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use bytes::{Buf as _, Bytes};
use garth_api::{Body, full_body, stream_body};
use http::{Method, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;
use rustix::fs::{CWD, Mode, OFlags, openat};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::agent::Agent;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::sink::Sink;
use crate::tarball::{Reading, Stream};
use crate::unpack::{self, Top};

/// Pieces that wait to be unpacked.
const AHEAD: usize = 8;

/// Unpacks a tar into a directory of a project.
pub async fn put(agent: &Agent<'_>, directory: &str, (stream, reading): (Stream, Reading)) -> Result<()> {
    let answer = send(agent, Method::PUT, directory, stream_body(stream)).await;
    // What could not be read here is the better answer than what the agent made of a part.
    reading.check()?;
    answer.map(drop)
}

/// Unpacks a path of a project into a directory here.
pub async fn get(agent: &Agent<'_>, path: &str, directory: &Path, top: Top) -> Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let target = openat(CWD, directory, flags, Mode::empty());
    let target: OwnedFd = target
        .map_err(|error| Failure::io(format!("cannot open the directory {}", directory.display()), &error.into()))?;
    let mut body = send(agent, Method::GET, path, full_body(Bytes::new())).await?.into_body();
    let (sender, receiver) = mpsc::channel(AHEAD);
    let unpacking = spawn_blocking(move || unpack::unpack(Pieces { receiver, piece: Bytes::new() }, target, &top));
    let mut broken = None;
    while let Some(piece) = piece(&mut body).await {
        if let Err(error) = &piece {
            broken = Some(broke_off(error));
        }
        // Whoever unpacks has given up; its failure says why.
        if sender.send(piece).await.is_err() {
            break;
        }
    }
    drop(sender);
    let unpacked = unpacking.await.map_err(|error| Failure::protocol("unpacking ended badly").because(&error))?;
    broken.map_or(unpacked, Err)
}

fn broke_off(error: &io::Error) -> Failure {
    Failure::new(Exit::Unreachable, "connection_broken", "the copy broke off: what is there now is a part")
        .because(error)
}

/// Writes the tar of a path of a project to standard output.
pub async fn print(agent: &Agent<'_>, path: &str) -> Result<()> {
    let mut body = send(agent, Method::GET, path, full_body(Bytes::new())).await?.into_body();
    let mut stdout = Sink::stdout();
    let cannot = |error: io::Error| Failure::io("cannot pass the tar on", &error);
    while let Some(piece) = piece(&mut body).await {
        stdout.write(&piece.map_err(|error| broke_off(&error))?).await.map_err(cannot)?;
    }
    Ok(())
}

async fn send(agent: &Agent<'_>, method: Method, path: &str, body: Body) -> Result<Response<Incoming>> {
    let uri = format!("/garth/tar?path={}", encoded(path));
    let request = Request::builder().method(method).uri(uri).body(body);
    let request = request.map_err(|error| Failure::usage(format!("{path:?} cannot be asked for")).because(&error))?;
    let answer = agent.plain(request).await?;
    if answer.status().is_success() { Ok(answer) } else { Err(refused(answer).await) }
}

/// `{"code", "message"}`, as the agent answers on its plain paths.
async fn refused(answer: Response<Incoming>) -> Failure {
    let status = answer.status();
    let exit = match status.as_u16() {
        400 | 422 => Exit::Usage,
        401 | 403 => Exit::Refused,
        404 => Exit::NotFound,
        409 => Exit::Conflict,
        413 | 507 => Exit::Limit,
        _ => Exit::Failed,
    };
    let mut body = answer.into_body();
    let mut text = Vec::new();
    while let Some(Ok(piece)) = piece(&mut body).await {
        text.extend_from_slice(&piece);
        // What a sandbox says is bounded.
        if text.len() > 64 << 10 {
            break;
        }
    }
    let json: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
    let message = json["message"].as_str().map_or_else(|| format!("the agent answered {status}"), str::to_owned);
    Failure::new(exit, "copy_failed", message)
}

/// The next data of a body; none at its end.
async fn piece(body: &mut Incoming) -> Option<io::Result<Bytes>> {
    loop {
        let next = std::future::poll_fn(|context| std::pin::Pin::new(&mut *body).poll_frame(context)).await?;
        match next.map(http_body::Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_trailers)) => {}
            Err(error) => return Some(Err(io::Error::other(error))),
        }
    }
}

/// Percent-encoded as a query's value (RFC 3986, unreserved and `/`).
fn encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    text.bytes().map(|byte| if keep(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// Pieces that another thread sends, as a reader.
struct Pieces {
    receiver: mpsc::Receiver<io::Result<Bytes>>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece?,
                None => return Ok(0),
            }
        }
        let read = self.piece.len().min(buffer.len());
        buffer.get_mut(..read).unwrap_or_default().copy_from_slice(self.piece.get(..read).unwrap_or_default());
        self.piece.advance(read);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_queries() {
        assert_eq!(encoded("/a b/ü&?#%"), "/a%20b/%C3%BC%26%3F%23%25");
        assert_eq!(encoded("~/x-1_2.tar"), "~/x-1_2.tar");
    }
}
