//! How fast a sandbox may send, receive, read and write.

use std::time::Duration;

use crate::pace;
use crate::yard::{Yard, at_each_level, eventually};

const MIB: f64 = 1_048_576.0;

/// What root tries who would have none of it: all that a namespace of its own lets it.
const UNDO: &str = "
for try in 'tc qdisc del dev eth0 root' 'tc qdisc replace dev eth0 root pfifo' 'tc qdisc del dev eth0 ingress' \
           'nft flush ruleset'; do $try; done 2>/dev/null
true";

#[test]
fn what_a_sandbox_sends_and_receives_is_held_to_its_rate_whatever_root_does() {
    let test = "what_a_sandbox_sends_and_receives_is_held_to_its_rate_whatever_root_does";
    at_each_level(test, &[], |yard, name| {
        yard.ok(&["set", name, "--network", "internet", "--network-rate", pace::RATE]);
        yard.ok(&["start", name]);
        pace::serve(yard, name);
        let held = pace::measure(yard, name);
        assert!(held.iter().all(|took| *took > pace::SLOW), "{name}: {held:?}");
        yard.sh(name, UNDO);
        // A daemon that comes after this one holds it, too.
        yard.kill_daemon();
        let later = pace::measure(yard, name);
        assert!(later.iter().all(|took| *took > pace::SLOW), "{name}: {later:?}");
        yard.ok(&["set", name, "--network-rate", "none"]);
        // A busy machine may be slow now and then, and not for ever.
        eventually("it is fast", || pace::measure(yard, name).iter().all(|took| *took < pace::SLOW));
        assert!(yard.json(&["inspect", name])["spec"]["limits"].get("network_rate").is_none());
    });
}

/// Writes, waits until the host's disk has it all, and reads it; each in bytes a second.
const DISK: &str = "
import os, time
def took(what):
    begun = time.time(); what(); return 16 * 2**20 / (time.time() - begun)
def write():
    with open('/root/big', 'wb') as f:
        f.write(os.urandom(16 * 2**20)); f.flush(); os.fsync(f.fileno())
def read():
    fd = os.open('/root/big', os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    while os.read(fd, 2**20): pass
print(took(write), took(read))";

fn speeds(yard: &Yard, name: &str) -> Vec<f64> {
    let said = yard.ok(&["exec", name, "--", "python3", "-c", DISK]);
    said.split_whitespace().map(|speed| speed.parse().expect("a speed")).collect()
}

/// On cgroup v1 what the kernel writes out later is nobody's, so that a rate of the disk would not hold: it is refused.
#[test]
fn a_disk_is_held_to_its_rate_or_the_rate_is_refused() {
    let is_v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").is_ok_and(|found| found.contains("io"));
    at_each_level("a_disk_is_held_to_its_rate_or_the_rate_is_refused", &[], |yard, name| {
        let asked = yard.garth(&["set", name, "--disk-rate", "4MiB", "--json"]);
        if !is_v2 {
            assert_eq!(asked.code, 6, "{asked:?}");
            let said = asked.text() + &asked.stderr;
            assert!(
                said.contains("limit_refused") && said.contains("cgroup v1") && said.contains("microvm"),
                "{asked:?}"
            );
            assert!(yard.json(&["inspect", name])["spec"]["limits"].get("disk_rate").is_none());
            let other = yard.garth(&["create", "other", "--runtime", name, "--disk-iops", "50"]);
            assert_ne!(other.code, 0, "{other:?}");
            return;
        }
        assert_eq!(asked.code, 0, "{asked:?}");
        yard.ok(&["start", name]);
        let held = speeds(yard, name);
        assert!(held.iter().all(|speed| *speed < 6.0 * MIB), "{name}: {held:?}");
        // What is left to the kernel to write is held, too.
        let line = "head -c 16M /dev/zero > /root/later; sync";
        let begun = std::time::Instant::now();
        yard.sh(name, line);
        assert!(begun.elapsed() > Duration::from_secs(2), "{:?}", begun.elapsed());
        assert!(!yard.sh_succeeds(name, "echo 7:0 rbps=max > /sys/fs/cgroup/io.max"));
        yard.ok(&["set", name, "--disk-rate", "none"]);
        let free = speeds(yard, name);
        assert!(free.iter().any(|speed| *speed > 6.0 * MIB), "{name}: {free:?}");
    });
}

#[test]
fn rates_that_no_sandbox_could_live_with_are_refused() {
    let yard = Yard::new();
    for wrong in [["--disk-rate", "1KiB"], ["--network-rate", "2TiB"], ["--disk-iops", "1"], ["--disk-rate", "fast"]] {
        let refused = yard.garth(&[&["create", "web"][..], &wrong].concat());
        assert_eq!(refused.code, 2, "{wrong:?}: {refused:?}");
    }
    let refused = yard.garth(&["create", "web", "--runtime", "sysbox/sysbox-runc", "--disk-rate", "1MiB"]);
    assert!(refused.code == 2 && refused.stderr.contains("disk's rate"), "{refused:?}");
    assert!(yard.project_names().is_empty());
}
