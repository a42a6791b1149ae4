//! What a host does with a guest.

use std::time::Instant;

use bytes::Bytes;
use garth_protocol::agent::{SendInputRequest, StartRequest, Terminal, UsageRequest};
use garth_spec::{
    AgentConfig, GuestAgain, GuestBegin, GuestBegun, GuestDisk, GuestError, GuestFilesystem, GuestLimits, GuestNetwork,
    Hex,
};
use http::StatusCode;
use http_body_util::{BodyExt, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::machine::{Line, Machine, directory, is_possible};
use crate::support::{Outcome, collect, shell, start, until};

const MUCH: usize = 64 << 20;

fn order() -> GuestBegin {
    let disk = |serial: &str| GuestDisk { serial: serial.to_owned(), filesystem: GuestFilesystem::Ext4 };
    GuestBegin {
        generation: 1,
        entropy: Hex([7; 64]),
        // 2033-05-18.
        realtime_ns: 2_000_000_000_000_000_000,
        hostname: "yard".to_owned(),
        machine_id: Hex([0xab; 16]),
        hosts: vec![("10.9.8.7".parse().expect("address"), "db".to_owned())],
        resolv_conf: Some("nameserver 10.0.2.3\n".to_owned()),
        network: Some(GuestNetwork {
            mac: "02:00:00:00:00:07".to_owned().try_into().expect("mac"),
            ipv4: Some("10.0.2.15/24".to_owned().try_into().expect("address")),
            gateway: Some("10.0.2.2".parse().expect("address")),
            ipv6: Some("fd00::15/64".to_owned().try_into().expect("address")),
            gateway6: None,
            gateway_mac: None,
            mtu: Some(1400),
        }),
        root: disk("project"),
        usr: Some(disk("image")),
        usr_alone_at: None,
        read_only: false,
        limits: GuestLimits { memory: 1 << 30, pids: 500 },
        volumes: Vec::new(),
        capabilities: None,
        agent: AgentConfig { workdir: Some("/".to_owned()), ..AgentConfig::default() },
    }
}

async fn begin(line: &Line, order: &GuestBegin) -> Result<GuestBegun, (StatusCode, GuestError)> {
    let (status, body) =
        line.post("/garth/guest/begin", serde_json::to_vec(order).expect("JSON")).await.expect("answer");
    match status {
        StatusCode::OK => Ok(serde_json::from_slice(&body).expect("begun")),
        status => Err((status, serde_json::from_slice(&body).expect("an error"))),
    }
}

async fn run(line: &Line, request: StartRequest) -> Outcome {
    collect(line.processes().start(request).await.expect("start")).await
}

async fn says(line: &Line, script: &str) -> String {
    let outcome = run(line, shell(script)).await;
    assert_eq!(outcome.code(), 0, "{script}: {outcome:?}");
    outcome.text().trim().to_owned()
}

#[tokio::test]
async fn a_guest_begins_serves_and_ends() {
    let Some(kernel) = is_possible("a_guest_begins_serves_and_ends") else { return };
    let begun_at = Instant::now();
    let mut machine = Machine::start(&kernel, directory());
    let line = machine.connect().await;
    println!("booted to the channel in {:?}", begun_at.elapsed());
    let (status, _) = line.get("/health").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "before it has begun");
    let begun_at = Instant::now();
    let begun = begin(&line, &order()).await.unwrap_or_else(|error| panic!("{error:?}\n{}", machine.console()));
    println!("begun in {:?}", begun_at.elapsed());
    assert_eq!(line.get("/health").await.0, StatusCode::NO_CONTENT);
    assert_eq!(begin(&line, &order()).await.expect_err("twice").0, StatusCode::CONFLICT);
    assert!(machine.console().contains("99-broken.ko"), "a module that fails is told:\n{}", machine.console());

    facts(&line, &begun).await;
    terminal(&line).await;
    transfer(&machine, &line).await;
    again(&line, &begun).await;
    measure(&machine, &line).await;
    let line = reconnect(&mut machine, line).await;

    let (status, body) = line.post("/garth/guest/freeze", "").await.expect("answer");
    assert_eq!(status, StatusCode::OK, "{body:?}");
    assert!(serde_json::from_slice::<serde_json::Value>(&body).expect("JSON")["trimmed"].is_u64(), "{body:?}");
    assert_eq!(says(&line, "echo kept > /root/kept; echo more > /usr/own; cat /root/kept").await, "kept");
    assert_eq!(line.post("/garth/guest/power", r#""off""#).await, None, "the answer is the end");

    // What was written is there for the next machine, and it needed no recovery.
    let mut machine = Machine::start(&kernel, machine.ended());
    let line = machine.connect().await;
    begin(&line, &order()).await.expect("begin");
    assert_eq!(says(&line, "cat /root/kept /usr/own").await, "kept\nmore");
    assert!(!machine.console().contains("recover"), "{}", machine.console());
    assert_eq!(line.post("/garth/guest/power", r#""reboot""#).await, None);
    machine.ended();
}

async fn facts(line: &Line, begun: &GuestBegun) {
    assert_eq!(says(line, "uname -r").await, begun.kernel);
    assert_eq!(says(line, "uname -n; cat /etc/hostname").await, "yard\nyard");
    assert_eq!(says(line, "cat /etc/machine-id").await, "ab".repeat(16));
    assert_eq!(says(line, "cat /etc/resolv.conf").await, "nameserver 10.0.2.3");
    assert!(says(line, "cat /etc/hosts").await.contains("10.9.8.7\tdb"));
    assert!(says(line, "cat /proc/1/comm").await.contains("init"));
    assert_eq!(says(line, "ls /").await, "bin\ndev\netc\nlib\nlib64\nproc\nroot\nrun\nsys\ntmp\nusr");
    assert_eq!(says(line, "ls /sys/class/net; cat /sys/class/net/e*/address").await, "eth0\nlo\n02:00:00:00:00:07");
    assert_eq!(says(line, "cat /sys/class/net/eth0/mtu").await, "1400");
    assert!(says(line, "cat /proc/net/route").await.contains("eth0\t00000000\t0202000A"), "a default route");
    assert!(says(line, "cat /proc/net/if_inet6").await.contains("fd000000000000000000000000000015"));
    assert!(says(line, "cat /proc/self/status").await.contains("CapEff:\t000001ffffffffff"), "all capabilities");
    assert!(says(line, "cat /sys/fs/cgroup/cgroup.subtree_control").await.contains("memory"));
    let mounts = says(line, "cat /proc/mounts").await;
    for expected in ["/dev/vdb / ext4 rw", "overlay /usr overlay rw", "devpts /dev/pts", "cgroup2 /sys/fs/cgroup"] {
        assert!(mounts.contains(expected), "{expected} in {mounts}");
    }
    let now: u64 = says(line, "touch /tmp/now; ls -l --time-style=+%s /tmp/now")
        .await
        .split(' ')
        .nth(5)
        .expect("time")
        .parse()
        .expect("a number");
    assert!((2_000_000_000..2_000_100_000).contains(&now), "the host's time, not {now}");
    let usage = line.sandbox().usage(UsageRequest::default()).await.expect("usage").into_owned();
    assert!(usage.pids > 0 && usage.memory_used > 0 && usage.memory_limit == 1 << 30, "{usage:?}");
    assert_eq!(says(line, "cat /proc/self/cgroup; cat /sys/fs/cgroup/pids.max").await, "0::/garth\n500");
    let limits = serde_json::to_vec(&GuestLimits { memory: 1 << 29, pids: 400 }).expect("JSON");
    assert_eq!(line.post("/garth/guest/limits", limits).await.expect("answer").0, StatusCode::OK);
    assert_eq!(says(line, "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max").await, "536870912\n400");
}

async fn terminal(line: &Line) {
    let mut request = start(&["sh", "-i"]);
    request.terminal = Terminal { cols: 100, rows: 30, ..Default::default() }.into();
    request.id = "tty".to_owned();
    request.env = [("PS1".to_owned(), "ready> ".to_owned())].into_iter().collect();
    let mut events = line.processes().start(request).await.expect("start");
    let mut seen = Outcome::default();
    until(&mut events, &mut seen, "ready> ").await;
    let data = Bytes::from_static(b"stty size; exit 3\n");
    let input = SendInputRequest { id: "tty".to_owned(), data, ..Default::default() };
    line.processes().send_input(input).await.expect("input");
    until(&mut events, &mut seen, "30 100").await;
    assert_eq!(collect(events).await.code(), 3);
}

/// Byte-exact both ways, at once with a process that talks.
async fn transfer(machine: &Machine, line: &Line) {
    let sent: Bytes = (0..MUCH as u64).map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect();
    let up = async || {
        let (status, body) = line.post("/files?path=/root/much", sent.clone()).await.expect("answer");
        assert_eq!(status, StatusCode::OK, "{body:?}");
    };
    trips(machine, "64 MiB up", 1, up).await;
    let down = async || {
        let (talk, (status, got)) = tokio::join!(says(line, "echo quick"), line.get("/files?path=/root/much"));
        assert_eq!((talk.as_str(), status), ("quick", StatusCode::OK));
        assert!(got == sent, "what came back is not what was sent");
    };
    trips(machine, "64 MiB down", 1, down).await;
}

async fn again(line: &Line, begun: &GuestBegun) {
    let GuestBegin { network, hostname, hosts, resolv_conf, .. } = order();
    let order = |generation| GuestAgain {
        generation,
        entropy: Hex([9; 64]),
        realtime_ns: 2_100_000_000_000_000_000,
        network: network.clone(),
        hostname: hostname.clone(),
        hosts: hosts.clone(),
        resolv_conf: resolv_conf.clone(),
    };
    let body = |generation| serde_json::to_vec(&order(generation)).expect("JSON");
    let (status, _) = line.post("/garth/guest/again", body(1)).await.expect("answer");
    assert_eq!(status, StatusCode::CONFLICT, "a generation that is not new");
    let (status, answer) = line.post("/garth/guest/again", body(2)).await.expect("answer");
    assert_eq!(status, StatusCode::OK, "{answer:?}");
    let again: GuestBegun = serde_json::from_slice(&answer).expect("begun");
    assert_ne!(again.random, begun.random);
}

/// What the channel costs, with HTTP and an emulated processor, beside a port with `cat` on it: told, never judged.
async fn measure(machine: &Machine, line: &Line) {
    let mut bare = machine.bare().await;
    let echo = "for p in /sys/class/virtio-ports/*; do read n < $p/name; \
                [ $n != bare ] || exec cat <> /dev/${p##*/} >&0; done";
    let _echo = line.processes().start(shell(echo)).await.expect("start");
    let trip = async || {
        let mut message = [7; 64];
        bare.write_all(&message).await.expect("write");
        bare.read_exact(&mut message).await.expect("read");
    };
    trips(machine, "64 bytes on a bare port", 500, trip).await;
    let (mut reading, mut writing) = bare.split();
    let there_and_back = async || {
        let send = async {
            for _ in 0..MUCH >> 20 {
                writing.write_all(&[7; 1 << 20]).await.expect("write");
            }
        };
        let receive = async {
            let (mut block, mut left) = (vec![0; 1 << 20], MUCH);
            while left > 0 {
                left -= reading.read(&mut block).await.expect("read");
            }
        };
        tokio::join!(send, receive);
    };
    trips(machine, "64 MiB there and back on a bare port", 1, there_and_back).await;
    let mut sender = line.http().await;
    let health = async || {
        let request = http::Request::get("/health").header("host", "guest");
        let request = request.body(Full::<Bytes>::default()).expect("request");
        sender.send_request(request).await.expect("answer").into_body().collect().await.expect("body");
    };
    trips(machine, "GET /health on one stream", 500, health).await;
    let uname = async || assert_eq!(run(line, start(&["uname"])).await.code(), 0);
    trips(machine, "run uname", 20, uname).await;
}

async fn trips(machine: &Machine, name: &str, count: usize, mut trip: impl AsyncFnMut()) {
    let (before, mut times) = (machine.processor_time(), Vec::new());
    for _ in 0..count {
        let begun = Instant::now();
        trip().await;
        times.push(begun.elapsed());
    }
    times.sort();
    let used = (machine.processor_time() - before) / u32::try_from(count).expect("few");
    println!("{name}: p50 {:?} p99 {:?}, processor time {used:?}", times[count / 2], times[count * 99 / 100]);
}

/// The daemon restarts: its old streams end, what it started goes on.
async fn reconnect(machine: &mut Machine, line: Line) -> Line {
    let mut request = shell("echo here; read x; echo $x");
    request.id = "stays".to_owned();
    request.stdin = true;
    let mut events = line.processes().start(request).await.expect("start");
    let mut seen = Outcome::default();
    until(&mut events, &mut seen, "here").await;
    let mut idle = line.0.open().expect("open");
    idle.write_all(b"GET / HTTP").await.expect("write");
    drop(events);
    // As when the daemon is killed: the socket goes, whatever is still on it.
    line.0.close();
    assert!(idle.read_u8().await.is_err(), "a stream of the old session");
    let line = machine.connect().await;
    let data = Bytes::from_static(b"still\n");
    let input = SendInputRequest { id: "stays".to_owned(), data, ..Default::default() };
    line.processes().send_input(input).await.expect("input");
    let attach = garth_protocol::agent::AttachRequest {
        id: "stays".to_owned(),
        since_offset: Some(0),
        follow: true,
        ..Default::default()
    };
    let outcome = collect(line.processes().attach(attach).await.expect("attach")).await;
    assert_eq!((outcome.text().as_str(), outcome.code()), ("here\nstill\n", 0));
    line
}

#[tokio::test]
async fn a_guest_that_cannot_begin_says_why_and_stays() {
    let Some(kernel) = is_possible("a_guest_that_cannot_begin_says_why_and_stays") else { return };
    let mut machine = Machine::start(&kernel, directory());
    let line = machine.connect().await;
    let (status, body) = line.post("/garth/guest/begin", r#"{"generation": 1, "surprise": 2}"#).await.expect("answer");
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body:?}");
    let mut wrong = order();
    wrong.root.serial = "other".to_owned();
    let (status, error) = begin(&line, &wrong).await.expect_err("no such disk");
    assert_eq!((status, error.step.as_str()), (StatusCode::INTERNAL_SERVER_ERROR, "find the disk other"));
    let (status, error) = begin(&line, &order()).await.expect_err("half begun");
    assert_eq!((status, error.step.as_str()), (StatusCode::CONFLICT, "begin"));
    assert_eq!(line.get("/health").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(line.post("/garth/guest/power", r#""off""#).await, None);
    machine.ended();
}
