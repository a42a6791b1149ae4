//! Plain requests and their answers.

use bytes::Bytes;
use connectrpc::client::ClientTransport;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};

use crate::support::{Agent, Socket, soon};

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

pub async fn http(agent: &Agent, request: http::request::Builder, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed();
    let request = request.body(body).expect("request");
    let response = soon(Socket(agent.socket()).send(request)).await.expect("answer");
    let (head, body) = response.into_parts();
    let body = soon(body.collect()).await.expect("body").to_bytes();
    Answer { status: head.status, headers: head.headers, body }
}

pub fn message(answer: &Answer) -> String {
    let json = answer.json();
    assert_eq!(json["code"], answer.status.as_u16());
    json["message"].as_str().expect("a message").to_owned()
}
