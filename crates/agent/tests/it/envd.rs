//! What E2B's SDKs do: JSON messages of `process.Process`.

use bytes::Bytes;
use connectrpc::client::ClientTransport;
use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use crate::support::{Agent, Socket, is_root, soon};

/// A unary call, as the SDKs write it.
async fn call(agent: &Agent, method: &str, message: Value) -> (u16, Value) {
    let body = Full::new(Bytes::from(message.to_string())).map_err(|never| match never {}).boxed();
    let request = Request::post(format!("/process.Process/{method}")).header("content-type", "application/json");
    let response = soon(Socket(agent.socket()).send(request.body(body).expect("request"))).await.expect("answer");
    let status = response.status().as_u16();
    let body = soon(response.into_body().collect()).await.expect("body").to_bytes();
    (status, serde_json::from_slice(&body).expect("JSON"))
}

/// A streaming call, read to its end: the messages, and the last envelope.
async fn stream(agent: &Agent, method: &str, headers: &[(&str, &str)], message: Value) -> (Vec<Value>, Value) {
    let message = message.to_string();
    let mut envelope = vec![0];
    envelope.extend_from_slice(&u32::try_from(message.len()).expect("short").to_be_bytes());
    envelope.extend_from_slice(message.as_bytes());
    let mut request =
        Request::post(format!("/process.Process/{method}")).header("content-type", "application/connect+json");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = Full::new(Bytes::from(envelope)).map_err(|never| match never {}).boxed();
    let response = soon(Socket(agent.socket()).send(request.body(body).expect("request"))).await.expect("answer");
    assert_eq!(response.status(), 200);
    let body = soon(response.into_body().collect()).await.expect("body").to_bytes();
    let (mut messages, mut rest) = (Vec::new(), &body[..]);
    while let [flags, a, b, c, d, tail @ ..] = rest {
        let (data, next) = tail.split_at(u32::from_be_bytes([*a, *b, *c, *d]) as usize);
        let value: Value = serde_json::from_slice(data).expect("JSON");
        if flags & 2 == 2 {
            return (messages, value);
        }
        messages.push(value);
        rest = next;
    }
    panic!("no last envelope");
}

/// `commands.run` of the SDKs.
fn command(script: &str) -> Value {
    json!({ "process": { "cmd": "/bin/bash", "args": ["-l", "-c", script], "envs": { "HOME": "/" } }, "stdin": false })
}

fn joined(messages: &[Value], stream: &str) -> String {
    use base64::Engine;
    let parts = messages.iter().filter_map(|message| message["event"]["data"][stream].as_str());
    let bytes = parts.flat_map(|part| base64::prelude::BASE64_STANDARD.decode(part).expect("base64"));
    String::from_utf8(bytes.collect()).expect("UTF-8")
}

#[tokio::test]
async fn a_command_starts_with_its_pid_and_ends_with_its_code() {
    if !is_root("a_command_starts_with_its_pid_and_ends_with_its_code") {
        return;
    }
    let agent = Agent::start().await;
    let (messages, last) = stream(&agent, "Start", &[], command("echo out; echo err >&2; exit 3")).await;
    assert!(messages[0]["event"]["start"]["pid"].as_u64().is_some_and(|pid| pid > 1), "{messages:?}");
    assert_eq!((joined(&messages, "stdout").as_str(), joined(&messages, "stderr").as_str()), ("out\n", "err\n"));
    let end = &messages.last().expect("messages")["event"]["end"];
    assert_eq!((&end["exitCode"], &end["exited"], &end["status"]), (&json!(3), &json!(true), &json!("exit status 3")));
    assert_eq!(last, json!({}));
    let (messages, _) = stream(&agent, "Start", &[], command("kill -9 $$")).await;
    let end = &messages.last().expect("messages")["event"]["end"];
    assert_eq!((&end["exitCode"], &end["status"]), (&json!(-1), &json!("signal: killed")));
    assert!(end["exited"].as_bool() != Some(true));
}

#[tokio::test]
async fn the_client_s_deadline_ends_the_process() {
    if !is_root("the_client_s_deadline_ends_the_process") {
        return;
    }
    let agent = Agent::start().await;
    let (messages, last) = stream(&agent, "Start", &[("connect-timeout-ms", "3000")], command("sleep 424801")).await;
    assert!(messages[0]["event"]["start"]["pid"].is_u64());
    assert_eq!(last["error"]["code"], "deadline_exceeded");
    let (_, list) = call(&agent, "List", json!({})).await;
    assert_eq!(list, json!({}));
}

