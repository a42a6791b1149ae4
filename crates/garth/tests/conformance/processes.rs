//! Processes: what goes in and comes out, how they end, what is kept of them.

use std::io::Read as _;
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::Value;

use crate::endpoint::{BOX, Check, Checked, Endpoint, Outcome};
use crate::promises::{self, Garth};
use crate::screen::Terminal;
use crate::yard::eventually;

pub const CHECKS: &[Check] = &[
    Check { word: "exec", what: "ends with the program's own code, or says whose it is", by: exit_codes },
    Check { word: "exec", what: "passes standard input and output on, byte by byte (5 MB)", by: bytes },
    Check { word: "exec", what: "keeps output and errors apart", by: apart },
    Check { word: "exec", what: "parses no argument again", by: arguments },
    Check { word: "exec", what: "starts a project that is stopped", by: exec_starts },
    Check {
        word: "exec --env --workdir",
        what: "are the process's, and a directory that is not there is said",
        by: surroundings,
    },
    Check { word: "exec --user", what: "is the process's user", by: user },
    Check { word: "exec --timeout", what: "ends the process and all it started, exit 124", by: timeout },
    Check { word: "exec --json", what: "prints events as lines of JSON", by: events },
    Check { word: "exec", what: "signals to the command reach the program", by: signals },
    Check { word: "exec", what: "ends the program when its reader goes away, exit 141", by: reader_gone },
    Check { word: "exec", what: "loses nothing to a slow reader (20 MB)", by: slow_reader },
    Check { word: "exec -t", what: "a terminal with its size, job control, Ctrl-C, and a new size", by: terminal },
    Check { word: "shell", what: "is a terminal without asking", by: shell },
    Check { word: "exec -d", what: "leaves a process running, which `wait` waits for, with its code", by: detached },
    Check { word: "logs", what: "replays from an offset and follows to the end", by: logs },
    Check { word: "logs", what: "of an earlier sandbox are still there", by: earlier_logs },
    Check { word: "attach", what: "gives a process input once, and shows its end", by: attach },
    Check { word: "kill", what: "ends the tree of one process and no other, or sends a signal", by: kill },
    Check { word: "ps", what: "lists processes, running and ended", by: ps },
    Check { word: "exec", what: "leaves no zombies of orphans", by: orphans },
];

