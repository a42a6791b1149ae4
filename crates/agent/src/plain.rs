//! What is not Connect: `/health`, `/files`, `/garth/tar`, `/garth/move`, `/garth/manifest`, `/garth/probe`.

mod moves;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use garth_kernel::supervise::Privileges;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;

use crate::Shared;
use crate::files;
use crate::paths::{absolute, user};
use crate::probe;
use crate::process::{Bounds, run_own};
use crate::refusal::{Kind, Refusal};
use crate::server::{Answer, empty};
use crate::tarball::{Top, pack, unpack};
use crate::transfer::{incoming, outgoing};
use crate::users::User;

/// What a probe gets: the slowest of its tries take a second each.
const PROBE: Bounds = Bounds { output: probe::LARGEST, time: Duration::from_secs(30) };

/// Answers, if the path is one of these.
pub async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Result<Response<Answer>, Request<Incoming>> {
    let result = match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => return Ok(empty(StatusCode::NO_CONTENT)),
        (&Method::GET, "/files") => get_file(&request, shared).await,
        (&Method::POST, "/files") => post_file(request, shared).await,
        (&Method::GET, "/garth/tar") => get_tar(&request, shared).await,
        (&Method::PUT, "/garth/tar") => put_tar(request, shared).await,
        (&Method::GET, "/garth/move") => moves::get(&request).await,
        (&Method::PUT, "/garth/move") => moves::put(request).await,
        (&Method::GET, "/garth/manifest") => moves::get_manifest(&request).await,
        (&Method::POST, "/garth/probe") => probe(request, shared).await,
        (_, "/health" | "/files" | "/garth/tar" | "/garth/move" | "/garth/manifest" | "/garth/probe") => {
            Ok(empty(StatusCode::METHOD_NOT_ALLOWED))
        }
        _ => return Err(request),
    };
    Ok(result.unwrap_or_else(|refusal| refuse(&refusal)))
}

async fn get_file(request: &Request<Incoming>, shared: &Shared) -> Result<Response<Answer>, Refusal> {
    let query = Query::of(request);
    let user = query.user(shared)?;
    let path = absolute(query.path()?, &user)?;
    let response = files::download(path, request.headers()).await?;
    Ok(response.map(|body| body.map_or_else(Answer::nothing, |body| Answer::Plain(body.boxed_unsync()))))
}

async fn post_file(request: Request<Incoming>, shared: &Shared) -> Result<Response<Answer>, Refusal> {
    let query = Query::of(&request);
    let (user, path) = (query.user(shared)?, query.get("path").map(str::to_owned));
    let (head, body) = request.into_parts();
    let written = files::upload(path, user, &head.headers, body).await?;
    let entries = written.iter().map(|file| {
        let name = file.path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
        let mut entry = serde_json::json!({ "path": file.path.to_string_lossy(), "name": name, "type": "file" });
        if !file.metadata.is_empty() {
            entry["metadata"] = file.metadata.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        }
        entry
    });
    Ok(json(StatusCode::OK, &entries.collect::<serde_json::Value>()))
}

async fn get_tar(request: &Request<Incoming>, shared: &Shared) -> Result<Response<Answer>, Refusal> {
    let query = Query::of(request);
    let user = query.user(shared)?;
    let asked = query.path()?;
    let path = absolute(asked, &user)?;
    // Looked at before the answer begins: afterwards there is no status left to refuse with.
    let top = tokio::task::spawn_blocking({
        let follow = asked.ends_with('/') || asked.ends_with("/.");
        move || top(&path, if follow { Follow::Link } else { Follow::Nothing })
    });
    let top = top.await.map_err(|error| Refusal::invalid(error.to_string()))??;
    let body = outgoing(move |out| pack(top, out));
    let mut response = Response::new(Answer::Plain(body.boxed_unsync()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok(response)
}

/// Whether a link is what is packed, or what it leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Follow {
    Link,
    Nothing,
}

/// The name in the stream is the path's last, so that the stream always has one directory or file at its top.
fn top(path: &Path, follow: Follow) -> Result<Top, Refusal> {
    let refused = |error: std::io::Error| Refusal::of(&error, path.display());
    let name = path.file_name().map_or_else(|| PathBuf::from("root"), PathBuf::from);
    std::fs::symlink_metadata(path).map_err(refused)?;
    let path = if follow == Follow::Link { std::fs::canonicalize(path).map_err(refused)? } else { path.to_owned() };
    Ok(Top { path, name })
}

async fn put_tar(request: Request<Incoming>, shared: &Shared) -> Result<Response<Answer>, Refusal> {
    let query = Query::of(&request);
    let path = absolute(query.path()?, &query.user(shared)?)?;
    let result = incoming(request.into_body(), move |stream| unpack(stream, &path)).await;
    result.map_err(|error| Refusal::invalid(error.to_string()))??;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// Has a process of the sandbox try what the body says (`garth_spec::ProbeRequest`), and answers what it prints.
async fn probe(request: Request<Incoming>, shared: &Shared) -> Result<Response<Answer>, Refusal> {
    let body = Limited::new(request.into_body(), probe::LARGEST).collect().await;
    let asked = body.map_err(|error| Refusal::invalid(error.to_string()))?.to_bytes();
    let privileges = if shared.config.no_new_privs { Privileges::Fixed } else { Privileges::Gainable };
    // A task of its own: a client that goes away leaves nobody to wait for the process otherwise.
    let ran = tokio::spawn(async move { run_own(&["probe"], &asked, PROBE, privileges).await });
    let found = ran.await.map_err(|error| Refusal::new(Kind::Failed, error.to_string()))?;
    let found = found.map_err(|error| Refusal::new(Kind::Failed, error.to_string()))?;
    let mut response = Response::new(Answer::Plain(Full::new(found).map_err(|never| match never {}).boxed_unsync()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// The decoded query of a request.
struct Query(Vec<(String, String)>);

impl Query {
    fn of<B>(request: &Request<B>) -> Self {
        let query = request.uri().query().unwrap_or("");
        let pair = |pair: &str| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        };
        Self(query.split('&').filter(|text| !text.is_empty()).map(pair).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    fn path(&self) -> Result<&str, Refusal> {
        self.get("path").filter(|path| !path.is_empty()).ok_or_else(|| Refusal::invalid("the path is missing"))
    }

    fn user(&self, shared: &Shared) -> Result<User, Refusal> {
        user(self.get("username"), &shared.config, &shared.users)
    }
}

/// Percent-decoding, with `+` for a space, as forms write it.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = (*first == b'%').then(|| tail.get(..2)).flatten();
        let byte = hex.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        rest = if byte.is_some() { &tail[2..] } else { tail };
        bytes.push(byte.unwrap_or(if *first == b'+' { b' ' } else { *first }));
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

pub fn refuse(refusal: &Refusal) -> Response<Answer> {
    let status = refusal.status();
    json(status, &serde_json::json!({ "code": status.as_u16(), "message": refusal.message }))
}

/// An answer in JSON.
pub fn json(status: StatusCode, value: &serde_json::Value) -> Response<Answer> {
    let body = Full::new(Bytes::from(value.to_string())).map_err(|never| match never {});
    let mut response = Response::new(Answer::Plain(body.boxed_unsync()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let request = Request::builder().uri("/files?path=%2Fa%20b%2Bc+d%zz&username=&x").body(()).expect("request");
        let query = Query::of(&request);
        assert_eq!(query.get("path"), Some("/a b+c d%zz"));
        assert_eq!(query.get("username"), Some(""));
        assert_eq!(query.get("y"), None);
    }
}
