//! Pausing.

use std::path::PathBuf;

use crate::level::{BOX, Sandbox};
use crate::yard::{Yard, at_each_level, eventually};

levels! {
    every: whatever_needs_a_paused_sandbox_resumes_it;
}

fn state(yard: &Yard, name: &str) -> String {
    yard.json(&["inspect", name])["state"].as_str().unwrap_or_default().to_owned()
}

/// What the kernel says of the sandbox's processes.
fn is_frozen(yard: &Yard, name: &str) -> bool {
    let pid = yard.json(&["inspect", name])["pid"].as_i64().expect("a sandbox");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/")).expect("one in the v2 tree");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let root = mounts.lines().find(|line| line.starts_with("cgroup2 ")).and_then(|line| line.split(' ').nth(1));
    let events = PathBuf::from(root.expect("a v2 tree")).join(path).join("cgroup.events");
    std::fs::read_to_string(events).expect("events").lines().any(|line| line == "frozen 1")
}

/// A process whose memory is a number that grows, and that it writes when it is asked to.
fn counter(yard: &Yard, name: &str) -> String {
    yard.sh(name, "mkfifo /root/ask");
    // It may open the pipe again before the writer has closed it: then there is nothing to read.
    let line = "n=0; while :; do read x < /root/ask || continue; n=$((n+1)); echo $n; done";
    let process = yard.ok(&["exec", "-d", name, "--", "sh", "-c", line]);
    yard.sh(name, "echo > /root/ask");
    eventually("it counts", || yard.ok(&["logs", name, &process]) == "1");
    process
}

#[test]
fn a_paused_project_rests_and_goes_on_where_it_was() {
    at_each_level("a_paused_project_rests_and_goes_on_where_it_was", &[], |yard, name| {
        let process = counter(yard, name);
        yard.sh(name, "echo x > /root/f; chown 1000:1000 /root/f");
        let before = yard.json(&["inspect", name]);
        for _ in 0..2 {
            yard.ok(&["pause", name]);
            assert!(is_frozen(yard, name));
        }
        let paused = yard.json(&["inspect", name]);
        assert_eq!(paused["state"], "paused");
        assert_eq!((&paused["pid"], &paused["sandbox_id"]), (&before["pid"], &before["sandbox_id"]));
        assert!(paused["usage"]["memory"].as_u64().is_some_and(|bytes| bytes > 0), "{paused}");
        assert!(yard.ok(&["ls"]).contains("paused"));
        for _ in 0..2 {
            yard.ok(&["resume", name]);
            assert!(!is_frozen(yard, name));
        }
        yard.sh(name, "echo > /root/ask");
        eventually("it goes on counting", || yard.ok(&["logs", name, &process]) == "1\n2");
        assert_eq!(yard.sh(name, "stat -c %u:%g /root/f"), "1000:1000");
    });
}

fn whatever_needs_a_paused_sandbox_resumes_it(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let process = yard.ok(&["exec", "-d", BOX, "--", "sh", "-c", "echo begun; exec sleep 1000"]);
    let copy = yard.data_dir().join("copy").to_string_lossy().into_owned();
    let needs: [&[&str]; 5] = [
        &["exec", BOX, "--", "true"],
        &["logs", BOX, &process],
        &["cp", &format!("{BOX}:/etc/passwd"), &copy],
        &["start", BOX],
        &["unpause", BOX],
    ];
    for command in needs {
        yard.ok(&["pause", BOX]);
        yard.ok(command);
        assert_eq!(state(yard, BOX), "running", "{command:?}");
    }
    yard.ok(&["pause", BOX]);
    let listed = yard.garth(&["ps", BOX, "--json"]);
    assert_eq!(listed.code, 4, "{listed:?}");
    assert!(listed.text().contains("\"code\":\"paused\""), "{listed:?}");
    assert_eq!(state(yard, BOX), "paused");
    yard.ok(&["resume", BOX]);
    yard.ok(&["kill", BOX, &process]);
}

#[test]
fn a_paused_project_is_stopped_restarted_and_removed_like_a_running_one() {
    at_each_level("a_paused_project_is_stopped_restarted_and_removed_like_a_running_one", &[], |yard, name| {
        let line = "trap 'echo ended > /root/ended; exit' TERM; echo > /root/up; while :; do sleep 1; done";
        yard.ok(&["exec", "-d", name, "--", "sh", "-c", line]);
        eventually("it waits for its end", || yard.sh_succeeds(name, "test -e /root/up"));
        yard.ok(&["pause", name]);
        yard.ok(&["stop", "--grace", "60", name]);
        assert_eq!(yard.sh(name, "cat /root/ended"), "ended", "it had its time to end");
        for again in [&["restart", "--grace", "0"][..], &["stop", "--grace", "0"]] {
            yard.ok(&["pause", name]);
            yard.ok(&[again, &[name]].concat());
            yard.sh(name, "true");
        }
        yard.ok(&["pause", name]);
        yard.ok(&["rm", "-f", name]);
        // What it ran in may be used again.
        yard.ok(&["run", "--rm", "--runtime", name, "--network", "none", "--", "true"]);
    });
}

#[test]
fn a_paused_project_stays_paused_when_the_daemon_dies() {
    at_each_level("a_paused_project_stays_paused_when_the_daemon_dies", &[], |yard, name| {
        let process = counter(yard, name);
        yard.ok(&["pause", name]);
        yard.kill_daemon();
        assert_eq!(state(yard, name), "paused");
        assert!(is_frozen(yard, name));
        yard.sh(name, "echo > /root/ask");
        eventually("it goes on counting", || yard.ok(&["logs", name, &process]) == "1\n2");
        yard.ok(&["pause", name]);
        yard.kill_daemon();
        yard.ok(&["stop", name]);
        assert_eq!(state(yard, name), "stopped");
    });
}

#[test]
fn only_a_running_project_can_be_paused() {
    let yard = Yard::new();
    yard.ok(&["create", "still"]);
    for verb in ["pause", "resume"] {
        let refused = yard.garth(&[verb, "still"]);
        assert_eq!(refused.code, 4, "{refused:?}");
        assert!(refused.stderr.contains("stopped"), "{refused:?}");
    }
}
