use crate::yard::{Done, Yard, finish};

/// Everything that a command left behind, as one text; what differs from run to run has a name instead.
pub fn seen(done: &Done, replace: &[(&str, &str)]) -> String {
    let stdout = String::from_utf8_lossy(&done.stdout);
    let mut text = format!("exit {}\n--- stdout\n{stdout}--- stderr\n{}", done.code, done.stderr);
    for (from, to) in replace.iter().filter(|(from, _)| !from.is_empty()) {
        text = text.replace(from, to);
    }
    named(&text)
}

/// Ids and times by what they are.
fn named(text: &str) -> String {
    let is_hex = |word: &str| word.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
    let has_digit = |word: &str| word.bytes().any(|c| c.is_ascii_digit());
    let mut out = String::new();
    for piece in text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let word = piece.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        let rest = &piece[word.len()..];
        match word.len() {
            16 if is_hex(word) && has_digit(word) => out += "[ID]",
            8 if is_hex(word) && has_digit(word) => out += "[PROCESS]",
            _ => out += word,
        }
        out += rest;
    }
    out
}

/// The output of a command without a daemon, in an environment of nothing.
pub fn alone(args: &[&str]) -> String {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_garth"));
    command.args(args).env_clear();
    seen(&finish(&mut command, b""), &[])
}

/// The output of a command of this yard.
pub fn of(yard: &Yard, args: &[&str]) -> String {
    with(yard, args, &[])
}

/// The same, with names for what differs from run to run.
pub fn with(yard: &Yard, args: &[&str], replace: &[(&str, &str)]) -> String {
    let dir = yard.data_dir().to_string_lossy().into_owned();
    let replace: Vec<_> = [(dir.as_str(), "[DATA_DIR]")].into_iter().chain(replace.iter().copied()).collect();
    seen(&yard.garth(args), &replace)
}
