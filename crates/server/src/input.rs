//! What comes in, as types, or an error that says what is wrong with it.

use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use bytes::Bytes;
use garth_api::ErrorCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::failure::Failure;

/// A name from the path: of a project or an image.
#[derive(Debug)]
pub(crate) struct Name<T>(pub(crate) T);

impl<S, T> FromRequestParts<S> for Name<T>
where
    S: Send + Sync,
    T: DeserializeOwned + Send + 'static,
{
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(name): Path<Segments<T>> = Path::from_request_parts(parts, state)
            .await
            .map_err(|error| Failure::new(ErrorCode::InvalidRequest, detail(&error.body_text())))?;
        Ok(Self(name.name))
    }
}

/// The named parts of a path; what a proxied path goes on with is no concern of ours.
#[derive(serde::Deserialize)]
struct Segments<T> {
    name: T,
}

/// axum begins with "Invalid URL: "; people asked for no URL.
fn detail(text: &str) -> String {
    let text = text.strip_prefix("Invalid URL: ").unwrap_or(text);
    text.strip_prefix("Cannot parse `name` with value ").map_or(text, |rest| rest).to_owned()
}

/// The query, with nothing in it that is not known.
#[derive(Debug)]
pub(crate) struct Asked<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Asked<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = Query::from_request_parts(parts, state).await;
        let refuse = |error: axum::extract::rejection::QueryRejection| {
            Failure::new(ErrorCode::InvalidRequest, "the query is not valid").because(error.body_text())
        };
        query.map(|Query(asked)| Self(asked)).map_err(refuse)
    }
}

/// A JSON body. No body at all is `{}`: every body of ours has defaults.
#[derive(Debug)]
pub(crate) struct Json<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let refuse = |cause: String| Failure::new(ErrorCode::InvalidRequest, "the body is not valid").because(cause);
        let body = Bytes::from_request(request, state).await.map_err(|error| refuse(error.body_text()))?;
        let json: &[u8] = if body.is_empty() { b"{}" } else { &body };
        // serde would take an array for a struct, by position.
        if json.trim_ascii_start().first() != Some(&b'{') {
            return Err(refuse("invalid: it is not a JSON object".to_owned()));
        }
        serde_json::from_slice(json).map(Self).map_err(|error| refuse(error.to_string()))
    }
}
