//! The user that an E2B client names: `Authorization: Basic base64("user:")`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use connectrpc::{ConnectError, RequestContext};
use http::header::AUTHORIZATION;

/// The user's name, if there is one. The password is ignored: whoever reaches the agent may do anything.
pub fn named(context: &RequestContext) -> Result<Option<String>, ConnectError> {
    let Some(value) = context.header(AUTHORIZATION) else { return Ok(None) };
    let encoded = value.to_str().ok().and_then(|text| text.strip_prefix("Basic "));
    let decoded =
        encoded.and_then(|text| BASE64_STANDARD.decode(text.trim()).ok()).and_then(|b| String::from_utf8(b).ok());
    let text = decoded.ok_or_else(|| ConnectError::unauthenticated("the authorization is not `Basic` and a user"))?;
    let name = text.split_once(':').map_or(text.as_str(), |(name, _)| name);
    Ok((!name.is_empty()).then(|| name.to_owned()))
}
