//! The HTTP API: what is asked wrongly, and who may ask.

use serde_json::json;

use crate::endpoint::{BOX, Check, Checked, Endpoint};

pub const CHECKS: &[Check] = &[
    Check {
        word: "HTTP",
        what: "a body that is no JSON, or has a field that is unknown: 400 `invalid_request`",
        by: bad_bodies,
    },
    Check { word: "HTTP", what: "a name, size or runtime that is none: 400 `invalid_request`", by: bad_values },
    Check { word: "HTTP", what: "a path that is not there: 404; a method that it does not take: 405", by: bad_paths },
    Check {
        word: "HTTP",
        what: "create, inspect, change, list and delete, with the codes of docs/openapi.json",
        by: a_whole_life,
    },
    Check { word: "key", what: "none, or a wrong one: 401 `unauthenticated`", by: no_key },
    Check { word: "key", what: "a viewer's shows, and changes nothing: `forbidden`", by: viewer },
    Check { word: "key", what: "one for a project opens that alone; others are not there", by: one_project },
    Check { word: "key", what: "a revoked one opens nothing", by: revoked },
];

/// A new key that may do this.
fn key(at: &Endpoint, more: &[&str]) -> String {
    at.ok(&[&["key", "create"], more].concat())
}

fn admin(at: &Endpoint) -> String {
    key(at, &["--role", "admin"])
}

#[track_caller]
fn answers(at: &Endpoint, key: &str, request: &str, body: &str, status: u16, code: &str) {
    let (seen, answer) = at.http(key, request, body);
    assert_eq!((seen, &answer["error"]["code"]), (status, &code.into()), "{request} {body}: {answer}");
}

fn bad_bodies(at: &Endpoint) -> Checked {
    let key = admin(at);
    for body in ["{", "[]", r#"{"surprise":1}"#, r#"{"name":"x","spec":{"surprise":1}}"#, r#"{"name":1}"#] {
        answers(at, &key, "POST /v1/projects", body, 400, "invalid_request");
    }
    answers(at, &key, "PATCH /v1/projects/box", r#"{"surprise":1}"#, 400, "invalid_request");
    Ok(())
}

fn bad_values(at: &Endpoint) -> Checked {
    let key = admin(at);
    let spec = |spec: serde_json::Value| json!({ "name": "bad", "spec": spec }).to_string();
    for body in [
        json!({ "name": "../x" }).to_string(),
        json!({ "name": "a".repeat(64) }).to_string(),
        spec(json!({ "limits": { "memory": 1 } })),
        spec(json!({ "limits": { "memory": "lots" } })),
        spec(json!({ "runtime": "gvisor" })),
        spec(json!({ "network": "lan" })),
        spec(json!({ "workdir": "here" })),
        spec(json!({ "env": { "A=B": "1" } })),
    ] {
        answers(at, &key, "POST /v1/projects", &body, 400, "invalid_request");
    }
    assert_eq!(at.http(&key, "GET /v1/projects/bad", "").0, 404);
    Ok(())
}

fn bad_paths(at: &Endpoint) -> Checked {
    let key = admin(at);
    answers(at, &key, "GET /v1/nothing", "", 404, "not_found");
    answers(at, &key, "GET /v1/projects/nothing", "", 404, "not_found");
    answers(at, &key, "PUT /v1/projects", "", 405, "method_not_allowed");
    Ok(())
}

fn a_whole_life(at: &Endpoint) -> Checked {
    let key = admin(at);
    let (status, made) = at.http(&key, "POST /v1/projects", r#"{"name":"over-http","spec":{"labels":{"a":"1"}}}"#);
    assert_eq!((status, &made["name"]), (201, &"over-http".into()), "{made}");
    let (status, shown) = at.http(&key, "GET /v1/projects/over-http", "");
    assert_eq!((status, &shown["id"]), (200, &made["id"]));
    let (status, changed) = at.http(&key, "PATCH /v1/projects/over-http", r#"{"labels":{"a":null,"b":"2"}}"#);
    assert_eq!((status, &changed["project"]["spec"]["labels"]), (200, &json!({ "b": "2" })), "{changed}");
    let (status, list) = at.http(&key, "GET /v1/projects", "");
    assert!(status == 200 && list["projects"].as_array().is_some_and(|all| all.len() > 1), "{list}");
    assert_eq!(at.http(&key, "DELETE /v1/projects/over-http", "").0, 204);
    answers(at, &key, "DELETE /v1/projects/over-http", "", 404, "not_found");
    assert_eq!(at.http(&key, "GET /v1/version", "").1["api"], "v1");
    Ok(())
}

fn no_key(at: &Endpoint) -> Checked {
    let key = admin(at);
    for wrong in ["", "garth_x_y", &key[..key.len() - 1]] {
        answers(at, wrong, "GET /v1/projects", "", 401, "unauthenticated");
    }
    assert_eq!(at.http("", "GET /health", "").0, 204);
    Ok(())
}

fn viewer(at: &Endpoint) -> Checked {
    let key = key(at, &["--role", "viewer"]);
    assert_eq!(at.with_key(&key, &["inspect", BOX]).code, 0);
    for args in [&["exec", BOX, "--", "true"][..], &["stop", BOX], &["key", "ls"], &["create", "by-viewer"]] {
        assert_ne!(at.with_key(&key, args).code, 0, "{args:?}");
    }
    answers(at, &key, "POST /v1/projects/box/stop", "{}", 403, "forbidden");
    assert_eq!(at.inspect(BOX)["state"], "running");
    Ok(())
}

fn one_project(at: &Endpoint) -> Checked {
    at.create("others", &[]);
    let key = key(at, &["--project", BOX]);
    assert_eq!(at.with_key(&key, &["exec", BOX, "--", "echo", "in"]).text(), "in");
    assert_eq!(at.with_key(&key, &["ls", "-a", "-q"]).text(), BOX);
    answers(at, &key, "GET /v1/projects/others", "", 404, "not_found");
    assert_ne!(at.with_key(&key, &["create", "by-key"]).code, 0);
    at.with_key(&key, &["rm", "-f", "others"]);
    at.inspect("others");
    at.ok(&["rm", "-f", "others"]);
    Ok(())
}

fn revoked(at: &Endpoint) -> Checked {
    let key = admin(at);
    let id = key.split('_').nth(1).expect("an id");
    assert_eq!(at.http(&key, "GET /v1/projects", "").0, 200);
    at.ok(&["key", "revoke", id]);
    answers(at, &key, "GET /v1/projects", "", 401, "unauthenticated");
    Ok(())
}
