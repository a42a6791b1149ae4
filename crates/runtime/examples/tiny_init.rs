//! An init for tests and measurements of this crate, in place of the agent: `tiny_init spawner`, `tiny_init jail`.
//!
//! On its socket it takes one JSON array of words per connection, runs them, and answers `{"code", "out", "err"}`.
//! `%fds` lists its own descriptors, `%state` what its state directory and that one's parent hold.
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use garth_runtime::inside::Entered;
use garth_runtime::{oci, spawner};
use rustix::fs::{Mode, OFlags};

fn main() {
    let mode = std::env::args().nth(1).expect("a mode");
    let channel = garth_kernel::descriptors::take_stdin().expect("a channel on standard input");
    match mode.as_str() {
        "spawner" => drop(spawner::run(garth_runtime::Level::Default, channel, serve)),
        "jail" => garth_runtime::jail::run(channel),
        "holder" => oci::holder::run(channel),
        "container" => drop(oci::run(channel, serve)),
        other => panic!("unknown mode {other}"),
    }
}

fn serve(entered: Entered) {
    for connection in entered.listener.incoming().flatten() {
        let _ = answer(connection, &entered.state_dir);
    }
}

fn answer(mut connection: UnixStream, state: &OwnedFd) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(&connection).read_line(&mut line)?;
    let words: Vec<String> = serde_json::from_str(&line)?;
    let reply = match words[0].as_str() {
        "%fds" => out(own_descriptors()?),
        "%state" => out([list(state, ".")?, list(state, "..")?, list(state, "../..")?].concat()),
        _ => run(&words),
    };
    connection.write_all(reply.to_string().as_bytes())
}

fn out(text: String) -> serde_json::Value {
    serde_json::json!({ "code": 0, "out": text, "err": "" })
}

fn own_descriptors() -> std::io::Result<String> {
    let mut text = String::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let target = std::fs::read_link(entry.path()).unwrap_or_default();
        text += &format!("{} {}\n", entry.file_name().display(), target.display());
    }
    Ok(text)
}

fn list(state: &OwnedFd, path: &str) -> std::io::Result<String> {
    let dir = rustix::fs::openat(state, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::new(dir)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.retain(|name| name != "." && name != "..");
    Ok(names.join(" ") + "\n")
}

fn run(words: &[String]) -> serde_json::Value {
    match Command::new(&words[0]).args(&words[1..]).env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin").output() {
        Ok(output) => serde_json::json!({
            "code": output.status.code().unwrap_or_else(|| 128 + output.status.signal().unwrap_or(0)),
            "out": String::from_utf8_lossy(&output.stdout),
            "err": String::from_utf8_lossy(&output.stderr),
        }),
        Err(e) => serde_json::json!({ "code": 127, "out": "", "err": e.to_string() }),
    }
}
