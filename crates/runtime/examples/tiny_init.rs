//! An init for tests and measurements of this crate, in place of the agent: `tiny_init spawner`.
//!
//! On its socket it takes one JSON array of words per connection, runs them, and answers `{"code", "out", "err"}`.
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::Command;

use garth_runtime::inside::Entered;
use garth_runtime::spawner;

fn main() {
    if std::env::args().nth(1).as_deref() == Some("spawner") {
        let channel = garth_kernel::descriptors::take_stdin().expect("a channel on standard input");
        let _ = spawner::run(channel, serve);
    }
}

fn serve(entered: Entered) {
    for connection in entered.listener.incoming().flatten() {
        let _ = answer(connection);
    }
}

fn answer(mut connection: UnixStream) -> std::io::Result<()> {
    let mut line = String::new();
    BufReader::new(&connection).read_line(&mut line)?;
    let words: Vec<String> = serde_json::from_str(&line)?;
    let reply = match Command::new(&words[0]).args(&words[1..]).env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin").output() {
        Ok(output) => serde_json::json!({
            "code": output.status.code().unwrap_or(-1),
            "out": String::from_utf8_lossy(&output.stdout),
            "err": String::from_utf8_lossy(&output.stderr),
        }),
        Err(e) => serde_json::json!({ "code": 127, "out": "", "err": e.to_string() }),
    };
    connection.write_all(reply.to_string().as_bytes())
}
