use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::level::{BOX, Sandbox};
use crate::yard::{Yard, skip};

levels! {
    every: a_sandbox_keeps_its_boundary;
}

/// A project whose limits are so small that they are tried, and a neighbour.
fn yard() -> Yard {
    let yard = Yard::new();
    yard.ok(&["create", "web", "--memory", "256MiB", "--pids", "128", "--disk", "256MiB"]);
    yard.ok(&["create", "other"]);
    yard.ok(&["start", "other"]);
    yard
}

fn init(yard: &Yard, name: &str) -> i64 {
    yard.json(&["inspect", name])["pid"].as_i64().expect("a running sandbox")
}

/// The ids of the checks that fail.
#[track_caller]
fn failed(yard: &Yard, name: &str) -> Vec<String> {
    let outcome = yard.json(&["verify", name]);
    let checks = outcome["checks"].as_array().unwrap_or_else(|| panic!("no checks: {outcome}"));
    let failed = checks.iter().filter(|check| check["passed"] == false);
    let failed: Vec<String> = failed.filter_map(|check| check["id"].as_str().map(str::to_owned)).collect();
    assert_eq!(outcome["passed"].as_bool(), Some(failed.is_empty()), "{outcome}");
    assert_eq!(yard.json(&["inspect", name])["verified"]["failed"], Value::from(failed.clone()));
    failed
}

/// What a pool without quotas cannot have.
fn without_quotas(yard: &Yard, name: &str) -> Vec<String> {
    let limit = &yard.json(&["inspect", name])["disk"]["limit"];
    if limit.is_null() { vec!["disk-limit".to_owned()] } else { Vec::new() }
}

/// Runs a program in the mount namespace of a sandbox, with all that root of the host may.
#[track_caller]
fn meddle(yard: &Yard, name: &str, command: &[&str]) {
    let init = init(yard, name).to_string();
    let done = Command::new("nsenter").args(["-m", "-t", &init, "--"]).args(command).output().expect("nsenter");
    assert!(done.status.success(), "{command:?}: {done:?}");
}

fn a_sandbox_keeps_its_boundary(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let processes = || yard.json(&["ps", BOX])["processes"].as_array().map_or(0, Vec::len);
    let (before, listed) = (yard.json(&["inspect", BOX]), processes());
    assert_eq!(before["verified"], Value::Null);
    let outcome = yard.json(&["verify", BOX]);
    assert_eq!(outcome["handler"], sandbox.level.runtime());
    assert!(outcome["checks"].as_array().expect("checks").len() >= 20, "{outcome}");
    assert_eq!(failed(yard, BOX), without_quotas(yard, BOX));
    // It is the same sandbox, lists no process of the check's, and does what it did.
    assert_eq!(processes(), listed);
    assert_eq!(yard.json(&["inspect", BOX])["sandbox_id"], before["sandbox_id"]);
    assert_eq!(sandbox.sh("echo here"), "here");
}

#[test]
fn a_sandbox_without_network_and_without_new_privileges_keeps_its_boundary() {
    let yard = Yard::new();
    yard.ok(&["create", "web", "--network", "none", "--no-new-privs"]);
    let wanted = without_quotas(&yard, "web");
    assert_eq!(failed(&yard, "web"), wanted);
}

#[test]
fn people_read_a_table_and_programs_an_exit_code() {
    let yard = yard();
    if !without_quotas(&yard, "web").is_empty() {
        skip("people_read_a_table_and_programs_an_exit_code", "the pool has no quotas here");
        return;
    }
    let good = yard.garth(&["verify", "web"]);
    let text = good.text();
    assert!(good.code == 0 && text.ends_with(" checks, 0 failed"), "{good:?}");
    assert!(text.lines().filter(|line| line.starts_with("pass  ")).count() > 25, "{text}");
    meddle(&yard, "web", &["mount", "-t", "tmpfs", "t", "/mnt"]);
    let bad = yard.garth(&["verify", "web"]);
    assert!(bad.code == 1 && bad.text().ends_with(" checks, 1 failed"), "{bad:?}");
    assert!(bad.text().lines().any(|line| line.starts_with("fail    mounts ") && line.contains("/mnt")), "{bad:?}");
    let seen = yard.ok(&["inspect", "web"]);
    assert!(seen.lines().any(|line| line.starts_with("verified") && line.contains("fail") && line.contains("mounts")));
    // The store has it: a daemon that comes after knows.
    yard.kill_daemon();
    assert_eq!(yard.json(&["inspect", "web"])["verified"]["failed"], Value::from(vec!["mounts"]));
}

