//! The duties of PID 1, and shutting down.

use std::process::Command;

use garth_protocol::agent::{ListRequest, ShutdownRequest};

use crate::support::{Agent, is_root, run, shell, soon};

/// Pids of all zombies that are children of `parent`.
fn zombies(parent: u32) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let fields: Vec<&str> =
            stat.rsplit_once(')').map_or(vec![], |(_, rest)| rest.split_ascii_whitespace().collect());
        if fields.first() == Some(&"Z") && fields.get(1) == Some(&parent.to_string().as_str()) {
            found.push(stat);
        }
    }
    found
}

#[tokio::test]
async fn orphans_are_reaped() {
    if !is_root("orphans_are_reaped") {
        return;
    }
    let agent = Agent::start().await;
    // The supervisor is killed, so its orphans come to the agent, and then end.
    let outcome = run(&agent, shell("kill -9 $PPID; (sleep 0.05 &) ; (sleep 0.05 & sleep 0.05 &); sleep 0.2")).await;
    assert_eq!(outcome.code(), 0);
    soon(async {
        while !zombies(agent.pid()).is_empty() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn as_pid_1_it_reaps_and_its_end_ends_all() {
    if !is_root("as_pid_1_it_reaps_and_its_end_ends_all") {
        return;
    }
    let works = Command::new("unshare").args(["--fork", "--pid", "--mount-proc", "true"]).status();
    if !works.is_ok_and(|status| status.success()) {
        println!("SKIP as_pid_1_it_reaps_and_its_end_ends_all: unshare");
        return;
    }
    let agent = Agent::start_as_init().await;
    let outcome =
        run(&agent, shell("(setsid sh -c 'sleep 0.05' &); (sleep 424901 &); ps -e -o pid= -o ppid= -o stat=")).await;
    assert_eq!(outcome.code(), 0, "{outcome:?}");
    assert!(outcome.text().lines().any(|line| line.split_whitespace().next() == Some("1")));
    soon(async {
        loop {
            let outcome = run(&agent, shell("ps -e -o stat= | grep -c ^Z")).await;
            if outcome.text().trim() == "0" {
                return;
            }
        }
    })
    .await;
    let answer = soon(agent.sandbox().shutdown(ShutdownRequest { grace_ms: 60_000, ..Default::default() })).await;
    assert_eq!(answer.expect("shutdown").into_owned().killed, 0);
}

#[tokio::test]
async fn shutdown_asks_first_and_kills_what_does_not_listen() {
    if !is_root("shutdown_asks_first_and_kills_what_does_not_listen") {
        return;
    }
    let agent = Agent::start().await;
    let mut polite = shell("trap 'echo bye; exit 9' TERM; echo ready; while :; do sleep 0.01; done");
    polite.id = "polite".to_owned();
    let mut events = soon(agent.processes().start(polite)).await.expect("start");
    crate::support::until(&mut events, &mut Default::default(), "ready").await;
    let mut deaf = shell("trap '' TERM; echo ready; while :; do sleep 0.01; done");
    deaf.id = "deaf".to_owned();
    let mut deaf = soon(agent.processes().start(deaf)).await.expect("start");
    crate::support::until(&mut deaf, &mut Default::default(), "ready").await;
    // As long as the polite one may need for its last words; the deaf one makes it wait for all of it.
    let shutdown = ShutdownRequest { grace_ms: 5000, ..Default::default() };
    let killed = soon(agent.sandbox().shutdown(shutdown)).await.expect("shutdown").into_owned().killed;
    assert!(killed >= 1);
    let polite = crate::support::collect(events).await;
    assert_eq!((polite.text().as_str(), polite.code()), ("bye\n", 9));
    assert_eq!(crate::support::collect(deaf).await.ended.expect("ended").signal, 9);
    let running = ListRequest { running_only: true, ..Default::default() };
    assert!(soon(agent.processes().list(running)).await.expect("list").view().processes.is_empty());
    let mut late = soon(agent.processes().start(shell("true"))).await.expect("stream");
    assert!(soon(late.message()).await.is_err() || late.error().is_some());
}
