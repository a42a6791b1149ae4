//! What holds of processes at each level and on each engine. `garth` runs the program against one of them.

use crate::yard::Done;

/// Runs `garth` with these words and this standard input.
pub type Garth<'a> = &'a dyn Fn(&[&str], &[u8]) -> Done;

pub fn stdin_to_stdout_is_byte_exact(garth: Garth<'_>, name: &str) {
    let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let done = garth(&["exec", "-i", name, "--", "cat"], &bytes);
    assert_eq!(done.code, 0);
    assert!(done.stdout == bytes, "{} bytes came back of {}", done.stdout.len(), bytes.len());
}

pub fn exit_codes_are_the_programs_own_or_say_whose(garth: Garth<'_>, name: &str) {
    let code = |args: &[&str]| garth(&[&["exec"], args].concat(), b"").code;
    assert_eq!(code(&[name, "--", "sh", "-c", "exit 7"]), 7);
    assert_eq!(code(&[name, "--", "sh", "-c", "kill -TERM $$"]), 143);
    assert_eq!(code(&[name, "--", "/no/such/program"]), 127);
    assert_eq!(code(&[name, "--", "no-such-program"]), 127);
    assert_eq!(code(&[name, "--", "/etc/passwd"]), 126);
    assert_eq!(code(&[name, "--", "/etc"]), 126);
    assert_eq!(code(&["--timeout", "200ms", name, "--", "sleep", "1000"]), 124);
    assert_eq!(code(&["nobody", "--", "true"]), 125);
}

pub fn output_and_errors_are_apart(garth: Garth<'_>, name: &str) {
    let done = garth(&["exec", name, "--", "sh", "-c", "echo out; echo err >&2"], b"");
    assert_eq!((done.text().as_str(), done.stderr.trim()), ("out", "err"));
}

pub fn arguments_are_never_parsed_again(garth: Garth<'_>, name: &str) {
    let odd = "a b;$(x) '\"\\ \n*";
    let printed = |words: &[&str]| garth(&[&["exec", name, "--", "printf"], words].concat(), b"").text();
    assert_eq!(printed(&["%s", odd]), odd);
    assert_eq!(printed(&["%s,", "", "-i", "--json"]), ",-i,--json,");
}

pub fn logs_replay_from_an_offset_and_follow(garth: Garth<'_>, name: &str) {
    let process = garth(&["exec", "-d", name, "--", "sh", "-c", "printf 0123456789; exit 5"], b"").text();
    assert_eq!(garth(&["wait", name, &process], b"").code, 5);
    assert_eq!(garth(&["logs", name, &process], b"").text(), "0123456789");
    assert_eq!(garth(&["logs", "--since-offset", "4", name, &process], b"").text(), "456789");
    assert_eq!(garth(&["logs", "-f", name, &process], b"").text(), "0123456789");
}

pub fn logs_of_an_earlier_sandbox_are_still_there(garth: Garth<'_>, name: &str) {
    let process = garth(&["exec", "-d", name, "--", "sh", "-c", "echo before; exit 4"], b"").text();
    assert_eq!(garth(&["wait", name, &process], b"").code, 4);
    assert_eq!(garth(&["restart", name], b"").code, 0);
    assert_eq!(garth(&["logs", name, &process], b"").text(), "before");
}
