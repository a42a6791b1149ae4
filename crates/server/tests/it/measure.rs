//! Numbers, for people: `cargo test --release -p garth-server --test it -- --ignored --nocapture measure`.

use std::time::{Duration, Instant};

use garth_api::{Client, CreateProject, StopRequest};
use http_body_util::BodyExt as _;

use crate::daemon::{Yard, named, skip};
use crate::process::{health, run};

async fn times<T>(what: &str, count: usize, mut each: impl AsyncFnMut(usize) -> T) {
    let mut times = Vec::new();
    for round in 0..count {
        let start = Instant::now();
        each(round).await;
        times.push(start.elapsed());
    }
    show(what, times);
}

async fn both(what: &str, count: usize, mut direct: impl AsyncFnMut(), mut through: impl AsyncFnMut()) {
    let (mut one, mut other) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let start = Instant::now();
        direct().await;
        one.push(start.elapsed());
        let start = Instant::now();
        through().await;
        other.push(start.elapsed());
    }
    show(&format!("{what}, direct"), one);
    show(&format!("{what}, proxied"), other);
}

fn show(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    println!("{what:32} p50 {:>9.3?}  p95 {:>9.3?}  p99 {:>9.3?}", at(0.5), at(0.95), at(0.99));
}

#[tokio::test]
#[ignore = "prints numbers"]
async fn measure() {
    if skip("measure") {
        return;
    }
    let yard = Yard::new();
    let begun = Instant::now();
    let daemon = yard.start().await;
    println!("daemon answers after {:?}", begun.elapsed());
    let (web, client) = (named("web"), &yard.client);
    let begun = Instant::now();
    yard.create("web").await;
    println!("first project made after {:?}", begun.elapsed());
    let begun = Instant::now();
    run(client, &web, &["true"]).await.expect("exec");
    println!("first start and exec after {:?}", begun.elapsed());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let socket = agent_socket(&yard);
    let direct = Client::new(socket);
    times("version", 1000, async |_| client.version().await.expect("version")).await;
    let whole = async |client: &Client, request| {
        client.send(request).await.expect("an answer").into_body().collect().await.expect("a body");
    };
    let through = async |request| {
        client.agent(&web, request).await.expect("an answer").into_body().collect().await.expect("a body");
    };
    let exec = || crate::process::start(&serde_json::json!({ "argv": ["true"] }));
    // In turns, so that both meet the same machine.
    both("agent health", 2000, async || whole(&direct, health()).await, async || through(health()).await).await;
    both("exec true", 1000, async || whole(&direct, exec()).await, async || through(exec()).await).await;
    let now = StopRequest { grace_ms: Some(0) };
    client.stop(&web, &now).await.expect("stop");
    let mut starts = Vec::new();
    let mut stops = Vec::new();
    for _ in 0..100 {
        let begun = Instant::now();
        client.start(&web).await.expect("start");
        starts.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(30)).await;
        let begun = Instant::now();
        client.stop(&web, &now).await.expect("stop");
        stops.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    show("start", starts);
    show("stop", stops);
    let log = yard.log();
    let lines = log.lines().filter(|line| line.contains("\"started\""));
    lines.rev().take(5).for_each(|line| println!("{line}"));
    times("create", 50, async |round| yard.create(&format!("p{round}")).await).await;
    times("remove", 50, async |round| client.remove(&named(&format!("p{round}"))).await.expect("remove")).await;
    times("create ephemeral", 50, async |round| {
        client.create(&CreateProject { ephemeral: true, ..yard.project(&format!("e{round}")) }).await.expect("create")
    })
    .await;
    for round in 0..50 {
        // The grace of ten seconds may have been enough.
        let _ = client.remove(&named(&format!("e{round}"))).await;
    }
    let status = || std::fs::read_to_string(format!("/proc/{}/status", daemon.pid())).expect("status");
    let line = |name: &str| status().lines().find(|l| l.starts_with(name)).map(str::to_owned).unwrap_or_default();
    let switches = |text: &str| -> u64 {
        let mut all = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("tasks").flatten() {
            let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let line = status.lines().find_map(|l| l.strip_prefix(text)).unwrap_or("0").trim().to_owned();
            all += line.parse::<u64>().unwrap_or(0);
        }
        all
    };
    tokio::time::sleep(Duration::from_secs(12)).await;
    let before = switches("voluntary_ctxt_switches:");
    tokio::time::sleep(Duration::from_secs(20)).await;
    println!(
        "idle: {} wake-ups in 20 s; {}; {}",
        switches("voluntary_ctxt_switches:") - before,
        line("VmRSS"),
        line("Threads")
    );
    assert_eq!(yard.clear(daemon).await, [""; 0]);
}

fn agent_socket(yard: &Yard) -> std::path::PathBuf {
    let run = std::fs::read_dir(yard.path().join("run")).expect("run").flatten();
    let dirs = run.map(|entry| entry.path()).filter(|path| path.file_name().is_some_and(|name| name.len() == 16));
    dirs.map(|dir| dir.join("agent.sock")).find(|socket| socket.exists()).expect("a running sandbox")
}
