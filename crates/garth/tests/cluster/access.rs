//! Who gets in: to the gateway with a key, to an agent with the project's token, and nobody else.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;

use crate::stage::{Stage, address};
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
    let wrong = format!("{}0", &web[..web.len() - 1]);
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
fn an_agent_answers_nobody_without_the_token() {
    let Some(stage) = Stage::open("an_agent_answers_nobody_without_the_token") else { return };
    stage.apply(&stage.project("web", ""));
    stage.sh("web", "echo heron > note");
    let pod = stage.kubectl(&["get", "pod", "web", "-o=jsonpath={.status.podIP}"]);
    let ask = |path: &str, header: &str| {
        let mut stream = TcpStream::connect((pod.as_str(), 49983)).expect("connects");
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}\r\n").expect("asks");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("answers");
        answer
    };
    for header in ["", "garth-agent-token: \r\n", "garth-agent-token: 00\r\n", "authorization: Bearer x\r\n"] {
        let answer = ask("/files?path=/workspace/note", header);
        assert!(answer.starts_with("HTTP/1.1 401") && !answer.contains("heron"), "{answer}");
    }
    assert!(ask("/health", "").starts_with("HTTP/1.1 204"));
}
