//! Waiting, listing, signalling, replaying, input and terminals.

use connectrpc::ErrorCode;
use garth_protocol::agent::{
    AttachRequest, CloseInputRequest, EndReason, GetRequest, InputRequest, ListRequest, Process, ResizeRequest,
    SendInputRequest, SignalRequest, SignalScope, Terminal, WaitRequest, input_request,
};

use crate::support::{Agent, Outcome, collect, is_root, next, run, shell, soon, start, until};

async fn get(agent: &Agent, id: &str) -> Process {
    let request = GetRequest { id: id.to_owned(), ..Default::default() };
    let answer = soon(agent.processes().get(request)).await.expect("get").into_owned();
    answer.process.as_option().expect("a process").clone()
}

async fn signal(agent: &Agent, id: &str, signal: i32, scope: SignalScope) -> u32 {
    let request = SignalRequest { id: id.to_owned(), signal, scope: scope.into(), ..Default::default() };
    soon(agent.processes().signal(request)).await.expect("signal").into_owned().signaled
}

async fn attach(agent: &Agent, id: &str, since: u64) -> Outcome {
    let request = AttachRequest { id: id.to_owned(), since_offset: Some(since), follow: true, ..Default::default() };
    collect(soon(agent.processes().attach(request)).await.expect("attach")).await
}

/// Whether a process of the kernel with this command line exists.
fn exists(needle: &str) -> bool {
    let lines = std::fs::read_dir("/proc").expect("/proc").flatten();
    lines
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .any(|line| line.split(|byte| *byte == 0).any(|word| word == needle.as_bytes()))
}

#[tokio::test]
async fn timeout_ends_the_whole_tree() {
    if !is_root("timeout_ends_the_whole_tree") {
        return;
    }
    let agent = Agent::start().await;
    let mut request = shell("setsid sh -c 'sleep 424201 & wait' & (setsid sleep 424202 &) ; sleep 424203");
    request.timeout_ms = 200;
    let outcome = run(&agent, request).await;
    assert_eq!(outcome.reason(), EndReason::END_REASON_TIMEOUT);
    for seconds in ["424201", "424202", "424203"] {
        assert!(!exists(seconds), "sleep {seconds} lives on");
    }
}

