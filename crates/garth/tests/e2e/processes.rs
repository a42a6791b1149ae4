use crate::level::{BOX, Sandbox};

levels! {
    every:
        stdin_to_stdout_is_byte_exact,
        exit_codes_are_the_programs_own_or_say_whose,
        output_and_errors_are_apart,
        arguments_are_never_parsed_again,
        a_timeout_ends_daemonised_children_too,
        kill_ends_the_tree_of_one_process_and_no_other,
        no_zombies_are_left_by_orphans,
        logs_replay_from_an_offset_and_follow,
        a_log_flood_keeps_its_end_and_a_bounded_size,
        logs_of_an_earlier_sandbox_are_still_there,
        env_cwd_and_user_are_as_asked;
}

fn stdin_to_stdout_is_byte_exact(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let bytes: Vec<u8> = (0..5_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let done = yard.garth_with(&["exec", "-i", BOX, "--", "cat"], &bytes);
    assert_eq!(done.code, 0);
    assert!(done.stdout == bytes, "{} bytes came back of {}", done.stdout.len(), bytes.len());
}

fn exit_codes_are_the_programs_own_or_say_whose(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let code = |args: &[&str]| yard.garth(&[&["exec"], args].concat()).code;
    assert_eq!(code(&[BOX, "--", "sh", "-c", "exit 7"]), 7);
    assert_eq!(code(&[BOX, "--", "sh", "-c", "kill -TERM $$"]), 143);
    assert_eq!(code(&[BOX, "--", "/no/such/program"]), 127);
    assert_eq!(code(&[BOX, "--", "no-such-program"]), 127);
    assert_eq!(code(&[BOX, "--", "/etc/passwd"]), 126);
    assert_eq!(code(&[BOX, "--", "/etc"]), 126);
    assert_eq!(code(&["--timeout", "200ms", BOX, "--", "sleep", "1000"]), 124);
    assert_eq!(code(&["nobody", "--", "true"]), 125);
}

fn output_and_errors_are_apart(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let done = yard.garth(&["exec", BOX, "--", "sh", "-c", "echo out; echo err >&2"]);
    assert_eq!((done.text().as_str(), done.stderr.trim()), ("out", "err"));
}

fn arguments_are_never_parsed_again(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let odd = "a b;$(x) '\"\\ \n*";
    assert_eq!(yard.ok(&["exec", BOX, "--", "printf", "%s", odd]), odd);
    assert_eq!(yard.ok(&["exec", BOX, "--", "printf", "%s,", "", "-i", "--json"]), ",-i,--json,");
}

fn a_timeout_ends_daemonised_children_too(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let line = "(setsid sleep 4242 &) ; env -i setsid sh -c 'sleep 4242 & wait' & sleep 4242";
    assert_eq!(yard.garth(&["exec", "--timeout", "1s", BOX, "--", "sh", "-c", line]).code, 124);
    assert_eq!(yard.garth(&["exec", BOX, "--", "pgrep", "-fc", "sleep 424[2]"]).text(), "0");
}

fn kill_ends_the_tree_of_one_process_and_no_other(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let doomed = yard.ok(&["exec", "-d", BOX, "--", "sh", "-c", "setsid sleep 1111 & setsid sleep 1111 & wait"]);
    let other = yard.ok(&["exec", "-d", BOX, "--", "sleep", "2222"]);
    crate::yard::eventually("the children run", || {
        yard.garth(&["exec", BOX, "--", "pgrep", "-fc", "^sleep 111[1]"]).text() == "2"
    });
    yard.ok(&["kill", BOX, &doomed]);
    assert_ne!(yard.garth(&["wait", BOX, &doomed]).code, 0);
    assert_eq!(yard.garth(&["exec", BOX, "--", "pgrep", "-fc", "^sleep 111[1]"]).text(), "0");
    assert_eq!(yard.garth(&["exec", BOX, "--", "pgrep", "-fc", "^sleep 222[2]"]).text(), "1");
    yard.ok(&["kill", BOX, &other]);
}

fn no_zombies_are_left_by_orphans(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    yard.sh(BOX, "for i in $(seq 50); do (sleep 0.01 &) ; done; sleep 0.3");
    crate::yard::eventually("every orphan is reaped", || yard.sh(BOX, "ps -e -o stat= | grep -c ^Z || true") == "0");
}

fn logs_replay_from_an_offset_and_follow(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let process = yard.ok(&["exec", "-d", BOX, "--", "sh", "-c", "printf 0123456789; exit 5"]);
    assert_eq!(yard.garth(&["wait", BOX, &process]).code, 5);
    assert_eq!(yard.ok(&["logs", BOX, &process]), "0123456789");
    assert_eq!(yard.ok(&["logs", "--since-offset", "4", BOX, &process]), "456789");
    assert_eq!(yard.ok(&["logs", "-f", BOX, &process]), "0123456789");
}

fn a_log_flood_keeps_its_end_and_a_bounded_size(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let process = yard.ok(&["exec", "-d", BOX, "--", "sh", "-c", "seq 1 4000000; echo last"]);
    assert_eq!(yard.garth(&["wait", BOX, &process]).code, 0);
    let kept = yard.garth(&["logs", BOX, &process]).stdout;
    assert!(kept.len() <= 16 << 20, "{} bytes kept", kept.len());
    assert!(kept.ends_with(b"4000000\nlast\n"));
}

fn logs_of_an_earlier_sandbox_are_still_there(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let process = yard.ok(&["exec", "-d", BOX, "--", "sh", "-c", "echo before; exit 4"]);
    assert_eq!(yard.garth(&["wait", BOX, &process]).code, 4);
    yard.ok(&["restart", BOX]);
    assert_eq!(yard.ok(&["logs", BOX, &process]), "before");
}

fn env_cwd_and_user_are_as_asked(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let done = yard.ok(&[
        "exec",
        "-e",
        "A=b c",
        "-w",
        "/tmp",
        "-u",
        "1000:1001",
        BOX,
        "--",
        "sh",
        "-c",
        "echo $A; pwd; id -u; id -g",
    ]);
    assert_eq!(done, "b c\n/tmp\n1000\n1001");
    assert_eq!(yard.garth(&["exec", "-w", "/nowhere", BOX, "--", "true"]).code, 125);
    assert_eq!(yard.garth(&["exec", "-u", "nobody-such", BOX, "--", "true"]).code, 125);
}
