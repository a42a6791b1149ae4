//! Limits and options that hold inside a guest.

use crate::project;
use crate::yard::scratch;

/// How many children one can have, which go with it.
const FORKS: &str = "
import os, signal
children = []
try:
    while len(children) < 200:
        pid = os.fork()
        if pid == 0: signal.pause()
        children.append(pid)
except BlockingIOError: pass
print(len(children))
for pid in children: os.kill(pid, signal.SIGKILL)
for pid in children: os.waitpid(pid, 0)
";

#[test]
fn what_runs_in_a_guest_is_held_to_the_limits_of_now() {
    let Some(yard) = project("what_runs_in_a_guest_is_held_to_the_limits_of_now", "m") else { return };
    assert_eq!(yard.sh("m", "cat /sys/fs/cgroup/memory.max"), (256 << 20).to_string());
    assert!(!yard.sh_succeeds("m", "echo max > /sys/fs/cgroup/memory.max"), "a limit is not the guest's to change");
    yard.ok(&["set", "m", "--pids", "64", "--memory", "160MiB"]);
    assert_eq!(yard.sh("m", "cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max"), format!("{}\n64", 160 << 20));
    // Each holds what it has been given until it is killed for it.
    let hog = yard.garth(&["exec", "m", "--", "sh", "-c", "head -c 250M /dev/zero | tail"]);
    assert!(hog.code != 0 || yard.sh("m", "grep '^oom_kill ' /sys/fs/cgroup/memory.events") != "oom_kill 0", "{hog:?}");
    let many = yard.ok(&["exec", "m", "--", "python3", "-c", FORKS]).parse::<u32>().expect("a count");
    assert!((32..64).contains(&many), "{many} processes of at most 64");
    // Others beside the agent's, as containers are, are below the same limits.
    yard.sh("m", "mkdir /sys/fs/cgroup/one && grep -q memory /sys/fs/cgroup/one/cgroup.controllers");
    // The machine itself is smaller from the next start on, which is told.
    let verified = yard.garth(&["verify", "m"]);
    assert!(verified.code != 0 && verified.text().contains("restart it"), "{verified:?}");
    yard.ok(&["restart", "m"]);
    let verified = yard.garth(&["verify", "m"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    yard.ok(&["set", "m", "--memory", "256MiB"]);
    yard.ok(&["restart", "m"]);
    assert_eq!(yard.sh("m", "head -c 100M /dev/zero | tail | wc -c"), (100 << 20).to_string());
}

#[test]
fn a_guest_has_the_root_and_the_capabilities_that_were_asked_for() {
    let Some(yard) = project("a_guest_has_the_root_and_the_capabilities_that_were_asked_for", "m") else { return };
    yard.sh("m", "echo kept > /root/kept");
    let options = ["--read-only", "true", "--cap-drop", "ALL", "--cap-add", "CHOWN", "--cap-add", "SYS_MODULE"];
    yard.ok(&[&["set", "m"][..], &options].concat());
    yard.ok(&["restart", "m"]);
    let there = |yard: &crate::Yard| {
        assert_eq!(yard.sh("m", "cat /root/kept"), "kept");
        for dir in ["/tmp", "/run", "/dev/shm"] {
            yard.sh("m", &format!("echo x > {dir}/x && test -s {dir}/x"));
        }
        for dir in ["/", "/root", "/etc", "/usr", "/usr/bin", "/var/tmp"] {
            assert_eq!(yard.sh("m", &format!("touch {dir}/x 2>/dev/null || echo refused")), "refused", "{dir}");
        }
        let sets = yard.sh("m", "grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2 | sort -u");
        assert_eq!(sets, "0000000000010001");
        assert!(!yard.sh_succeeds("m", "chroot / true"));
        assert_eq!(yard.ok(&["exec", "-w", "/", "-u", "1000", "m", "--", "id", "-u"]), "1000");
        assert_eq!(yard.sh("m", "hostname; grep -c 127.0.0.1 /etc/hosts"), "m\n1");
    };
    there(&yard);
    yard.ok(&["pause", "m"]);
    yard.ok(&["resume", "m"]);
    there(&yard);
    yard.ok(&["set", "m", "--read-only", "false", "--cap-add", "ALL"]);
    yard.ok(&["restart", "m"]);
    yard.sh("m", "touch /root/x && chroot / true");
}

/// It is asked to end as systemd is (systemd(1), "Signals"): SIGRTMIN+4. RB_POWER_OFF is reboot(2)'s.
const INIT: &str = r#"#!/bin/sh
mkdir /sys/fs/cgroup/init.scope && echo $$ > /sys/fs/cgroup/init.scope/cgroup.procs
trap 'echo asked > /root/asked; sync; exec python3 -c "import ctypes; ctypes.CDLL(None).reboot(0x4321fedc)"' 38
while :; do sleep 1000 & wait; done
"#;

#[test]
fn an_image_s_own_init_is_process_1_of_a_guest() {
    let Some(yard) = project("an_image_s_own_init_is_process_1_of_a_guest", "m") else { return };
    let file = scratch(&yard, "init", INIT.as_bytes());
    yard.ok(&["cp", file.to_str().expect("a path"), "m:/root/own-init"]);
    yard.sh("m", "chmod 755 /root/own-init");
    yard.ok(&["set", "m", "--init", "/root/own-init"]);
    yard.ok(&["restart", "m"]);
    // The agent answers before the init has done its first thing.
    let moved = "until grep -q init.scope /proc/1/cgroup; do :; done; cat /proc/1/comm /proc/1/cgroup";
    assert_eq!(yard.sh("m", moved), "own-init\n0::/init.scope");
    assert_eq!(
        yard.sh("m", "cat /proc/self/cgroup; cat /sys/fs/cgroup/memory.max"),
        format!("0::/garth\n{}", 256 << 20)
    );
    // An orphan of the agent's stays the agent's, and its end is seen.
    let process = yard.ok(&["exec", "-d", "m", "--", "sh", "-c", "(setsid sleep 100 &); exit 3"]);
    assert_eq!(yard.garth(&["wait", "m", &process]).code, 3);
    yard.ok(&["stop", "m"]);
    assert_eq!(yard.sh("m", "cat /root/asked"), "asked");
    yard.ok(&["set", "m", "--init", "/no/such/init"]);
    let refused = yard.garth(&["restart", "m"]);
    assert!(refused.code != 0 && refused.stderr.contains("/no/such/init"), "{refused:?}");
}