fn promised(at: &Endpoint, promise: fn(Garth<'_>, &str)) -> Checked {
    promise(&|args, input| at.garth_with(args, input), BOX);
    Ok(())
}

fn exit_codes(at: &Endpoint) -> Checked {
    promised(at, promises::exit_codes_are_the_programs_own_or_say_whose)
}

fn bytes(at: &Endpoint) -> Checked {
    promised(at, promises::stdin_to_stdout_is_byte_exact)
}

fn apart(at: &Endpoint) -> Checked {
    promised(at, promises::output_and_errors_are_apart)
}

fn arguments(at: &Endpoint) -> Checked {
    promised(at, promises::arguments_are_never_parsed_again)
}

fn logs(at: &Endpoint) -> Checked {
    promised(at, promises::logs_replay_from_an_offset_and_follow)
}

fn earlier_logs(at: &Endpoint) -> Checked {
    let life = at.lives.changed(at);
    assert_eq!((life.earlier_log.as_str(), life.earlier_code), ("before", 4));
    Ok(())
}

fn exec_starts(at: &Endpoint) -> Checked {
    let life = at.lives.changed(at);
    assert!(life.first == "stopped" && life.sandboxes.0.is_string(), "{life:?}");
    Ok(())
}

fn surroundings(at: &Endpoint) -> Checked {
    let line = "echo $A; pwd; echo $HOSTNAME; hostname";
    assert_eq!(at.ok(&["exec", "-e", "A=b c", "-w", "/tmp", BOX, "--", "sh", "-c", line]), "b c\n/tmp\nbox\nbox");
    assert_eq!(at.garth(&["exec", "-w", "/nowhere", BOX, "--", "true"]).code, 125);
    Ok(())
}

fn user(at: &Endpoint) -> Checked {
    let done = at.garth(&["exec", "-u", "1234:1235", BOX, "--", "sh", "-c", "id -u; id -g"]);
    if done.code != 0 {
        assert!(done.stderr.contains("run as one user"), "{done:?}");
        return Err(Outcome::Missing);
    }
    assert_eq!(done.text(), "1234\n1235");
    Ok(())
}

/// How many processes of the box have this command line.
fn count(at: &Endpoint, line: &str) -> usize {
    at.ok(&["exec", BOX, "--", "ps", "-o", "args"]).lines().filter(|seen| *seen == line).count()
}

fn timeout(at: &Endpoint) -> Checked {
    let line = "(setsid sleep 4242 &) ; setsid sh -c 'sleep 4242 & wait' & sleep 4242";
    assert_eq!(at.garth(&["exec", "--timeout", "1s", BOX, "--", "sh", "-c", line]).code, 124);
    assert_eq!(count(at, "sleep 4242"), 0);
    Ok(())
}

fn events(at: &Endpoint) -> Checked {
    let done = at.garth(&["exec", BOX, "--json", "--", "sh", "-c", r"echo out; printf '\377' >&2; exit 4"]);
    assert_eq!(done.code, 4);
    let events: Vec<Value> = done.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let of = |stream: &str| events.iter().find(|event| event["stream"] == stream).cloned().unwrap_or_default();
    assert_eq!((&of("stdout")["text"], &of("stderr")["base64"]), (&"out\n".into(), &"/w==".into()), "{events:?}");
    assert_eq!(events.last().map(|event| &event["exit_code"]), Some(&4.into()));
    Ok(())
}

fn running(at: &Endpoint, args: &[&str]) -> Child {
    at.command(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("garth starts")
}

#[track_caller]
fn prints(child: &mut Child, text: &str) {
    let mut first = vec![0; text.len()];
    child.stdout.as_mut().expect("piped").read_exact(&mut first).expect("output");
    assert_eq!(String::from_utf8_lossy(&first), text);
}

fn signals(at: &Endpoint) -> Checked {
    let line = "trap 'exit 9' USR1; echo up; while :; do sleep 0.01; done";
    for (signal, wanted) in [(Signal::USR1, 9), (Signal::TERM, 143), (Signal::INT, 130)] {
        let mut child = running(at, &["exec", BOX, "--", "sh", "-c", line]);
        prints(&mut child, "up\n");
        kill_process(Pid::from_child(&child), signal).expect("sent");
        assert_eq!(child.wait().expect("ends").code(), Some(wanted), "{signal:?}");
    }
    Ok(())
}

fn reader_gone(at: &Endpoint) -> Checked {
    let mut child = running(at, &["exec", BOX, "--", "sh", "-c", "yes of-a-reader"]);
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("ends").code(), Some(141));
    eventually("it is gone", || count(at, "yes of-a-reader") == 0);
    Ok(())
}

fn slow_reader(at: &Endpoint) -> Checked {
    const BYTES: usize = 20_000_000;
    let mut child = running(at, &["exec", BOX, "--", "head", "-c", &BYTES.to_string(), "/dev/zero"]);
    let mut stdout = child.stdout.take().expect("piped");
    stdout.read_exact(&mut [0]).expect("the first byte");
    // More than is kept of a process's output would be written meanwhile, did that not wait.
    (0..3).for_each(|_| drop(at.sh(BOX, "head -c 30000000 /dev/zero > fill; rm fill; echo")));
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("the rest");
    assert_eq!((rest.len() + 1, child.wait().expect("ends").code()), (BYTES, Some(0)));
    Ok(())
}

fn terminal(at: &Endpoint) -> Checked {
    let mut terminal = Terminal::new();
    let mut shell = terminal.run(at.command(&["exec", "-it", BOX, "--", "sh"]));
    terminal.types("stty size; echo $TERM\r");
    terminal.shows("40 100\r\nxterm");
    tcsetwinsize(&terminal.line, Winsize { ws_row: 50, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).expect("size");
    kill_process(Pid::from_child(&shell), Signal::WINCH).expect("sent");
    terminal.types("until stty size | grep '50 120'; do sleep 0.02; done\r");
    terminal.shows("50 120\r\n");
    terminal.types("sleep 3131; echo code=$?\r");
    eventually("sleep is there", || count(at, "sleep 3131") == 1);
    terminal.types("\x03");
    terminal.shows("^C");
    terminal.types("echo code=$((100+30))\r");
    terminal.shows("code=130");
    terminal.types("exit 5\r");
    assert_eq!(shell.wait().expect("ends").code(), Some(5));
    assert!(!terminal.is_raw());
    Ok(())
}

fn shell(at: &Endpoint) -> Checked {
    let mut terminal = Terminal::new();
    let mut shell = terminal.run(at.command(&["shell", BOX]));
    terminal.types("test -t 0 && echo it is $((40+2))\r");
    terminal.shows("it is 42");
    terminal.types("exit\r");
    assert_eq!(shell.wait().expect("ends").code(), Some(0));
    Ok(())
}

fn detached(at: &Endpoint) -> Checked {
    let process = at.ok(&["exec", "-d", BOX, "--", "sh", "-c", "echo out; echo err >&2; exit 5"]);
    assert_eq!(at.garth(&["wait", BOX, &process]).code, 5);
    let done = at.garth(&["logs", BOX, &process]);
    assert_eq!((done.text().as_str(), done.stderr.trim()), ("out", "err"));
    at.refused(&["logs", BOX, "nothing"], 3, "not_found");
    Ok(())
}

fn attach(at: &Endpoint) -> Checked {
    let line = "while read x; do echo got $x; done; echo end; exit 6";
    let process = at.ok(&["exec", "-d", "-i", BOX, "--", "sh", "-c", line]);
    let done = at.garth_with(&["attach", BOX, &process], b"one\ntwo\n");
    assert_eq!((done.code, done.text().as_str()), (6, "got one\ngot two\nend"), "{done:?}");
    Ok(())
}

fn kill(at: &Endpoint) -> Checked {
    let doomed = at.ok(&["exec", "-d", BOX, "--", "sh", "-c", "setsid sleep 1111 & setsid sleep 1111 & wait"]);
    let other = at.ok(&["exec", "-d", BOX, "--", "sleep", "2222"]);
    eventually("the children run", || count(at, "sleep 1111") == 2);
    at.ok(&["kill", BOX, &doomed]);
    assert_eq!(at.garth(&["wait", BOX, &doomed]).code, 137);
    assert_eq!((count(at, "sleep 1111"), count(at, "sleep 2222")), (0, 1));
    at.ok(&["kill", "-s", "TERM", BOX, &other]);
    assert_eq!(at.garth(&["wait", BOX, &other]).code, 143);
    at.refused(&["kill", BOX, "nothing"], 3, "not_found");
    Ok(())
}

fn ps(at: &Endpoint) -> Checked {
    let ended = at.ok(&["exec", "-d", BOX, "--", "sh", "-c", "exit 5"]);
    at.garth(&["wait", BOX, &ended]);
    let runs = at.ok(&["exec", "-d", BOX, "--", "sleep", "5555"]);
    let listed = at.ask(&["ps", BOX])?;
    let of = |id: &str| listed["processes"].as_array().expect("a list").iter().find(|one| one["id"] == id).cloned();
    let (ended, running) = (of(&ended).expect("listed"), of(&runs).expect("listed"));
    assert_eq!((&ended["running"], &ended["exit_code"], &running["running"]), (&false.into(), &5.into(), &true.into()));
    assert!(at.ok(&["ps", "-q", "--running", BOX]).lines().any(|line| line == runs));
    at.ok(&["kill", BOX, &runs]);
    Ok(())
}

fn orphans(at: &Endpoint) -> Checked {
    at.sh(BOX, "for i in $(seq 20); do (sleep 0.01 &) ; done");
    eventually("every orphan is reaped", || at.sh(BOX, "ps -o stat,args | grep -c '^Z' || true") == "0");
    Ok(())
}
