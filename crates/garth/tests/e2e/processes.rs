use crate::yard::Yard;

fn with_project() -> Yard {
    let yard = Yard::new();
    yard.ok(&["create", "p", "--memory", "256MiB", "--pids", "200"]);
    yard
}

#[test]
fn stdin_to_stdout_is_byte_exact() {
    let yard = with_project();
    let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let done = yard.garth_with(&["exec", "-i", "p", "--", "cat"], &bytes);
    assert_eq!(done.code, 0);
    assert!(done.stdout == bytes, "{} bytes came back of {}", done.stdout.len(), bytes.len());
}

#[test]
fn exit_codes_are_the_programs_own_or_say_whose() {
    let yard = with_project();
    let code = |args: &[&str]| yard.garth(&[&["exec"], args].concat()).code;
    assert_eq!(code(&["p", "--", "sh", "-c", "exit 7"]), 7);
    assert_eq!(code(&["p", "--", "sh", "-c", "kill -TERM $$"]), 143);
    assert_eq!(code(&["p", "--", "/no/such/program"]), 127);
    assert_eq!(code(&["p", "--", "no-such-program"]), 127);
    assert_eq!(code(&["p", "--", "/etc/passwd"]), 126);
    assert_eq!(code(&["p", "--", "/etc"]), 126);
    assert_eq!(code(&["--timeout", "200ms", "p", "--", "sleep", "1000"]), 124);
    assert_eq!(code(&["nobody", "--", "true"]), 125);
}

#[test]
fn output_and_errors_are_apart() {
    let yard = with_project();
    let done = yard.garth(&["exec", "p", "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((done.text().as_str(), done.stderr.trim()), ("out", "err"));
}

#[test]
fn arguments_are_never_parsed_again() {
    let yard = with_project();
    let odd = "a b;$(x) '\"\\ \n*";
    assert_eq!(yard.ok(&["exec", "p", "--", "printf", "%s", odd]), odd);
    assert_eq!(yard.ok(&["exec", "p", "--", "printf", "%s,", "", "-i", "--json"]), ",-i,--json,");
}

#[test]
fn a_timeout_ends_daemonised_children_too() {
    let yard = with_project();
    let line = "(setsid sleep 4242 &) ; env -i setsid sh -c 'sleep 4242 & wait' & sleep 4242";
    assert_eq!(yard.garth(&["exec", "--timeout", "1s", "p", "--", "sh", "-c", line]).code, 124);
    assert_eq!(yard.garth(&["exec", "p", "--", "pgrep", "-fc", "sleep 424[2]"]).text(), "0");
}

#[test]
fn kill_ends_the_tree_of_one_process_and_no_other() {
    let yard = with_project();
    let doomed = yard.ok(&["exec", "-d", "p", "--", "sh", "-c", "setsid sleep 1111 & setsid sleep 1111 & wait"]);
    let other = yard.ok(&["exec", "-d", "p", "--", "sleep", "2222"]);
    crate::yard::eventually("the children run", || {
        yard.garth(&["exec", "p", "--", "pgrep", "-fc", "^sleep 111[1]"]).text() == "2"
    });
    yard.ok(&["kill", "p", &doomed]);
    assert_ne!(yard.garth(&["wait", "p", &doomed]).code, 0);
    assert_eq!(yard.garth(&["exec", "p", "--", "pgrep", "-fc", "^sleep 111[1]"]).text(), "0");
    assert_eq!(yard.garth(&["exec", "p", "--", "pgrep", "-fc", "^sleep 222[2]"]).text(), "1");
    yard.ok(&["kill", "p", &other]);
}

#[test]
fn no_zombies_are_left_by_orphans() {
    let yard = with_project();
    yard.sh("p", "for i in $(seq 50); do (sleep 0.01 &) ; done; sleep 0.3");
    crate::yard::eventually("every orphan is reaped", || yard.sh("p", "ps -e -o stat= | grep -c ^Z || true") == "0");
}

#[test]
fn logs_replay_from_an_offset_and_follow() {
    let yard = with_project();
    let process = yard.ok(&["exec", "-d", "p", "--", "sh", "-c", "printf 0123456789; exit 5"]);
    assert_eq!(yard.garth(&["wait", "p", &process]).code, 5);
    assert_eq!(yard.ok(&["logs", "p", &process]), "0123456789");
    assert_eq!(yard.ok(&["logs", "--since-offset", "4", "p", &process]), "456789");
    assert_eq!(yard.ok(&["logs", "-f", "p", &process]), "0123456789");
}

#[test]
fn a_log_flood_keeps_its_end_and_a_bounded_size() {
    let yard = with_project();
    let process = yard.ok(&["exec", "-d", "p", "--", "sh", "-c", "seq 1 4000000; echo last"]);
    assert_eq!(yard.garth(&["wait", "p", &process]).code, 0);
    let kept = yard.garth(&["logs", "p", &process]).stdout;
    assert!(kept.len() <= 16 << 20, "{} bytes kept", kept.len());
    assert!(kept.ends_with(b"4000000\nlast\n"));
}

#[test]
fn logs_of_an_earlier_sandbox_are_still_there() {
    let yard = with_project();
    let process = yard.ok(&["exec", "-d", "p", "--", "sh", "-c", "echo before; exit 4"]);
    assert_eq!(yard.garth(&["wait", "p", &process]).code, 4);
    yard.ok(&["restart", "p"]);
    assert_eq!(yard.ok(&["logs", "p", &process]), "before");
}

#[test]
fn env_cwd_and_user_are_as_asked() {
    let yard = with_project();
    let done = yard.ok(&[
        "exec",
        "-e",
        "A=b c",
        "-w",
        "/tmp",
        "-u",
        "1000:1001",
        "p",
        "--",
        "sh",
        "-c",
        "echo $A; pwd; id -u; id -g",
    ]);
    assert_eq!(done, "b c\n/tmp\n1000\n1001");
    assert_eq!(yard.garth(&["exec", "-w", "/nowhere", "p", "--", "true"]).code, 125);
    assert_eq!(yard.garth(&["exec", "-u", "nobody-such", "p", "--", "true"]).code, 125);
}
