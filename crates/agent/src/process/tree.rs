//! Finding and ending all that descends from a process of the kernel.
//!
//! The root is a supervisor, which adopts whatever its descendants leave behind, so nothing below it can get away by a
//! double fork or setsid. A process that is killed while it forks could leave a child behind, so a kill first stops all
//! that it sees, until it sees nothing new: what is stopped does not fork.

use std::collections::HashSet;
use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Passes of one kill in which something new was found, before what was found so far is killed anyway.
const PASSES: usize = 10;

/// All descendants of `root`, without itself, parents before children.
pub fn descendants(root: Pid) -> Vec<Pid> {
    walk(root, |_| {})
}

/// The same; `visit` sees each of them before its children are looked for.
fn walk(root: Pid, mut visit: impl FnMut(Pid)) -> Vec<Pid> {
    let Some(mut found) = children(root) else {
        let found = descendants_by_parent(root);
        found.iter().copied().for_each(visit);
        return found;
    };
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        visit(pid);
        found.extend(children(pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// The children of every thread, as far as the kernel tells (CONFIG_PROC_CHILDREN); `None` when it does not.
fn children(pid: Pid) -> Option<Vec<Pid>> {
    let mut found = Vec::new();
    let tasks = match fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) {
        Ok(tasks) => tasks,
        // It is gone, and its children are another's.
        Err(_) => return Some(found),
    };
    for task in tasks.flatten() {
        match fs::read_to_string(task.path().join("children")) {
            Ok(text) => found.extend(text.split_ascii_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && task.path().exists() => return None,
            Err(_) => {}
        }
    }
    Some(found)
}

/// The same by reading every process's parent.
fn descendants_by_parent(root: Pid) -> Vec<Pid> {
    let parents: Vec<(Pid, Pid)> = fs::read_dir("/proc")
        .map(|entries| entries.flatten().filter_map(|e| parent(e.file_name().to_str()?)).collect())
        .unwrap_or_default();
    let mut found = vec![root];
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    found.split_off(1)
}

fn parent(name: &str) -> Option<(Pid, Pid)> {
    let pid = Pid::from_raw(name.parse().ok()?)?;
    let stat = fs::read_to_string(format!("/proc/{name}/stat")).ok()?;
    // The name in parentheses may hold anything, parentheses and spaces too (proc_pid_stat(5)).
    let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?;
    Some((pid, Pid::from_raw(parent.parse().ok()?)?))
}

/// Sends a signal to each descendant of `root` that `wanted` takes; returns to how many it went.
pub fn signal(root: Pid, signal: Signal, wanted: impl Fn(Pid) -> bool) -> u32 {
    let targets = descendants(root).into_iter().filter(|pid| wanted(*pid));
    targets.map(|pid| u32::from(kill_process(pid, signal).is_ok())).sum()
}

/// Kills every descendant of `root` that `wanted` takes, and what they fork meanwhile; returns how many were seen.
///
/// Blocks. `root` itself lives on; `done` says when nothing is left to do, and `patience` bounds the wait for that.
pub fn kill(root: Pid, patience: Duration, wanted: impl Fn(Pid) -> bool, done: impl Fn() -> bool) -> u32 {
    let deadline = Instant::now() + patience;
    let mut seen = HashSet::new();
    loop {
        let stopped = stop_all(root, &wanted);
        for pid in &stopped {
            let _ = kill_process(*pid, Signal::KILL);
        }
        let quiet = stopped.is_empty();
        seen.extend(stopped);
        if done() || (quiet && descendants(root).into_iter().all(|pid| !wanted(pid))) || Instant::now() >= deadline {
            return u32::try_from(seen.len()).unwrap_or(u32::MAX);
        }
        // What was killed needs a moment to die and be reaped; it tells nobody but its parent.
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn stop_all(root: Pid, wanted: &impl Fn(Pid) -> bool) -> HashSet<Pid> {
    let mut stopped = HashSet::new();
    for _ in 0..PASSES {
        let before = stopped.len();
        // Before its children are looked for: a signal that is there ends its fork without a child (fork.c,
        // copy_process), so one pass finds all but what threads and adoptions moved meanwhile.
        walk(root, |pid| {
            if wanted(pid) && stopped.insert(pid) {
                let _ = kill_process(pid, Signal::STOP);
            }
        });
        if stopped.len() == before {
            break;
        }
    }
    stopped
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn both_ways_find_the_same_descendants() {
        let mut child = Command::new("sh")
            .args(["-c", "(sleep 600 & echo; wait) & wait"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh");
        let mut ready = [0u8; 1];
        std::io::Read::read_exact(child.stdout.as_mut().expect("piped"), &mut ready).expect("started");
        let pid = Pid::from_child(&child);
        let one: HashSet<Pid> = descendants(pid).into_iter().collect();
        let other: HashSet<Pid> = descendants_by_parent(pid).into_iter().collect();
        signal(pid, Signal::KILL, |_| true);
        child.kill().expect("kill");
        child.wait().expect("wait");
        assert_eq!(one.len(), 2, "{one:?}");
        assert_eq!(one, other);
    }
}
