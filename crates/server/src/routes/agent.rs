//! The way through to the agent: bytes in, bytes out, nothing kept.

use axum::extract::{Request, State};
use axum::response::Response;
use garth_api::{ErrorBody, ErrorCode, routes};
use garth_spec::{ProjectName, StartPolicy};
use http::header::{CONNECTION, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderValue, Uri};

use crate::failure::Failure;
use crate::input::Name;
use crate::router::App;

/// What concerns one connection and not the message (RFC 9110 §7.6.1).
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Anything for the agent, which answers; a stopped project is started first, a paused one resumed, unless the header `garth-start` is
/// `never`. An answer with the header `garth-error` is the daemon's own.
#[utoipa::path(
    method(get, put, post, delete, head, options, patch), path = "/v1/projects/{name}/agent/{path}",
    params(("name" = String, Path), ("path" = String, Path), ("garth-start" = Option<String>, Header)),
    responses((status = "default", description = "what the agent answers"), (status = "4XX", body = ErrorBody))
)]
pub(crate) async fn proxy(
    State(app): State<App>,
    Name(name): Name<ProjectName>,
    request: Request,
) -> Result<Response, Failure> {
    let (mut head, body) = request.into_parts();
    let policy = policy(&head.headers)?;
    head.uri = inner(&head.uri, &name)?;
    head.headers.remove(routes::START_HEADER);
    drop_hops(&mut head.headers);
    let mut answer = app.engine.send(&name, policy, Request::from_parts(head, body)).await?;
    drop_hops(answer.headers_mut());
    // What an agent says is never taken for the daemon's word.
    answer.headers_mut().remove(routes::ERROR_HEADER);
    Ok(answer)
}

fn policy(headers: &HeaderMap) -> Result<StartPolicy, Failure> {
    match headers.get(routes::START_HEADER).map(HeaderValue::as_bytes) {
        None => Ok(StartPolicy::Start),
        Some(b"never") => Ok(StartPolicy::Never),
        Some(_) => Err(Failure::new(
            ErrorCode::InvalidRequest,
            format!("the header {} is `never` or absent", routes::START_HEADER),
        )),
    }
}

/// The agent's own path and query, byte for byte.
fn inner(uri: &Uri, name: &ProjectName) -> Result<Uri, Failure> {
    let outer = uri.path_and_query().map_or("/", |path| path.as_str());
    let path = outer.strip_prefix(routes::PROJECTS).and_then(|rest| rest.strip_prefix('/'));
    let path = path.and_then(|rest| rest.strip_prefix(name.as_str())).and_then(|rest| rest.strip_prefix("/agent"));
    let refuse = || Failure::new(ErrorCode::InvalidRequest, "the path does not name a project as it is written");
    path.ok_or_else(refuse)?.parse().map_err(|_| refuse())
}

fn drop_hops(headers: &mut HeaderMap) {
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_path_is_passed_byte_for_byte() {
        let name = "web".parse().expect("name");
        let inner = |path: &'static str| inner(&Uri::from_static(path), &name).ok().map(|uri| uri.to_string());
        assert_eq!(inner("/v1/projects/web/agent/files?path=%2Fa%20b").as_deref(), Some("/files?path=%2Fa%20b"));
        assert_eq!(inner("/v1/projects/web/agent/a/../b//c").as_deref(), Some("/a/../b//c"));
        assert_eq!(inner("/v1/projects/w%65b/agent/x"), None);
    }
}
