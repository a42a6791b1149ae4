//! Processes in a sandbox, over the agent's own protocol in JSON.

use bytes::Bytes;
use garth_api::{Body, Client, ClientError, full_body};
use garth_spec::ProjectName;
use http::Request;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

/// Runs a program to its end: its code, and what it wrote to standard output.
pub async fn run(client: &Client, name: &ProjectName, argv: &[&str]) -> Result<(i64, String), ClientError> {
    let answer = client.agent(name, start(&json!({ "argv": argv }))).await?;
    assert_eq!(answer.status(), 200);
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    let (mut code, mut out) = (-1, Vec::new());
    for event in envelopes(&body) {
        if let Some(data) = event["output"]["data"].as_str() {
            out.extend(base64(data));
        }
        if event.get("ended").is_some() {
            code = event["ended"]["exitCode"].as_i64().unwrap_or(0);
        }
        if event.get("failed").is_some() {
            panic!("{event}");
        }
    }
    Ok((code, String::from_utf8(out).expect("text").trim_end().to_owned()))
}

/// A request to the agent to start something.
pub fn start(message: &Value) -> Request<Body> {
    let message = message.to_string();
    let length = u32::try_from(message.len()).expect("short").to_be_bytes();
    let envelope = [&[0], &length[..], message.as_bytes()].concat();
    Request::post("/garth.agent.v1.Processes/Start")
        .header("content-type", "application/connect+json")
        .header("connect-protocol-version", "1")
        .body(full_body(envelope))
        .expect("a request")
}

/// The messages of a Connect stream; the last envelope (flag 2) says how the stream ended.
fn envelopes(mut body: &[u8]) -> Vec<Value> {
    let mut events = Vec::new();
    while body.len() >= 5 {
        let (flags, length) = (body[0], u32::from_be_bytes([body[1], body[2], body[3], body[4]]) as usize);
        let message: Value = serde_json::from_slice(&body[5..5 + length]).expect("json");
        assert!(message.get("error").is_none(), "{message}");
        if flags == 0 {
            events.push(message);
        }
        body = &body[5 + length..];
    }
    events
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held, mut bytes) = (0u32, 0, Vec::new());
    for value in text.bytes().filter_map(|c| DIGITS.iter().position(|digit| *digit == c)) {
        bits = bits << 6 | value as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

/// Asks an agent for its health.
pub fn health() -> Request<Body> {
    Request::get("/health").body(full_body(Bytes::new())).expect("a request")
}
