use std::io::Read;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{WaitOptions, waitpid};

use super::*;

fn c(text: &str) -> CString {
    CString::new(text).expect("no NUL")
}

fn command(programs: &[&str], argv: &[&str]) -> (Command, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().expect("pipe");
    let command = Command {
        programs: programs.iter().map(|p| c(p)).collect(),
        argv: argv.iter().map(|a| c(a)).collect(),
        env: vec![c("PATH=/usr/bin:/bin")],
        cwd: c("/"),
        identity: Identity {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            groups: vec![],
        },
        stdio: Stdio::Separate {
            input: std::fs::File::open("/dev/null").expect("/dev/null").into(),
            output: writer.try_clone().expect("dup").into(),
            error: writer.into(),
        },
        privileges: Privileges::Gainable,
    };
    (command, reader)
}

/// setgroups(2) needs CAP_SETGID.
fn can_change_user(test: &str) -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIP {test}: root");
    }
    root
}

fn next(supervisor: &mut Supervisor) -> Report {
    loop {
        match supervisor.report() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let limit = rustix::time::Timespec { tv_sec: 120, tv_nsec: 0 };
                let ready = poll(&mut [PollFd::new(supervisor, PollFlags::IN)], Some(&limit)).expect("poll");
                assert_eq!(ready, 1, "no report within 2 minutes");
            }
            other => return other.expect("report"),
        }
    }
}

fn finish(supervisor: &mut Supervisor) -> Vec<Report> {
    let mut reports = vec![];
    while reports.last() != Some(&Report::Gone) {
        reports.push(next(supervisor));
    }
    waitpid(Some(supervisor.pid()), WaitOptions::empty()).expect("the supervisor is our child");
    reports
}

#[test]
fn program_is_started_and_its_code_reported() {
    if !can_change_user("program_is_started_and_its_code_reported") {
        return;
    }
    let (command, mut output) = command(&["/bin/sh"], &["sh", "-c", "echo hello; exit 7"]);
    let mut supervisor = Supervisor::spawn(command).expect("spawn");
    let reports = finish(&mut supervisor);
    assert!(matches!(reports[0], Report::Started { .. }), "{reports:?}");
    assert_eq!(reports[1..], [Report::Exited(Exit::Code(7)), Report::Gone]);
    let mut text = String::new();
    output.read_to_string(&mut text).expect("output");
    assert_eq!(text, "hello\n");
}

#[test]
fn failures_name_their_step() {
    if !can_change_user("failures_name_their_step") {
        return;
    }
    let failed = |change: fn(&mut Command)| {
        let (mut command, _output) = command(&["/bin/true"], &["true"]);
        change(&mut command);
        finish(&mut Supervisor::spawn(command).expect("spawn"))[0]
    };
    let exec = |errno| Report::Failed { step: Step::Exec, errno };
    assert_eq!(failed(|c| c.programs = vec![CString::new("/no/such").expect("C")]), exec(libc::ENOENT));
    assert_eq!(failed(|c| c.programs = vec![CString::new("/etc/passwd").expect("C")]), exec(libc::EACCES));
    assert_eq!(failed(|c| c.argv.push(CString::new(vec![b'x'; 3 << 20]).expect("C"))), exec(libc::E2BIG));
    assert_eq!(
        failed(|c| c.cwd = CString::new("/no/such").expect("C")),
        Report::Failed { step: Step::WorkingDirectory, errno: libc::ENOENT }
    );
}

#[test]
fn programs_are_tried_in_turn() {
    if !can_change_user("programs_are_tried_in_turn") {
        return;
    }
    let (command, _output) = command(&["/no/such", "/etc/passwd", "/bin/true"], &["true"]);
    let reports = finish(&mut Supervisor::spawn(command).expect("spawn"));
    assert!(reports.contains(&Report::Exited(Exit::Code(0))), "{reports:?}");
}

#[test]
fn leader_has_default_signals_and_only_three_descriptors() {
    if !can_change_user("leader_has_default_signals_and_only_three_descriptors") {
        return;
    }
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd | wc -l";
    let (command, mut output) = command(&["/bin/sh"], &["sh", "-c", script]);
    let mut supervisor = Supervisor::spawn(command).expect("spawn");
    finish(&mut supervisor);
    let mut text = String::new();
    output.read_to_string(&mut text).expect("output");
    // ls itself opens the fourth.
    assert_eq!(text, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n4\n");
}

#[test]
fn daemons_are_adopted_and_outlive_the_leader() {
    if !can_change_user("daemons_are_adopted_and_outlive_the_leader") {
        return;
    }
    let script = "(setsid sh -c 'echo $$; exec sleep 600' &) ; sleep 0";
    let (command, output) = command(&["/bin/sh"], &["sh", "-c", script]);
    let mut supervisor = Supervisor::spawn(command).expect("spawn");
    assert!(matches!(next(&mut supervisor), Report::Started { .. }));
    assert_eq!(next(&mut supervisor), Report::Exited(Exit::Code(0)));
    let mut line = String::new();
    io::BufRead::read_line(&mut io::BufReader::new(output), &mut line).expect("pid");
    let daemon: i32 = line.trim().parse().expect("pid");
    let status = std::fs::read_to_string(format!("/proc/{daemon}/status")).expect("the daemon lives");
    assert!(status.contains(&format!("PPid:\t{}", supervisor.pid().as_raw_nonzero())), "{status}");
    rustix::process::kill_process(Pid::from_raw(daemon).expect("pid"), rustix::process::Signal::KILL).expect("kill");
    assert_eq!(finish(&mut supervisor), [Report::Gone]);
}

#[test]
fn a_program_is_ended_before_whoever_started_it() {
    let (command, mut output) = command(&["/bin/cat"], &["cat", "/proc/self/oom_score_adj"]);
    let mut supervisor = Supervisor::spawn(command).expect("spawn");
    finish(&mut supervisor);
    let mut text = String::new();
    output.read_to_string(&mut text).expect("output");
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").expect("/proc");
    let number = |text: &str| text.trim().parse::<i32>().expect("a number");
    assert_eq!(number(&text), (number(&own) + 600).min(1000));
}
