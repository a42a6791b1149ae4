use crate::yard::{Yard, eventually};

/// A sandbox that misbehaves and a neighbour that must not notice.
fn with_neighbour() -> Yard {
    let yard = Yard::new();
    yard.ok(&["create", "wild", "--memory", "128MiB", "--disk", "256MiB", "--pids", "100", "--cpus", "1"]);
    yard.ok(&["create", "calm"]);
    yard.sh("calm", "echo here");
    yard
}

#[test]
fn a_fork_bomb_ends_with_its_sandbox_and_no_neighbour() {
    let yard = with_neighbour();
    // A shell's bomb ends by itself when fork fails; this one goes on.
    let bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass";
    let bomb = yard.ok(&["exec", "-d", "wild", "--", "python3", "-c", bomb]);
    eventually("the limit on processes holds", || {
        yard.json(&["inspect", "wild"])["usage"]["pids"].as_u64() >= Some(90)
    });
    assert!(yard.json(&["inspect", "wild"])["usage"]["pids"].as_u64() <= Some(101));
    assert_eq!(yard.sh("calm", "echo here"), "here");
    let _ = yard.garth(&["kill", "wild", &bomb]);
    yard.ok(&["restart", "wild"]);
    assert_eq!(yard.sh("wild", "echo back"), "back");
}

#[test]
fn a_memory_hog_dies_alone() {
    let yard = with_neighbour();
    assert_eq!(yard.garth(&["exec", "wild", "--", "python3", "-c", "x=bytearray(400<<20)"]).code, 137);
    assert_eq!(yard.sh("wild", "echo alive"), "alive");
    assert_eq!(yard.sh("calm", "echo here"), "here");
}

#[test]
fn a_full_disk_is_the_projects_own() {
    let yard = with_neighbour();
    if yard.json(&["inspect", "wild"])["disk"]["limit"].is_null() {
        eprintln!("SKIP a_full_disk_is_the_projects_own: the pool has no quotas here");
        return;
    }
    assert!(!yard.sh_succeeds("wild", "head -c 400M /dev/zero > /root/big"));
    assert_eq!(yard.sh("calm", "head -c 1M /dev/zero > /root/f && echo wrote"), "wrote");
    yard.sh("wild", "rm -f /root/big");
    yard.sh("wild", "head -c 1M /dev/zero > /root/f");
}

#[test]
fn shared_memory_and_tmpfs_count_as_the_sandboxes_own() {
    let yard = with_neighbour();
    assert!(!yard.sh_succeeds("wild", "head -c 400M /dev/zero > /dev/shm/f"));
    assert!(!yard.sh_succeeds("wild", "rm -f /dev/shm/f; head -c 400M /dev/zero > /run/f"));
    yard.sh("wild", "rm -f /dev/shm/f /run/f");
    assert_eq!(yard.sh("calm", "echo here"), "here");
}
