use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use snapbox::{assert_data_eq, str};

use crate::snapshot::{of, with};
use crate::yard::{Yard, eventually, finish};

fn with_project() -> Yard {
    let yard = Yard::new();
    yard.ok(&["create", "p", "--memory", "256MiB"]);
    yard
}

#[test]
fn why_a_program_did_not_start_is_said_with_its_code() {
    let yard = with_project();
    assert_data_eq!(
        of(&yard, &["exec", "p", "--", "no-such-program"]),
        str![[r#"
exit 127
--- stdout
--- stderr
garth: no-such-program: not found

"#]]
    );
    assert_data_eq!(
        of(&yard, &["exec", "p", "--", "/etc"]),
        str![[r#"
exit 126
--- stdout
--- stderr
garth: /etc: is a directory

"#]]
    );
    assert_data_eq!(
        of(&yard, &["exec", "p", "--", "/etc/passwd"]),
        str![[r#"
exit 126
--- stdout
--- stderr
garth: /etc/passwd: permission denied

"#]]
    );
    assert_data_eq!(
        of(&yard, &["exec", "p", "-w", "/nowhere", "--", "true"]),
        str![[r#"
exit 125
--- stdout
--- stderr
garth: cwd '/nowhere' does not exist

"#]]
    );
    assert_data_eq!(
        of(&yard, &["exec", "p", "-u", "nobody-such", "--", "true"]),
        str![[r#"
exit 125
--- stdout
--- stderr
garth: no user "nobody-such" in the sandbox's /etc/passwd

"#]]
    );
    assert_data_eq!(
        of(&yard, &["exec", "p", "--json", "--", "no-such-program"]),
        str![[r#"
exit 127
--- stdout
{"error":{"code":"program_not_found","message":"no-such-program: not found"}}
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["exec", "nobody", "--", "true"]),
        str![[r#"
exit 125
--- stdout
--- stderr
garth: there is no project nobody
  hint: `garth ls -a` shows the projects there are

"#]]
    );
}

#[test]
fn events_are_lines_of_json() {
    let yard = with_project();
    let line = r"echo out; printf '\377' >&2; exit 4";
    let done = yard.garth(&["exec", "p", "--json", "--", "sh", "-c", line]);
    assert_eq!(done.code, 4);
    let events: Vec<serde_json::Value> =
        done.text().lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let kinds: Vec<_> = events.iter().filter_map(|event| event["event"].as_str()).collect();
    assert_eq!(kinds, ["started", "output", "output", "ended"]);
    let of = |stream: &str| events.iter().find(|event| event["stream"] == stream).cloned().unwrap_or_default();
    assert_eq!((&of("stdout")["text"], &of("stderr")["base64"]), (&"out\n".into(), &"/w==".into()));
    assert_eq!(events.last().map(|event| &event["exit_code"]), Some(&4.into()));
}

#[test]
fn a_process_in_the_background_is_listed_read_and_waited_for() {
    let yard = with_project();
    let process = yard.ok(&["exec", "-d", "p", "--", "sh", "-c", "echo out; echo err >&2; exit 5"]);
    assert_data_eq!(
        of(&yard, &["wait", "p", &process]),
        str![[r#"
exit 5
--- stdout
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["wait", "p", &process, "--json"]),
        str![[r#"
exit 5
--- stdout
{"event":"ended","exit_code":5,"reason":"exited","signal":null}
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["logs", "p", &process]),
        str![[r#"
exit 0
--- stdout
out
--- stderr
err

"#]]
    );
    assert_data_eq!(
        of(&yard, &["logs", "p", &process, "--only", "stderr"]),
        str![[r#"
exit 0
--- stdout
--- stderr
err

"#]]
    );
    assert_data_eq!(
        with(&yard, &["ps", "-q", "p"], &[(&process, "[PROCESS]")]),
        str![[r#"
exit 0
--- stdout
[PROCESS]
--- stderr

"#]]
    );
    let listed = &yard.json(&["ps", "p"])["processes"][0];
    assert_eq!((&listed["id"], &listed["exit_code"], &listed["running"]), (&process.into(), &5.into(), &false.into()));
    assert_data_eq!(
        of(&yard, &["logs", "p", "nope"]),
        str![[r#"
exit 3
--- stdout
--- stderr
garth: no process "nope"

"#]]
    );
    assert_data_eq!(
        of(&yard, &["wait", "p", "nope"]),
        str![[r#"
exit 125
--- stdout
--- stderr
garth: no process "nope"

"#]]
    );
    assert_data_eq!(
        of(&yard, &["kill", "p", "nope"]),
        str![[r#"
exit 3
--- stdout
--- stderr
garth: no process "nope"

"#]]
    );
    yard.ok(&["stop", "p"]);
    assert_data_eq!(
        of(&yard, &["ps", "p"]),
        str![[r#"
exit 0
--- stdout
ID  STATE  STARTED  USER  COMMAND
--- stderr

"#]]
    );
    assert_data_eq!(
        of(&yard, &["attach", "p", "x"]),
        str![[r#"
exit 125
--- stdout
--- stderr
garth: project p is not running
  hint: garth start p

"#]]
    );
}

#[test]
fn an_attached_process_gets_input_once_and_its_end() {
    let yard = with_project();
    let line = "while read x; do echo got $x; done; echo end; exit 6";
    let process = yard.ok(&["exec", "-d", "-i", "p", "--", "sh", "-c", line]);
    let done = yard.garth_with(&["attach", "p", &process], b"one\ntwo\n");
    assert_data_eq!(
        crate::snapshot::seen(&done, &[]),
        str![[r#"
exit 6
--- stdout
got one
got two
end
--- stderr

"#]]
    );
}

fn running(yard: &Yard, args: &[&str]) -> Child {
    yard.command(args).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("garth starts")
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("kill");
}

#[test]
fn signals_reach_the_program() {
    let yard = with_project();
    let line = "trap 'exit 9' USR1; touch /root/ready; while :; do sleep 0.01; done";
    for (name, wanted) in [(Signal::USR1, 9), (Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut child = running(&yard, &["exec", "p", "--", "sh", "-c", line]);
        eventually("the program is up", || yard.sh_succeeds("p", "rm /root/ready 2>/dev/null"));
        signal(&child, name);
        assert_eq!(child.wait().expect("ends").code(), Some(wanted), "{name:?}");
    }
}

#[test]
fn a_reader_that_goes_away_ends_the_program() {
    let yard = with_project();
    let mut child = running(&yard, &["exec", "p", "--", "sh", "-c", "yes; echo $? > /root/code"]);
    drop(child.stdout.take());
    assert_eq!(child.wait().expect("ends").code(), Some(141));
    eventually("yes is gone", || yard.garth(&["exec", "p", "--", "pgrep", "-c", "^yes"]).text() == "0");
}

/// Kills the daemon again and again while `command` runs; what it printed.
fn among_crashes(yard: &Yard, command: &mut Command, input: &[u8]) -> crate::yard::Done {
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let crashes = scope.spawn(|| {
            let mut killed = None;
            let mut times = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let pid = yard.daemon_pid();
                let answers = std::os::unix::net::UnixStream::connect(yard.data_dir().join("garth.sock")).is_ok();
                if answers && pid.is_some() && pid != killed && times < 3 {
                    yard.kill_daemon();
                    (killed, times) = (pid, times + 1);
                }
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            times
        });
        let finished = finish(command, input);
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(crashes.join().expect("crashes") > 0, "the daemon was never killed");
        finished
    })
}

#[test]
fn crashes_of_the_daemon_lose_and_repeat_no_byte_of_output() {
    let yard = with_project();
    yard.sh("p", "true");
    let line = "for i in $(seq 1 200); do seq $((i*1000)) $((i*1000+999)); sleep 0.01; done; exit 7";
    let done = among_crashes(&yard, &mut yard.command(&["exec", "p", "--", "sh", "-c", line]), b"");
    let wanted: String = (1000..=200_999).map(|number| format!("{number}\n")).collect();
    assert_eq!(done.code, 7, "{}", done.stderr);
    assert!(done.stdout == wanted.as_bytes(), "{} bytes of {}", done.stdout.len(), wanted.len());
}

#[test]
fn crashes_of_the_daemon_lose_and_repeat_no_byte_of_input() {
    let yard = with_project();
    yard.sh("p", "true");
    let bytes: Vec<u8> = (0..40_000_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let done = among_crashes(&yard, &mut yard.command(&["exec", "-i", "p", "--", "sha256sum"]), &bytes);
    let mut sum = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sha256sum");
    sum.stdin.take().expect("piped").write_all(&bytes).expect("write");
    let wanted = sum.wait_with_output().expect("sum");
    assert_eq!(done.text(), String::from_utf8_lossy(&wanted.stdout).trim_end());
}

#[test]
fn an_ephemeral_project_outlives_its_daemon_and_not_its_command() {
    let yard = with_project();
    let line = ["run", "--rm", "--", "sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.2; done"];
    let done = among_crashes(&yard, &mut yard.command(&line), b"");
    assert_eq!((done.code, done.text().as_str(), done.stderr.as_str()), (0, "1\n2\n3\n4\n5\n6\n7\n8", ""));
    // One that was made just before a crash, and that nobody was told of, goes after its first seconds.
    eventually("none but the other is left", || yard.project_names() == ["p"]);
}

/// Reads what a command prints up to `text`.
#[track_caller]
fn prints(child: &mut Child, text: &str) {
    let mut first = vec![0; text.len()];
    child.stdout.as_mut().expect("piped").read_exact(&mut first).expect("output");
    assert_eq!(String::from_utf8_lossy(&first), text);
}

#[test]
fn a_sandbox_that_is_stopped_ends_what_follows_it_and_stays_stopped() {
    let yard = with_project();
    let mut program = running(&yard, &["exec", "p", "--", "sh", "-c", "echo up; exec sleep 1000"]);
    prints(&mut program, "up\n");
    let process = yard.ok(&["ps", "-q", "p"]);
    let mut follower = running(&yard, &["logs", "-f", "p", &process]);
    prints(&mut follower, "up\n");
    yard.ok(&["stop", "p"]);
    assert_eq!(program.wait().expect("ends").code(), Some(143), "stop sends SIGTERM first");
    assert_eq!(follower.wait().expect("ends").code(), Some(0));
    assert_eq!(yard.ok(&["ls", "-q", "--running"]), "");
    assert_eq!(yard.garth(&["wait", "p", &process]).code, 143, "an earlier sandbox's processes are remembered");
}

#[test]
fn a_reader_that_is_slow_loses_nothing() {
    use std::io::Read as _;
    const BYTES: usize = 40_000_000;
    let yard = Yard::new();
    yard.ok(&["create", "fast", "--network", "none"]);
    yard.ok(&["start", "fast"]);
    let size = BYTES.to_string();
    let mut command = yard.command(&["exec", "fast", "--", "head", "-c", &size, "/dev/zero"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("starts");
    let mut stdout = child.stdout.take().expect("a pipe");
    stdout.read_exact(&mut [0]).expect("the first byte");
    // Far more than is kept of a process's output would be written meanwhile, did that not wait.
    (0..5).for_each(|_| drop(yard.sh("fast", "head -c 30000000 /dev/zero > /root/f; rm /root/f; echo")));
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).expect("the rest");
    assert_eq!((rest.len() + 1, child.wait().expect("ends").code()), (BYTES, Some(0)));
}
