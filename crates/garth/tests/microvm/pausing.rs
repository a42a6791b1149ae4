//! Memory on disk.

use crate::yard::eventually;
use crate::{project, state};

#[test]
fn a_paused_guest_costs_no_memory_and_every_process_goes_on_where_it_was() {
    let Some(yard) = project("a_paused_guest_costs_no_memory", "m") else { return };
    let count = "n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done";
    let process = yard.ok(&["exec", "-d", "m", "--", "sh", "-c", count]);
    let last = || yard.ok(&["logs", "m", &process]).lines().last().and_then(|line| line.parse::<u64>().ok());
    eventually("it counts", || last() > Some(3));
    let before = yard.sh("m", "cat /proc/sys/kernel/random/boot_id");
    yard.ok(&["pause", "m"]);
    let paused = yard.json(&["inspect", "m"]);
    assert_eq!((&paused["state"], &paused["pid"]), (&"paused".into(), &serde_json::Value::Null), "{paused}");
    // A daemon that comes later wakes it as well.
    yard.kill_daemon();
    assert_eq!(state(&yard, "m"), "paused");
    yard.ok(&["resume", "m"]);
    let now = last();
    assert!(now > Some(3));
    eventually("it goes on", || last() > now);
    assert_eq!(yard.sh("m", "cat /proc/sys/kernel/random/boot_id"), before);
    yard.ok(&["resume", "m"]);
    // The clock is the host's again.
    let guest: u64 = yard.sh("m", "date +%s").parse().expect("seconds");
    let host = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs();
    assert!(host.abs_diff(guest) < 30, "{guest} in the guest, {host} on the host");
}

#[test]
fn random_numbers_after_a_pause_are_not_those_that_were_due() {
    let Some(yard) = project("random_numbers_after_a_pause_are_not_those_that_were_due", "m") else { return };
    let random = || yard.sh("m", "head -c 16 /dev/urandom | od -An -tx1");
    let mut seen = vec![random()];
    for _ in 0..2 {
        yard.ok(&["pause", "m"]);
        seen.push(random());
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 3, "{seen:?}");
}

#[test]
fn memory_that_was_changed_or_is_another_versions_is_refused_and_the_project_starts_again() {
    let Some(yard) = project("memory_that_was_changed_or_is_another_versions_is_refused", "m") else { return };
    yard.sh("m", "echo kept > /root/f");
    yard.ok(&["pause", "m"]);
    let guests = yard.data_dir().join("pool/guests");
    let guest = std::fs::read_dir(guests).expect("guests").flatten().next().expect("one").path();
    let manifest = guest.join("memory/manifest.json");
    let text = std::fs::read_to_string(&manifest).expect("manifest");
    let mut other: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    other["vmm"] = "Another VMM 0.1".into();
    std::fs::write(&manifest, other.to_string()).expect("manifest");
    let refused = yard.garth(&["resume", "m"]);
    assert!(refused.code != 0 && refused.stderr.contains("was written by Another VMM 0.1, and "), "{refused:?}");
    assert_eq!(state(&yard, "m"), "paused");
    std::fs::write(&manifest, text).expect("manifest");
    let files = std::fs::read_dir(guest.join("memory")).expect("memory").flatten();
    let length = |file: &std::fs::DirEntry| file.metadata().expect("memory").len();
    let largest = files.max_by_key(length).expect("a file");
    let cut = std::fs::OpenOptions::new().write(true).open(largest.path()).expect("memory");
    cut.set_len(length(&largest) / 2).expect("cut");
    let refused = yard.garth(&["resume", "m"]);
    assert!(refused.code != 0 && refused.stderr.contains("damaged"), "{refused:?}");
    assert_eq!(state(&yard, "m"), "paused");
    yard.ok(&["stop", "m"]);
    assert_eq!(yard.sh("m", "cat /root/f"), "kept");
}
