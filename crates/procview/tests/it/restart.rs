use std::fs::{self, File};
use std::io::Read;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use garth_procview::Served;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::support::{Running, World, now, server};

const LONG: Duration = Duration::from_secs(10);

/// What a file says, once it says something.
fn reader(path: PathBuf) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(fs::read_to_string(path).unwrap()));
    receiver
}

fn wait_for_a_request(world: &World) {
    let mut fds = [PollFd::new(&world.fuse, PollFlags::IN)];
    let limit = rustix::time::Timespec { tv_sec: LONG.as_secs().cast_signed(), tv_nsec: 0 };
    assert_eq!(poll(&mut fds, Some(&limit)).unwrap(), 1, "no request came");
}

#[test]
fn a_server_that_takes_over_answers_for_the_one_before() {
    let Some(world) = World::new("a_server_that_takes_over_answers_for_the_one_before") else { return };
    let started = now();
    let first = Running::start(server(&world.fuse, &world.cgroup, started));
    let mut open = File::open(world.path("meminfo")).unwrap();
    let mut start = [0; 10];
    open.read_exact(&mut start).unwrap();
    drop(first.stop());

    // Who asks while nobody answers waits; the first server took one request with it into its grave. (Not scoped
    // threads: should this test fail, the connection must break before they can end.)
    let [taken, queued] = ["uptime", "cpu_online"].map(|name| world.path(name));
    let taken = reader(taken);
    wait_for_a_request(&world);
    let mut grave = [0; 8192];
    assert!(rustix::io::read(&world.fuse, &mut grave).unwrap() > 0);
    let queued = reader(queued);
    wait_for_a_request(&world);
    assert!(taken.try_recv().is_err() && queued.try_recv().is_err());

    let mut next = server(&world.fuse, &world.cgroup, started);
    let resent = next.resend().unwrap();
    let _running = Running::start(next);
    assert!(!queued.recv_timeout(LONG).unwrap().is_empty());
    // What was opened with the first server goes on with the second.
    let mut rest = String::new();
    open.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\nHugetlb:"), "{rest}");
    match resent {
        true => assert!(!taken.recv_timeout(LONG).unwrap().is_empty()),
        // That thread ends with the connection.
        false => eprintln!("SKIP a_server_that_takes_over_answers_for_the_one_before: FUSE resend, Linux 6.9"),
    }
}

#[test]
fn an_unmounted_server_ends() {
    let Some(world) = World::new("an_unmounted_server_ends") else { return };
    let running = Running::start(server(&world.fuse, &world.cgroup, now()));
    assert!(!world.read("uptime").is_empty());
    let World { mount, fuse: _fuse, cgroup: _cgroup } = world;
    drop(mount);
    assert_eq!(running.ended().serve().unwrap(), Served::Ended);
}

fn anonymous_kilobytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim_end_matches("kB").trim().parse().unwrap()
}

#[test]
fn a_flood_of_open_files_costs_little_memory() {
    const FLOOD: u64 = 10_000;
    let Some(world) = World::new("a_flood_of_open_files_costs_little_memory") else { return };
    let limit = getrlimit(Resource::Nofile);
    let enough = Some(2 * FLOOD);
    setrlimit(Resource::Nofile, Rlimit { current: enough, maximum: limit.maximum.max(enough) }).unwrap();
    let _running = Running::start(server(&world.fuse, &world.cgroup, now()));
    let length = world.read("cpuinfo").len() as u64;
    let before = anonymous_kilobytes();
    let open = |_| {
        let mut file = File::open(world.path("cpuinfo")).unwrap();
        file.read_exact(&mut [0; 100]).unwrap();
        file
    };
    let mut files: Vec<File> = (0..FLOOD).map(open).collect();
    let grown = anonymous_kilobytes().saturating_sub(before);
    assert!(grown < FLOOD * length / 1024 / 4, "{grown} kB for {FLOOD} files of {length} bytes");
    let mut rest = Vec::new();
    files[0].read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len() as u64 + 100, length, "the first is forgotten, and made anew");
}