#[tokio::test]
async fn users_are_chosen_by_basic_authorization() {
    if !is_root("users_are_chosen_by_basic_authorization") {
        return;
    }
    let agent = Agent::start().await;
    // 65534:
    let (messages, _) = stream(&agent, "Start", &[("authorization", "Basic NjU1MzQ6")], command("id -u")).await;
    assert_eq!(joined(&messages, "stdout"), "65534\n");
    // nobody-here:
    let (_, last) = stream(&agent, "Start", &[("authorization", "Basic bm9ib2R5LWhlcmU6")], command("id -u")).await;
    assert_eq!(last["error"]["code"], "unauthenticated");
    let mut bad_cwd = command("true");
    bad_cwd["process"]["cwd"] = json!("/no/such");
    let (_, last) = stream(&agent, "Start", &[], bad_cwd).await;
    assert_eq!(last["error"]["code"], "invalid_argument");
    assert_eq!(last["error"]["message"], "cwd '/no/such' does not exist");
}

#[tokio::test]
async fn running_processes_take_input_signals_and_followers() {
    if !is_root("running_processes_take_input_signals_and_followers") {
        return;
    }
    let agent = Agent::start().await;
    let mut request = command("cat; echo end");
    request["stdin"] = json!(true);
    request["tag"] = json!("cat");
    let started = stream(&agent, "Start", &[], request);
    let (unknown, _) = call(&agent, "SendSignal", json!({ "process": { "pid": 1 }, "signal": "SIGNAL_SIGKILL" })).await;
    assert_eq!(unknown, 404);
    let talk = async {
        let selector = json!({ "tag": "cat" });
        soon(async { while call(&agent, "List", json!({})).await.1["processes"][0]["tag"] != "cat" {} }).await;
        let input = json!({ "process": selector, "input": { "stdin": "aGVsbG8K" } });
        assert_eq!(call(&agent, "SendInput", input).await.0, 200);
        let wrong = json!({ "process": selector, "input": { "pty": "aGVsbG8K" } });
        assert_eq!(call(&agent, "SendInput", wrong).await.1["code"], "internal");
        assert_eq!(call(&agent, "CloseStdin", json!({ "process": selector })).await.0, 200);
    };
    let ((messages, _), ()) = tokio::join!(started, talk);
    assert_eq!(joined(&messages, "stdout"), "hello\nend\n");
    let (late, _) = stream(&agent, "Connect", &[], json!({ "process": { "tag": "cat" } })).await;
    assert!(late[0]["event"]["start"].is_object() && late[1]["event"]["end"].is_object(), "{late:?}");
    let gone = json!({ "process": { "tag": "cat" }, "signal": "SIGNAL_SIGTERM" });
    assert_eq!(call(&agent, "SendSignal", gone).await.1["code"], "not_found");
}

#[tokio::test]
async fn a_terminal_is_started_and_resized() {
    if !is_root("a_terminal_is_started_and_resized") {
        return;
    }
    let agent = Agent::start().await;
    let request = json!({
        "process": { "cmd": "/bin/bash", "args": ["-c", "read -r x; stty size"], "envs": { "TERM": "xterm-256color" } },
        "pty": { "size": { "cols": 80, "rows": 24 } }, "tag": "tty"
    });
    let started = stream(&agent, "Start", &[], request);
    let talk = async {
        let selector = json!({ "tag": "tty" });
        soon(async { while call(&agent, "List", json!({})).await.1["processes"][0]["tag"] != "tty" {} }).await;
        let size = json!({ "process": selector, "pty": { "size": { "cols": 111, "rows": 33 } } });
        assert_eq!(call(&agent, "Update", size).await.0, 200);
        let input = json!({ "process": selector, "input": { "pty": "Cg==" } });
        assert_eq!(call(&agent, "SendInput", input).await.0, 200);
    };
    let ((messages, _), ()) = tokio::join!(started, talk);
    assert!(joined(&messages, "pty").contains("33 111"), "{messages:?}");
}
