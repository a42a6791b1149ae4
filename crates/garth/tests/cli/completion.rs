use std::process::Command;

use crate::yard::{Yard, eventually, finish};

/// What bash would offer for the last of these words.
fn offered(yard: &Yard, words: &[&str]) -> Vec<String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_garth"));
    let index = (words.len() - 1).to_string();
    command.arg("--").args(words).env("GARTH_DATA_DIR", yard.data_dir());
    command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
    finish(&mut command, b"").text().lines().map(str::to_owned).collect()
}

#[test]
fn names_of_live_projects_are_offered() {
    let yard = Yard::new();
    assert_eq!(offered(&yard, &["garth", "exec", ""]).iter().filter(|word| !word.starts_with('-')).count(), 0);
    assert_eq!(yard.daemon_pid(), None, "a completion starts no daemon");
    yard.ok(&["create", "web"]);
    yard.ok(&["create", "worker"]);
    // A shell does not wait long for what is offered: a busy daemon may be late.
    let offers = |words: &[&str], expected: &[&str]| {
        eventually("it is offered", || offered(&yard, words) == expected);
    };
    offers(&["garth", "exec", "w"], &["web", "worker"]);
    offers(&["garth", "rm", "web", "wo"], &["worker"]);
    eventually("it is offered", || offered(&yard, &["garth", "cp", "we"]).contains(&"web:".to_owned()));
    offers(&["garth", "create", "x", "--image", "ho"], &["host"]);
}