#[test]
fn settings_of_the_machine_that_can_be_written_are_found() {
    let yard = yard();
    yard.ok(&["start", "web"]);
    let mut wanted = without_quotas(&yard, "web");
    meddle(&yard, "web", &["mount", "-o", "remount,rw,bind", "/proc/sys"]);
    wanted.insert(0, "kernel-settings".to_owned());
    assert_eq!(failed(&yard, "web"), wanted);
}

#[test]
fn a_device_that_does_not_belong_there_is_found() {
    let yard = yard();
    yard.ok(&["start", "web"]);
    let mut wanted = without_quotas(&yard, "web");
    meddle(&yard, "web", &["mknod", "/dev/loop-control", "c", "10", "237"]);
    wanted.splice(0..0, ["devices".to_owned(), "raw-devices".to_owned()]);
    assert_eq!(failed(&yard, "web"), wanted);
}

#[test]
fn limits_that_someone_raised_are_found() {
    let yard = yard();
    yard.ok(&["start", "web"]);
    let mut wanted = without_quotas(&yard, "web");
    let (memory, pids) = limits(init(&yard, "web"));
    // Swap counts as memory where v1 counts it, and has to be raised first.
    let _ = std::fs::write(memory.with_file_name("memory.memsw.limit_in_bytes"), "1073741824");
    std::fs::write(&memory, "1073741824").expect("a higher limit on memory");
    std::fs::write(&pids, "1000").expect("a higher limit on processes");
    wanted.extend(["memory-limit".to_owned(), "pids-limit".to_owned()]);
    wanted.sort();
    let mut found = failed(&yard, "web");
    found.sort();
    assert_eq!(found, wanted);
    yard.ok(&["set", "web", "--memory", "256MiB", "--pids", "128"]);
    yard.ok(&["restart", "web"]);
    assert_eq!(failed(&yard, "web"), without_quotas(&yard, "web"));
}

/// The files that limit a process's memory and processes.
fn limits(pid: i64) -> (PathBuf, PathBuf) {
    let cgroup = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("cgroup");
    let path = |controller: &str| {
        cgroup.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            (parts.next()? == controller).then(|| parts.next().unwrap_or_default().trim_start_matches('/').to_owned())
        })
    };
    let root = PathBuf::from("/sys/fs/cgroup");
    match (path("memory"), path("pids")) {
        (Some(memory), Some(pids)) => (
            root.join("memory").join(memory).join("memory.limit_in_bytes"),
            root.join("pids").join(pids).join("pids.max"),
        ),
        _ => {
            let own = root.join(path("").expect("a cgroup"));
            (own.join("memory.max"), own.join("pids.max"))
        }
    }
}

#[test]
fn a_project_that_is_not_there_is_not_verified() {
    let yard = Yard::new();
    assert_eq!(yard.garth(&["verify", "nobody"]).code, 3);
    assert_eq!(yard.garth(&["verify"]).code, 2);
}

#[test]
fn nothing_weaker_than_promised_is_made_or_used() {
    let yard = Yard::new();
    let weak = yard.garth(&["create", "weak", "--runtime", "default", "--at-least", "sysbox", "--json"]);
    assert!(weak.code == 5 && weak.text().contains("runtime_too_weak"), "{weak:?}");
    assert_eq!(yard.garth(&["create", "weak", "--at-least", "nonsense"]).code, 2);
    assert_eq!(yard.project_names(), Vec::<String>::new());
    yard.ok(&["create", "plain", "--at-least", "default"]);
    assert_eq!(yard.json(&["inspect", "plain"])["spec"]["at_least"], "default");
    yard.ok(&["run", "--name", "plain", "--at-least", "default", "--", "true"]);
    let used = yard.garth(&["run", "--name", "plain", "--at-least", "microvm", "--json", "--", "true"]);
    assert!(used.code == 125 && used.text().contains("runtime_"), "{used:?}");
}
