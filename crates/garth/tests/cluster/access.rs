//! Who gets in: to the gateway with a key, to an agent by knowing the project's token, and nobody else; and who hears it.

use std::process::Command;

use crate::stage::{Stage, address};
use crate::wiretap::{Wiretap, answer};
use crate::yard::{Done, finish, program};

fn with_key(stage: &Stage, key: &str, args: &[&str]) -> Done {
    let host = format!("http://{}", address(stage.data_dir()));
    finish(Command::new(program()).args(args).env("GARTH_HOST", host).env("GARTH_API_KEY", key), b"")
}

#[test]
fn a_key_opens_what_it_is_for_and_nothing_else() {
    let Some(mut stage) = Stage::open("a_key_opens_what_it_is_for_and_nothing_else") else { return };
    for name in ["web", "db"] {
        stage.ok(&["create", name, "--memory", "64MiB", "--disk", "1GiB"]);
    }
    let key = |more: &[&str]| {
        let args: Vec<&str> = ["key", "create"].iter().chain(more).copied().collect();
        stage.ok(&args)
    };
    let (admin, web) = (key(&["--role", "admin"]), key(&["--project", "web", "--name", "ci"]));
    let viewer = key(&["--role", "viewer"]);
    assert_eq!(with_key(&stage, &web, &["exec", "web", "--", "echo", "in"]).text(), "in");
    assert_eq!(with_key(&stage, &web, &["ls", "-a", "-q"]).text(), "web");
    assert_eq!(with_key(&stage, &viewer, &["ls", "-a", "-q"]).text(), "db\nweb");
    assert!(with_key(&stage, &admin, &["key", "ls"]).text().contains("ci"));
    let wrong = format!("{}{}", &web[..web.len() - 1], if web.ends_with('0') { '1' } else { '0' });
    for (key, args) in [
        (web.as_str(), &["exec", "db", "--", "echo", "in"][..]),
        (&web, &["create", "new"]),
        (&web, &["stop", "db"]),
        (&web, &["key", "ls"]),
        (&viewer, &["exec", "web", "--", "echo", "in"]),
        (&viewer, &["stop", "web"]),
        (&viewer, &["key", "create", "--role", "admin"]),
        (&wrong, &["ls"]),
        ("", &["ls"]),
    ] {
        let done = with_key(&stage, key, args);
        assert!(done.code != 0 && !done.text().contains("in"), "{args:?}: {done:?}");
    }
    // What it may not see is not there; and stays.
    with_key(&stage, &web, &["rm", "-f", "db"]);
    assert_eq!(stage.ok(&["ls", "-a", "-q"]), "db\nweb");
    // Another gateway knows the keys, too; one that was revoked opens nothing more.
    let id = web.split('_').nth(1).expect("an id").to_owned();
    stage.ok(&["key", "revoke", &id]);
    assert_ne!(with_key(&stage, &web, &["ls"]).code, 0);
    stage.restart_gateway();
    assert_ne!(with_key(&stage, &web, &["ls"]).code, 0);
    assert_eq!(with_key(&stage, &viewer, &["ls", "-a", "-q"]).text(), "db\nweb");
}

#[test]
fn an_agent_tells_nobody_anything_without_the_key() {
    let Some(stage) = Stage::open("an_agent_tells_nobody_anything_without_the_key") else { return };
    stage.apply(&stage.project("web", ""));
    stage.sh("web", "echo heron > note");
    let pod = stage.kubectl(&["get", "pod", "web", "-o=jsonpath={.status.podIP}"]);
    let read = "GET /files?path=/workspace/note HTTP/1.1\r\nhost: x\r\nconnection: close\r\n";
    // To show the key is no proof that one knows it.
    let shown = format!("{read}garth-agent-token: {}\r\n\r\n", token(&stage, "web"));
    for said in [format!("{read}\r\n"), shown, "GET /health HTTP/1.1\r\n\r\n".to_owned(), "\0".repeat(4096)] {
        assert_eq!(answer(&pod, &said), "", "to {said:?}");
    }
    // The gateway is none of them.
    assert_eq!(stage.sh("web", "cat note"), "heron");
}

#[test]
fn who_listens_between_gateway_and_agent_learns_nothing() {
    let Some(mut stage) = Stage::open("who_listens_between_gateway_and_agent_learns_nothing") else { return };
    stage.apply(&stage.project("web", ""));
    stage.sh("web", "true");
    let tap = Wiretap::open(&stage.kubectl(&["get", "pod", "web", "-o=jsonpath={.status.podIP}"]));
    stage.ok(&["exec", "-e", "BIRD=heron", "web", "--", "sh", "-c", "echo $BIRD > note; cat note"]);
    // A connection from its first byte on.
    stage.restart_gateway();
    assert_eq!(stage.sh("web", "cat note"), "heron");
    stage.until("the end on the wire", || tap.is_done());
    let token = token(&stage, "web");
    let key: Vec<u8> = token.as_bytes().chunks(2).map(hex).collect();
    let heard = tap.heard();
    let holds = |bytes: &[u8]| heard.windows(bytes.len()).any(|window| window == bytes);
    // It did listen: the requests were there, as something else.
    assert!(heard.len() > 1000, "{} bytes", heard.len());
    for secret in [b"heron", &b"HTTP/1.1"[..], b"/workspace", token.as_bytes(), &key] {
        assert!(!holds(secret), "{:?}", String::from_utf8_lossy(secret));
    }
}

fn hex(pair: &[u8]) -> u8 {
    u8::from_str_radix(std::str::from_utf8(pair).expect("digits"), 16).expect("digits")
}

/// The token of a project's agent.
fn token(stage: &Stage, name: &str) -> String {
    let secrets = stage.kubectl(&["get", "secrets", "-o=name"]);
    let prefix = format!("secret/{name}-key-");
    let secret = secrets.lines().find(|line| line.starts_with(&prefix)).expect("the project's Secret");
    stage.kubectl(&["get", secret, "-o=go-template={{.data.token | base64decode}}"])
}
