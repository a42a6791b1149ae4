use crate::yard::Done;

/// Everything that a command left behind, as one text; what differs from run to run has a name instead.
pub fn seen(done: &Done, replace: &[(&str, &str)]) -> String {
    let mut text =
        format!("exit {}\n--- stdout\n{}--- stderr\n{}", done.code, String::from_utf8_lossy(&done.stdout), done.stderr);
    for (from, to) in replace.iter().filter(|(from, _)| !from.is_empty()) {
        text = text.replace(from, to);
    }
    text
}

/// The output of a command without a daemon, in an environment of nothing.
pub fn alone(args: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_garth"));
    command.args(args).env_clear();
    seen(&crate::yard::finish(&mut command, b""), &[])
}
