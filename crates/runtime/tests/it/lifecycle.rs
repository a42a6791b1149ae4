use garth_runtime::{ErrorKind, Root};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::support::{Yard, chain, fresh_id, sh};
use crate::yard;

/// Everything of a yard that the machine would keep.
pub fn left(yard: &Yard) -> Vec<String> {
    let mut found = Vec::new();
    for entry in walk("/sys/fs/cgroup", 2) {
        if entry.contains(&format!("garth-{}", yard.tag)) {
            found.push(entry);
        }
    }
    let dir = yard.dir.path().to_string_lossy().into_owned();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    found.extend(mounts.lines().filter(|line| line.contains(&dir)).map(str::to_owned));
    let run = std::fs::read_dir(yard.dir.path().join("run")).expect("run dir");
    found.extend(run.flatten().map(|entry| entry.path().display().to_string()));
    found
}

fn walk(dir: &str, depth: usize) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let dirs: Vec<String> = entries
        .filter(|e| e.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|e| e.path().display().to_string())
        .collect();
    let deeper = if depth > 1 { dirs.iter().flat_map(|dir| walk(dir, depth - 1)).collect() } else { Vec::new() };
    [dirs, deeper].concat()
}

#[test]
fn thirty_sandboxes_leave_nothing() {
    let mut yard = yard!();
    for _ in 0..30 {
        let sandbox = yard.start();
        assert_eq!(sh(&sandbox, "echo hello").out, "hello\n");
        sandbox.destroy().expect("destroy");
    }
    yard.close();
    assert_eq!(left(&yard), Vec::<String>::new());
}

#[test]
fn several_start_at_once() {
    let yard = yard!();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let yard = &yard;
            scope.spawn(move || {
                let mut plan = yard.plan();
                let path = |kind: &str| yard.dir.path().join(format!("{kind}-{number}"));
                let (upper, work) = (path("upper"), path("work"));
                for dir in [&upper, &work] {
                    std::fs::create_dir(dir).expect("dir");
                }
                // A disk is one sandbox's.
                crate::support::make_disk(&path("disk"));
                plan.root = Root::Directory(path("disk"));
                plan.usr = plan.usr.map(|usr| garth_runtime::Overlay { upper, work, ..usr });
                let sandbox = yard.start_with(&plan);
                assert_eq!(sh(&sandbox, "echo hello").out, "hello\n");
                sandbox.destroy().expect("destroy");
            });
        }
    });
}

#[test]
fn destroy_ends_daemons_too() {
    let yard = yard!();
    let sandbox = yard.start();
    let mark = format!("{}", 4_000_000 + std::process::id());
    sh(&sandbox, &format!("setsid sleep {mark} >/dev/null 2>&1 & setsid setsid sleep {mark} >/dev/null 2>&1 &"));
    sandbox.destroy().expect("destroy");
    assert_eq!(processes(&mark), 0);
}

fn processes(mark: &str) -> usize {
    let entries = std::fs::read_dir("/proc").expect("proc").flatten();
    entries
        .filter(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
        })
        .count()
}

#[test]
fn the_end_of_the_init_shows_on_its_descriptor() {
    let yard = yard!();
    let sandbox = yard.start();
    let pid = rustix::process::Pid::from_raw(sandbox.record().pid).expect("pid");
    let ended = |seconds| {
        let timeout = Timespec { tv_sec: seconds, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(sandbox.pidfd(), PollFlags::IN)], Some(&timeout)).expect("poll") > 0
    };
    assert!(!ended(0));
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
    assert!(ended(10));
    sandbox.destroy().expect("destroy of what has ended");
}

#[test]
fn a_sandbox_outlives_its_daemon_and_is_found_again() {
    let mut yard = yard!();
    let sandbox = yard.start();
    let (id, record) = (sandbox.id(), sandbox.record());
    sh(&sandbox, "echo before > /run/mark");
    drop(sandbox);
    yard.close();
    yard.open();
    let found = yard.sandboxes().recover(id, &record).expect("recover").expect("it runs");
    assert_eq!(found.record(), record);
    assert_eq!(yard.sandboxes().sweep(&[id]).expect("sweep"), garth_runtime::Swept::default());
    assert_eq!(sh(&found, "cat /run/mark").out, "before\n");
    assert!(found.usage().expect("usage").pids >= 1);
    found.destroy().expect("destroy");
    assert!(yard.sandboxes().recover(id, &record).expect("recover").is_none());
    yard.close();
    assert_eq!(left(&yard), Vec::<String>::new());
}

