//! A project's files from one level to another: `GET` and `PUT /garth/move`, `GET /garth/manifest`.

use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Query, json as answer};
use crate::moving::{Received, Scope, Summary, manifest, pack, shown, unpack};
use crate::refusal::Refusal;
use crate::server::Answer;
use crate::transfer::{incoming, outgoing};

/// The tree as a stream.
pub async fn get(request: &Request<Incoming>) -> Result<Response<Answer>, Refusal> {
    let scope = scope(request)?;
    // Before the answer begins: afterwards there is no status left to refuse with.
    let scope = tokio::task::spawn_blocking(move || scope.check().map(|()| scope)).await;
    let scope = scope.map_err(|error| Refusal::invalid(error.to_string()))??;
    let body = outgoing(move |out| pack(&scope, out));
    let mut response = Response::new(Answer::Plain(body.boxed_unsync()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-tar"));
    Ok(response)
}

/// A stream into the tree.
pub async fn put(request: Request<Incoming>) -> Result<Response<Answer>, Refusal> {
    let scope = scope(&request)?;
    let received = incoming(request.into_body(), move |stream| unpack(stream, &scope)).await;
    let Received { sent, kept, skipped, skipped_count, mounts } =
        received.map_err(|error| Refusal::invalid(error.to_string()))??;
    let mut fields = summary(&sent);
    fields["kept"] = summary(&kept);
    fields["skipped"] = skipped.iter().map(|one| json!({ "path": shown(&one.path), "what": one.what })).collect();
    fields["skipped_count"] = skipped_count.into();
    fields["mounts"] = mounts.iter().map(|path| shown(path)).collect();
    Ok(answer(StatusCode::OK, &fields))
}

/// The tree, read again.
pub async fn get_manifest(request: &Request<Incoming>) -> Result<Response<Answer>, Refusal> {
    let scope = scope(request)?;
    let found = tokio::task::spawn_blocking(move || manifest(&scope)).await;
    let found = found.map_err(|error| Refusal::invalid(error.to_string()))??;
    let mut fields = summary(&found.summary);
    fields["mounts"] = found.mounts.iter().map(|path| shown(path)).collect();
    Ok(answer(StatusCode::OK, &fields))
}

fn scope<B>(request: &Request<B>) -> Result<Scope, Refusal> {
    let query = Query::of(request);
    Scope::of(query.get("root"), query.get("base"), query.all("omit"))
}

fn summary(summary: &Summary) -> Value {
    json!({ "digest": summary.hex(), "entries": summary.entries, "bytes": summary.bytes })
}