#[tokio::test]
async fn daemons_live_on_and_die_with_the_tree() {
    if !is_root("daemons_live_on_and_die_with_the_tree") {
        return;
    }
    let agent = Agent::start().await;
    let outcome = run(&agent, shell("(setsid sh -c 'sleep 424301; :' &); echo done")).await;
    assert_eq!((outcome.text().as_str(), outcome.code()), ("done\n", 0));
    assert!(get(&agent, &outcome.id).await.lingering);
    // The daemon's own child comes a moment after the daemon.
    soon(async {
        while !exists("424301") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(signal(&agent, &outcome.id, 9, SignalScope::SIGNAL_SCOPE_LEADER).await, 0);
    assert!(signal(&agent, &outcome.id, 9, SignalScope::SIGNAL_SCOPE_TREE).await >= 2);
    assert!(!exists("424301"));
    // It is told of that by who looked after them.
    soon(async { while get(&agent, &outcome.id).await.lingering {} }).await;
}

#[tokio::test]
async fn a_fork_bomb_is_killed_whole() {
    if !is_root("a_fork_bomb_is_killed_whole") {
        return;
    }
    let agent = Agent::start().await;
    // Each generation replaces itself by two, and dies: nothing that was seen stays to be killed.
    let bomb = "f() { [ $1 -gt 0 ] || { sleep 0.05; f 3; }; (f $(($1-1)) & ) ; (f $(($1-1)) &) ; }; ulimit -u 400; f 6; sleep 424401";
    let mut request = start(&["bash", "-c", bomb]);
    request.timeout_ms = 300;
    request.user = "65533:65533".to_owned();
    let outcome = run(&agent, request).await;
    assert_eq!(outcome.reason(), EndReason::END_REASON_TIMEOUT);
    let list = soon(agent.processes().list(ListRequest { running_only: true, ..Default::default() })).await;
    assert!(list.expect("list").view().processes.is_empty());
    assert!(!exists("424401"));
}

#[tokio::test]
async fn a_killed_supervisor_does_not_hide_the_leader() {
    if !is_root("a_killed_supervisor_does_not_hide_the_leader") {
        return;
    }
    let agent = Agent::start().await;
    let outcome = run(&agent, shell("kill -9 $PPID; sleep 0.1; echo on; exit 5")).await;
    assert_eq!((outcome.text().as_str(), outcome.code()), ("on\n", 5));
}

#[tokio::test]
async fn wait_and_list_know_processes_that_ended() {
    if !is_root("wait_and_list_know_processes_that_ended") {
        return;
    }
    let agent = Agent::start().await;
    let mut request = shell("exit 3");
    request.detached = true;
    request.id = "job-1".to_owned();
    request.tag = "nightly".to_owned();
    let outcome = run(&agent, request.clone()).await;
    assert_eq!((outcome.id.as_str(), outcome.ended), ("job-1", None));
    let wait = WaitRequest { id: "job-1".to_owned(), ..Default::default() };
    let ended = soon(agent.processes().wait(wait)).await.expect("wait").into_owned();
    assert_eq!(ended.ended.as_option().expect("ended").exit_code, 3);
    let list = soon(agent.processes().list(ListRequest::default())).await.expect("list").into_owned();
    assert_eq!((list.processes.len(), list.processes[0].tag.as_str()), (1, "nightly"));
    let again = soon(agent.processes().start(request)).await.expect("stream");
    let mut again = again;
    let error = soon(again.message()).await.err().or_else(|| again.error().cloned()).expect("taken");
    assert_eq!(error.code, ErrorCode::AlreadyExists);
}

#[tokio::test]
async fn output_is_replayed_from_any_offset() {
    if !is_root("output_is_replayed_from_any_offset") {
        return;
    }
    let agent = Agent::start().await;
    let mut request = shell("printf 0123456789; read line; printf abc >&2");
    (request.id, request.stdin) = ("two".to_owned(), true);
    let mut events = soon(agent.processes().start(request)).await.expect("start");
    let mut outcome = Outcome::default();
    // Of two pipes that are both full, either may be read first.
    until(&mut events, &mut outcome, "0123456789").await;
    let close = CloseInputRequest { id: outcome.id.clone(), ..Default::default() };
    soon(agent.processes().close_input(close)).await.expect("close");
    collect(events).await;
    let all = attach(&agent, &outcome.id, 0).await;
    assert_eq!((all.stdout.as_slice(), all.stderr.as_slice()), (&b"0123456789"[..], &b"abc"[..]));
    let rest = attach(&agent, &outcome.id, 8).await;
    assert_eq!((rest.first_offset, rest.text().as_str(), rest.stderr.as_slice()), (Some(8), "89", &b"abc"[..]));
    assert_eq!(rest.code(), 0);
}

#[tokio::test]
async fn a_process_without_readers_never_blocks_and_keeps_its_last_output() {
    if !is_root("a_process_without_readers_never_blocks_and_keeps_its_last_output") {
        return;
    }
    let agent = Agent::start().await;
    let mut request = shell("seq 1 1000000; echo the end");
    request.detached = true;
    let id = run(&agent, request).await.id;
    let wait = WaitRequest { id: id.clone(), ..Default::default() };
    soon(agent.processes().wait(wait)).await.expect("wait");
    let kept = attach(&agent, &id, 0).await;
    assert!(kept.text().ends_with("\n1000000\nthe end\n"));
    // Besides the ring, what is in memory until it is on disk: half a MiB, and the piece that went over it.
    let most = (1 << 20) + (512 << 10) + (128 << 10);
    assert!((512 << 10..most).contains(&kept.stdout.len()), "{} bytes of a 1 MiB ring", kept.stdout.len());
    let offset = kept.first_offset.expect("output");
    assert_eq!(offset + kept.stdout.len() as u64, kept.ended.expect("ended").offset);
}

#[tokio::test]
async fn output_outlives_the_sandbox() {
    if !is_root("output_outlives_the_sandbox") {
        return;
    }
    let agent = Agent::start().await;
    let ended = run(&agent, shell("echo kept; exit 4")).await.id;
    let quiet = run(&agent, start(&["true"])).await.id;
    let mut request = shell("echo begun; sleep 424501");
    request.id = "long".to_owned();
    let mut events = soon(agent.processes().start(request)).await.expect("start");
    until(&mut events, &mut Outcome::default(), "begun").await;
    let agent = Agent::start_in(agent.kill(), "{}").await;
    let list = soon(agent.processes().list(ListRequest::default())).await.expect("list").into_owned();
    let ids: Vec<&str> = list.processes.iter().map(|process| process.id.as_str()).collect();
    assert!(ids.contains(&ended.as_str()) && ids.contains(&"long") && !ids.contains(&quiet.as_str()), "{ids:?}");
    let old = attach(&agent, &ended, 0).await;
    assert_eq!((old.text().as_str(), old.code()), ("kept\n", 4));
    let long = attach(&agent, "long", 0).await;
    assert_eq!(long.text(), "begun\n");
    assert_ne!(long.reason(), EndReason::END_REASON_EXITED);
}

#[tokio::test]
async fn input_is_exact_and_closes() {
    if !is_root("input_is_exact_and_closes") {
        return;
    }
    let agent = Agent::start().await;
    let mut request = start(&["cat"]);
    request.stdin = true;
    request.id = "cat".to_owned();
    let events = soon(agent.processes().start(request)).await.expect("start");
    let output = tokio::spawn(collect(events));
    let data: Vec<u8> = (0..3_000_000u32).map(|number| (number.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let begin = input_request::Start { id: "cat".to_owned(), offset: Some(0), close: true, ..Default::default() };
    let messages = std::iter::once(InputRequest { event: Some(begin.into()), ..Default::default() })
        .chain(data.chunks(50_000).map(|chunk| InputRequest {
            event: Some(garth_protocol::agent::oneof::input_request::Event::Data(bytes::Bytes::copy_from_slice(chunk))),
            ..Default::default()
        }))
        .collect::<Vec<_>>();
    let answer = soon(agent.processes().input(connectrpc::stream_iter(messages))).await.expect("input").into_owned();
    assert_eq!(answer.input_offset, 3_000_000);
    let outcome = output.await.expect("output");
    assert!(outcome.stdout == data, "{} bytes", outcome.stdout.len());
    assert_eq!(outcome.code(), 0);
}

#[tokio::test]
async fn input_that_is_sent_again_is_taken_once() {
    if !is_root("input_that_is_sent_again_is_taken_once") {
        return;
    }
    let agent = Agent::start().await;
    let mut request = start(&["cat"]);
    request.stdin = true;
    request.id = "cat".to_owned();
    let events = soon(agent.processes().start(request)).await.expect("start");
    let send = |data: &'static [u8], offset| SendInputRequest {
        id: "cat".to_owned(),
        data: bytes::Bytes::from_static(data),
        offset,
        ..Default::default()
    };
    for message in [send(b"hello ", None), send(b"hello wor", Some(0)), send(b"ld", Some(9))] {
        soon(agent.processes().send_input(message)).await.expect("input");
    }
    let gap = soon(agent.processes().send_input(send(b"x", Some(99)))).await.expect_err("a gap");
    assert_eq!(gap.code, ErrorCode::OutOfRange);
    let close = CloseInputRequest { id: "cat".to_owned(), ..Default::default() };
    soon(agent.processes().close_input(close.clone())).await.expect("close");
    soon(agent.processes().close_input(close)).await.expect("close is idempotent");
    assert_eq!(collect(events).await.text(), "hello world");
    let late = soon(agent.processes().send_input(send(b"x", None))).await.expect_err("closed");
    assert_eq!(late.code, ErrorCode::FailedPrecondition);
}

#[tokio::test]
async fn a_process_that_does_not_read_does_not_hold_its_writer_after_its_end() {
    if !is_root("a_process_that_does_not_read_does_not_hold_its_writer_after_its_end") {
        return;
    }
    let agent = Agent::start().await;
    let mut request = shell("sleep 424601 & sleep 0.2");
    request.stdin = true;
    request.id = "deaf".to_owned();
    let mut events = soon(agent.processes().start(request)).await.expect("start");
    next(&mut events).await;
    let data = bytes::Bytes::from(vec![0; 1 << 20]);
    let message = SendInputRequest { id: "deaf".to_owned(), data, ..Default::default() };
    let error = soon(agent.processes().send_input(message)).await.expect_err("nobody reads");
    assert_eq!(error.code, ErrorCode::FailedPrecondition);
    signal(&agent, "deaf", 9, SignalScope::SIGNAL_SCOPE_TREE).await;
}

#[tokio::test]
async fn a_terminal_has_job_control_and_a_size() {
    if !is_root("a_terminal_has_job_control_and_a_size") {
        return;
    }
    let agent = Agent::start().await;
    let mut request = start(&["bash", "--norc", "-i"]);
    request.terminal = Terminal { cols: 100, rows: 30, ..Default::default() }.into();
    request.id = "tty".to_owned();
    request.env = [("PS1".to_owned(), "ready> ".to_owned())].into_iter().collect();
    let mut events = soon(agent.processes().start(request)).await.expect("start");
    let mut seen = Outcome::default();
    let send = |text: &'static str| SendInputRequest {
        id: "tty".to_owned(),
        data: bytes::Bytes::from_static(text.as_bytes()),
        ..Default::default()
    };
    until(&mut events, &mut seen, "ready> ").await;
    soon(agent.processes().send_input(send("stty size; tty; echo $TERM\n"))).await.expect("input");
    until(&mut events, &mut seen, "xterm-256color").await;
    assert!(seen.terminal_text().contains("30 100"), "{}", seen.terminal_text());
    let size = Terminal { cols: 132, rows: 43, ..Default::default() };
    let resize = ResizeRequest { id: "tty".to_owned(), terminal: size.into(), ..Default::default() };
    soon(agent.processes().resize(resize)).await.expect("resize");
    soon(agent.processes().send_input(send("stty size\n"))).await.expect("input");
    until(&mut events, &mut seen, "43 132").await;
    // Ctrl-C reaches the program in the foreground, not the shell.
    soon(agent.processes().send_input(send("trap 'echo not me' INT; sleep 424701\n"))).await.expect("input");
    until(&mut events, &mut seen, "sleep 424701").await;
    soon(async {
        while !exists("424701") {
            tokio::task::yield_now().await;
        }
    })
    .await;
    soon(agent.processes().send_input(send("\x03"))).await.expect("input");
    soon(agent.processes().send_input(send("echo $?-after\n"))).await.expect("input");
    until(&mut events, &mut seen, "130-after").await;
    // Ctrl-D ends it.
    let close = CloseInputRequest { id: "tty".to_owned(), ..Default::default() };
    soon(agent.processes().close_input(close)).await.expect("close");
    let rest = collect(events).await;
    assert!(rest.ended.is_some());
    assert!(!exists("424701"));
}

#[tokio::test]
async fn unknown_processes_are_not_found() {
    let agent = Agent::start().await;
    let request = GetRequest { id: "../../etc/passwd".to_owned(), ..Default::default() };
    assert_eq!(soon(agent.processes().get(request)).await.expect_err("unknown").code, ErrorCode::NotFound);
}
