//! A command line that means nothing starts nothing: no daemon, no directory.

use snapbox::{assert_data_eq, str};

use crate::snapshot::alone;

#[test]
fn an_unknown_verb_comes_with_a_tip() {
    assert_data_eq!(
        alone(&["stat"]),
        str![[r#"
exit 2
--- stdout
--- stderr
error: unrecognized subcommand 'stat'

  tip: some similar subcommands exist: 'set', 'restart', 'start'

Usage: garth [OPTIONS] <COMMAND>

For more information, try '--help'.

"#]]
    );
}

#[test]
fn an_unknown_flag_of_a_program_verb_is_125() {
    assert_data_eq!(
        alone(&["exec", "web", "--nonsense", "--", "true"]),
        str![[r#"
exit 125
--- stdout
--- stderr
error: unexpected argument '--nonsense' found

  tip: to pass '--nonsense' as a value, use '-- --nonsense'

Usage: garth exec <NAME> -- <COMMAND>...

For more information, try '--help'.

"#]]
    );
}

#[test]
fn a_command_without_the_dashes_is_told_where_it_goes() {
    assert_data_eq!(
        alone(&["exec", "web", "ls"]),
        str![[r#"
exit 125
--- stdout
--- stderr
error: unexpected argument 'ls' found

Usage: garth exec [OPTIONS] <NAME> -- <COMMAND>...

For more information, try '--help'.
  hint: the command comes after --, as in: garth exec NAME -- ls -l

"#]]
    );
}

#[test]
fn sizes_and_names_say_what_they_want() {
    assert_data_eq!(
        alone(&["create", "x", "--memory", "10XiB"]),
        str![[r#"
exit 2
--- stdout
--- stderr
error: invalid value '10XiB' for '--memory <SIZE>': "10XiB" is not a size: write a number above zero with B, KiB, MiB, GiB, TiB, KB, MB, GB, TB, K, M, G or T, as in 512MiB

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        alone(&["create", "../x"]),
        str![[r#"
exit 2
--- stdout
--- stderr
error: invalid value '../x' for '[NAME]': "../x" is not a valid name: it has a character outside a-z, 0-9 and '-' (use 1 to 63 of a-z, 0-9 and '-', starting with a letter or digit and not ending in '-')

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        alone(&["create", "x", "--network", "lan"]),
        str![[r#"
exit 2
--- stdout
--- stderr
error: invalid value 'lan' for '--network <NETWORK>': unknown network "lan": use none or internet

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        alone(&["create", "x", "--label", "novalue"]),
        str![[r#"
exit 2
--- stdout
--- stderr
error: invalid value 'novalue' for '--label <KEY=VALUE>': write KEY=VALUE

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        alone(&["exec", "--timeout", "0", "x", "--", "true"]),
        str![[r#"
exit 125
--- stdout
--- stderr
error: invalid value '0' for '--timeout <TIME>': it has to be above zero

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        alone(&["kill", "x", "p", "-s", "NOPE"]),
        str![[r#"
exit 2
--- stdout
--- stderr
error: invalid value 'NOPE' for '--signal <SIGNAL>': write a signal's name or number, as in TERM, SIGINT or 9

For more information, try '--help'.

"#]]
    );
}

#[test]
fn errors_of_usage_are_json_when_asked() {
    assert_data_eq!(
        alone(&["create", "x", "--cpus", "0", "--json"]),
        str![[r#"
exit 2
--- stdout
{"error":{"code":"usage","hint":"garth help","message":"invalid value '0' for '--cpus <NUMBER>': /"0/" is not a number of CPUs between 0.01 and 1024, as in 2 or 0.5"}}
--- stderr

"#]]
    );
    assert_data_eq!(
        alone(&["exec", "x", "--json"]),
        str![[r#"
exit 125
--- stdout
{"error":{"code":"usage","hint":"the command comes after --, as in: garth exec NAME -- ls -l","message":"the following required arguments were not provided: <COMMAND>..."}}
--- stderr

"#]]
    );
}

#[test]
fn words_of_the_program_are_no_flags_of_ours() {
    let line = ["--host", "unix:///nonexistent/garth.sock", "exec", "x", "--", "ls", "--json"];
    assert_data_eq!(
        alone(&line),
        str![[r#"
exit 125
--- stdout
--- stderr
garth: no daemon answers at /nonexistent/garth.sock: No such file or directory
  hint: GARTH_HOST or --host names this place: start its daemon with garth serve

"#]]
    );
}

#[test]
fn a_daemon_of_someone_else_is_never_started() {
    assert_data_eq!(
        alone(&["ls", "--host", "unix:///nonexistent/garth.sock"]),
        str![[r#"
exit 7
--- stdout
--- stderr
garth: no daemon answers at /nonexistent/garth.sock: No such file or directory
  hint: GARTH_HOST or --host names this place: start its daemon with garth serve

"#]]
    );
    assert_data_eq!(
        alone(&["ls", "--host", "unix:///nonexistent/garth.sock", "--json"]),
        str![[r#"
exit 7
--- stdout
{"error":{"cause":["No such file or directory"],"code":"daemon_unreachable","hint":"GARTH_HOST or --host names this place: start its daemon with garth serve","message":"no daemon answers at /nonexistent/garth.sock"}}
--- stderr

"#]]
    );
    assert_data_eq!(
        alone(&["ls", "--host", "tcp://127.0.0.1:1"]),
        str![[r#"
exit 2
--- stdout
--- stderr
error: invalid value 'tcp://127.0.0.1:1' for '--host <URL>': write unix:///path/of/garth.sock, https://host or http://host:port

For more information, try '--help'.

"#]]
    );
}

#[test]
fn a_data_directory_flag_wins_over_a_host_of_the_environment() {
    let long = format!("/tmp/{}", "x".repeat(200));
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_garth"));
    command.args(["ls", "--data-dir", &long]).env_clear().env("GARTH_HOST", "unix:///nonexistent/garth.sock");
    let done = crate::yard::finish(&mut command, b"");
    assert_data_eq!(
        crate::snapshot::seen(&done, &[(&long, "[LONG]")]),
        str![[r#"
exit 7
--- stdout
--- stderr
garth: no daemon answers at [LONG]/garth.sock: path must be shorter than SUN_LEN
  hint: a socket's path has at most 107 bytes: use a shorter one

"#]]
    );
}

#[test]
fn deleting_asks_and_needs_a_terminal_to_ask_on() {
    assert_data_eq!(
        alone(&["rm", "web"]),
        str![[r#"
exit 5
--- stdout
--- stderr
garth: deleting web needs a confirmation, and there is no terminal to ask on
  hint: add -f to delete without being asked

"#]]
    );
    assert_data_eq!(
        alone(&["rm", "web", "--json"]),
        str![[r#"
exit 5
--- stdout
{"error":{"code":"not_confirmed","hint":"add -f to delete without being asked","message":"deleting web needs a confirmation, and there is no terminal to ask on"}}
--- stderr

"#]]
    );
}

#[test]
fn copies_need_one_end_in_a_project() {
    assert_data_eq!(
        alone(&["cp", "a", "b"]),
        str![[r#"
exit 2
--- stdout
--- stderr
garth: one end has to be in a project
  hint: garth cp PATH NAME:PATH, or the other way

"#]]
    );
    assert_data_eq!(
        alone(&["cp", "Web:a", "b"]),
        str![[r#"
exit 2
--- stdout
--- stderr
garth: "Web" is not a valid name: it has an upper-case letter (use 1 to 63 of a-z, 0-9 and '-', starting with a letter or digit and not ending in '-')
  hint: write ./Web:a for a file here

"#]]
    );
}

#[test]
fn exit_codes_are_explained() {
    assert_data_eq!(
        alone(&["help", "exit-codes"]),
        str![[r#"
exit 0
--- stdout
run, exec, shell, attach and wait end with the code of the process they ran or waited for:

  0-255  the program's own code
  124    --timeout passed; the process and all it started were ended
  125    Garth failed, not the program
  126    the program cannot be run: not executable, a directory, not permitted
  127    the program was not found
  128+n  the program was ended by signal n (137 is SIGKILL, also when memory ran out)

All other commands:

  0      done
  1      failed; for verify: a check failed
  2      wrong usage: an unknown flag, a name or a value that is not taken
  3      no such project, image, process or file
  4      the name is taken, or the project's state does not allow it
  5      refused: an unsafe image, a runtime weaker than --at-least, a confirmation that is missing, no permission
  6      over a limit or quota, or a disk is full
  7      no daemon answers and none could be started
  8      the runtime or network that was asked for is not available on this machine
  141    whoever read the output went away

With --json every failure is also {"error":{"code","message","hint","step","cause"}} on stdout.
--- stderr

"#]]
    );
}

#[test]
fn completions_are_there_for_every_shell() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = alone(&["completion", shell]);
        assert!(script.starts_with("exit 0\n") && script.contains("COMPLETE"), "{shell}: {script}");
    }
}

#[test]
fn setup_says_which_runtimes_there_are_and_takes_modules_with_a_kernel_only() {
    assert_data_eq!(
        alone(&["setup", "sysbox"]),
        str![[r#"
exit 2
--- stdout
--- stderr
error: unrecognized subcommand 'sysbox'

Usage: garth setup [OPTIONS] <COMMAND>

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        alone(&["setup", "microvm", "--modules", "/lib/modules/6.1"]),
        str![[r#"
exit 2
--- stdout
--- stderr
error: the following required arguments were not provided:
  --kernel <FILE>

Usage: garth setup microvm --kernel <FILE> --modules <DIR>

For more information, try '--help'.

"#]]
    );
}
