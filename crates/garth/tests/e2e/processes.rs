use crate::level::{BOX, Sandbox};
use crate::promises;

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
    promises::stdin_to_stdout_is_byte_exact(&|args, input| sandbox.yard.garth_with(args, input), BOX);
}

fn exit_codes_are_the_programs_own_or_say_whose(sandbox: &Sandbox) {
    promises::exit_codes_are_the_programs_own_or_say_whose(&|args, input| sandbox.yard.garth_with(args, input), BOX);
}

fn output_and_errors_are_apart(sandbox: &Sandbox) {
    promises::output_and_errors_are_apart(&|args, input| sandbox.yard.garth_with(args, input), BOX);
}

fn arguments_are_never_parsed_again(sandbox: &Sandbox) {
    promises::arguments_are_never_parsed_again(&|args, input| sandbox.yard.garth_with(args, input), BOX);
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
    promises::logs_replay_from_an_offset_and_follow(&|args, input| sandbox.yard.garth_with(args, input), BOX);
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
    promises::logs_of_an_earlier_sandbox_are_still_there(&|args, input| sandbox.yard.garth_with(args, input), BOX);
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
