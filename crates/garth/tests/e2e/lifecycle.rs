use std::process::Command;

use crate::level::{BOX, Sandbox};
use crate::yard::{Yard, finish};

levels! {
    every:
        owners_modes_links_and_xattrs_survive_stop_and_start,
        two_starts_at_once_are_one_start,
        a_crash_of_the_daemon_stops_no_sandbox,
        a_reboot_brings_every_project_back_as_stopped_with_its_files;
}

#[test]
fn a_first_command_needs_no_image_and_leaves_nothing() {
    let yard = Yard::new();
    assert_eq!(yard.ok(&["run", "--rm", "--", "sh", "-c", "echo $((6*7))"]), "42");
    assert_eq!(yard.project_names(), Vec::<String>::new());
}

fn owners_modes_links_and_xattrs_survive_stop_and_start(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    yard.sh(
        BOX,
        "mkdir -p /root/kept && echo kept > /root/kept/f && ln /root/kept/f /root/kept/g && ln -s f /root/kept/l",
    );
    yard.sh(BOX, "chown 1234:2345 /root/kept/f && chmod 4751 /root/kept/f && mkfifo /root/kept/p");
    yard.ok(&["stop", BOX]);
    assert_eq!(yard.sh(BOX, "stat -c %u:%g:%a:%h /root/kept/f"), "1234:2345:4751:2");
    assert_eq!(yard.sh(BOX, "cat /root/kept/l; readlink /root/kept/l; stat -c %F /root/kept/p"), "kept\nf\nfifo");
}

fn two_starts_at_once_are_one_start(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    yard.ok(&["stop", BOX]);
    let starts: Vec<_> = (0..4)
        .map(|_| {
            let mut command = yard.command(&["start", BOX, "--json"]);
            std::thread::spawn(move || finish(&mut command, b""))
        })
        .collect();
    let mut started: Vec<serde_json::Value> = starts
        .into_iter()
        .map(|start| {
            let done = start.join().expect("start");
            assert_eq!(done.code, 0, "{done:?}");
            serde_json::from_slice::<serde_json::Value>(&done.stdout).expect("JSON")["sandbox_id"].clone()
        })
        .collect();
    started.dedup();
    assert_eq!(started, [yard.json(&["inspect", BOX])["sandbox_id"].clone()]);
    assert!(started[0].is_string(), "{started:?}");
}

#[test]
fn of_two_creates_of_one_name_one_wins() {
    let yard = Yard::new();
    yard.ok(&["ls"]);
    let creates: Vec<_> = (0..4)
        .map(|_| {
            let mut command = yard.command(&["create", "same"]);
            std::thread::spawn(move || finish(&mut command, b"").code)
        })
        .collect();
    let mut codes: Vec<i32> = creates.into_iter().map(|c| c.join().expect("create")).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 4, 4, 4]);
    assert_eq!(yard.project_names(), ["same"]);
}

fn a_crash_of_the_daemon_stops_no_sandbox(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    yard.sh(BOX, "mkfifo /root/go");
    let waits = "echo begun; read x < /root/go; echo $x; exit 3";
    let process = yard.ok(&["exec", "-d", BOX, "--", "sh", "-c", waits]);
    yard.kill_daemon();
    yard.sh(BOX, "echo went > /root/go");
    assert_eq!(yard.garth(&["wait", BOX, &process]).code, 3);
    assert_eq!(yard.ok(&["logs", BOX, &process]), "begun\nwent");
}

fn a_reboot_brings_every_project_back_as_stopped_with_its_files(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    yard.ok(&["create", "other"]);
    for name in [BOX, "other"] {
        yard.sh(name, &format!("echo {name} > /root/f && sync"));
    }
    let pids = yard.inits();
    assert_eq!(pids.len(), 2, "inspect shows each sandbox's init");
    yard.kill_daemon();
    for pid in pids {
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        let init = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("it runs");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
        let ended = &mut [rustix::event::PollFd::new(&init, rustix::event::PollFlags::IN)];
        rustix::event::poll(ended, None).expect("poll");
    }
    let pool = yard.data_dir().join("pool");
    let unmounted = Command::new("umount").arg("-l").arg(&pool).status().expect("umount");
    assert!(unmounted.success() || yard.traces().is_empty());
    for name in [BOX, "other"] {
        assert_eq!(yard.json(&["inspect", name])["state"], "stopped");
        assert_eq!(yard.sh(name, "cat /root/f"), name);
    }
    yard.ok(&["rm", "-f", "other"]);
}

#[test]
fn an_ephemeral_project_goes_with_its_client() {
    let yard = Yard::new();
    yard.ok(&["ls"]);
    let mut command = yard.command(&["run", "--rm", "--", "sh", "-c", "echo up; sleep 1000"]);
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().expect("run");
    let mut first = [0u8; 3];
    std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut first).expect("output");
    child.kill().expect("kill -9 the client");
    child.wait().expect("wait");
    crate::yard::eventually("the ephemeral project is gone", || yard.project_names().is_empty());
}

#[test]
fn rm_without_a_terminal_asks_for_force() {
    let yard = Yard::new();
    yard.ok(&["create", "asked"]);
    let done = yard.garth(&["rm", "asked"]);
    assert_ne!(done.code, 0);
    assert!(done.stderr.contains("-f"), "{}", done.stderr);
    assert_eq!(yard.project_names(), ["asked"]);
}

#[test]
fn a_changed_limit_holds_at_once_and_a_lower_disk_than_used_is_refused() {
    let yard = Yard::new();
    yard.ok(&["create", "sized", "--memory", "512MiB", "--disk", "256MiB"]);
    yard.sh("sized", "head -c 100M /dev/urandom > /root/big && sync");
    let refused = yard.garth(&["set", "sized", "--disk", "64MiB", "--json"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    yard.ok(&["set", "sized", "--memory", "128MiB"]);
    assert_eq!(yard.garth(&["exec", "sized", "--", "python3", "-c", "x=bytearray(300<<20)"]).code, 137);
}

#[test]
fn a_runtime_that_is_not_there_is_an_error_and_never_a_weaker_sandbox() {
    let yard = Yard::new();
    let done = yard.garth(&["create", "strong", "--runtime", "microvm/firecracker", "--json"]);
    assert_eq!(done.code, 8, "{done:?}");
    assert!(done.text().contains("runtime_unavailable"), "{done:?}");
    assert_eq!(yard.project_names(), Vec::<String>::new());
}

#[test]
fn a_corrupt_store_is_kept_and_named() {
    let yard = Yard::new();
    yard.ok(&["create", "there"]);
    yard.ok(&["stop", "there"]);
    yard.terminate_daemon();
    let store = std::fs::read_dir(yard.data_dir())
        .expect("data dir")
        .flatten()
        .map(|e| e.path())
        .find(|p| p.extension().is_some_and(|e| e == "db"))
        .expect("a store");
    let good = std::fs::read(&store).expect("read");
    let mut bad = good.clone();
    bad[..64].fill(0x5a);
    std::fs::write(&store, &bad).expect("write");
    let done = yard.garth(&["ls"]);
    assert_ne!(done.code, 0);
    assert!(done.stderr.contains(&*store.to_string_lossy()), "{}", done.stderr);
    assert_eq!(std::fs::read(&store).expect("read"), bad, "the corrupt file is evidence and stays");
    std::fs::write(&store, &good).expect("write");
    assert_eq!(yard.project_names(), ["there"]);
}