#[test]
fn a_record_of_another_process_or_boot_finds_nothing() {
    let yard = yard!();
    let sandbox = yard.start();
    let record = sandbox.record();
    let (id, sandboxes) = (sandbox.id(), yard.sandboxes());
    let mut reused = record.clone();
    reused.started += 1;
    assert!(sandboxes.recover(id, &reused).expect("recover").is_none());
    let mut rebooted = record;
    rebooted.boot = "another".to_owned();
    assert!(sandboxes.recover(id, &rebooted).expect("recover").is_none());
    sandbox.destroy().expect("destroy");
}

#[test]
fn a_sweep_ends_what_nobody_knows() {
    let mut yard = yard!();
    let mark = format!("{}", 5_000_000 + std::process::id());
    let sandbox = yard.start();
    sh(&sandbox, &format!("setsid sleep {mark} >/dev/null 2>&1 &"));
    // The shell does not wait until it is that program.
    while processes(&mark) == 0 {
        std::thread::yield_now();
    }
    drop(sandbox);
    yard.close();
    assert_eq!(processes(&mark), 1);
    yard.open();
    let swept = yard.sandboxes().sweep(&[]).expect("sweep");
    assert_eq!((swept.slots, swept.directories), (1, 1), "{swept:?}");
    assert_eq!(processes(&mark), 0);
    yard.close();
    assert_eq!(left(&yard), Vec::<String>::new());
}

#[test]
fn one_id_runs_once() {
    let yard = yard!();
    let mut plan = yard.plan();
    plan.usr = None;
    let id = fresh_id();
    let sandbox = yard.sandboxes().start(id, &plan, None).expect("start");
    let error = yard.sandboxes().start(id, &plan, None).expect_err("runs already");
    assert!(matches!(error.kind, ErrorKind::Exists), "{}", chain(&error));
    assert!(sandbox.agent_socket().exists());
    sandbox.destroy().expect("destroy");
}

#[test]
fn killed_spawners_are_replaced() {
    let yard = yard!();
    let sandbox = yard.start();
    // Every process that waits in the slots: spawners, and inits not used yet.
    for pid in waiting(&yard) {
        if let Some(pid) =
            rustix::process::Pid::from_raw(pid).filter(|pid| pid.as_raw_nonzero().get() != sandbox.record().pid)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    assert_eq!(sh(&sandbox, "echo alive").out, "alive\n");
    sandbox.destroy().expect("destroy");
    let sandbox = yard.start();
    assert_eq!(sh(&sandbox, "echo again").out, "again\n");
    sandbox.destroy().expect("destroy");
}

#[test]
fn a_sandbox_that_stays_costs_no_spawner() {
    let yard = yard!();
    let sandbox = yard.start();
    let record = sandbox.record();
    let here = waiting(&yard).into_iter().filter(|pid| *pid != record.pid && slot_of(*pid).contains(&record.slot));
    // On cgroup v2 the spawner is in no slot; there it is not seen, and nothing is to be waited for.
    for pid in here.collect::<Vec<_>>() {
        let pid = rustix::process::Pid::from_raw(pid).expect("pid");
        // It may have ended meanwhile.
        let Ok(spawner) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) else { continue };
        let timeout = Timespec { tv_sec: 60, tv_nsec: 0 };
        assert_eq!(poll(&mut [PollFd::new(&spawner, PollFlags::IN)], Some(&timeout)), Ok(1));
    }
    assert_eq!(sh(&sandbox, "echo alive").out, "alive\n");
    assert_eq!(sandbox.usage().expect("usage").pids, 1);
    sandbox.destroy().expect("destroy");
}

fn slot_of(pid: i32) -> String {
    std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()
}

fn waiting(yard: &Yard) -> Vec<i32> {
    let cgroups = walk("/sys/fs/cgroup", 3).into_iter().filter(|dir| dir.contains(&format!("garth-{}/", yard.tag)));
    let mut pids: Vec<i32> = cgroups
        .flat_map(|dir| {
            std::fs::read_to_string(format!("{dir}/cgroup.procs"))
                .unwrap_or_default()
                .lines()
                .filter_map(|l| l.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}
