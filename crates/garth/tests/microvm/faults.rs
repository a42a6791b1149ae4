//! Guests and programs that end as they should not.

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::yard::eventually;
use crate::{pid, project, state};

#[test]
fn a_killed_machine_is_a_stopped_project_that_starts_again_with_its_files() {
    let Some(yard) = project("a_killed_machine_is_a_stopped_project", "m") else { return };
    yard.sh("m", "echo kept > /root/f; sync");
    let handle = Pid::from_raw(pid(&yard, "m")).expect("a pid");
    let machine = pidfd_open(handle, PidfdFlags::empty()).expect("pidfd");
    pidfd_send_signal(&machine, Signal::KILL).expect("kill");
    eventually("the daemon notices", || state(&yard, "m") == "stopped");
    assert_eq!(yard.sh("m", "cat /root/f"), "kept");
}

#[test]
fn a_guest_that_panics_or_goes_off_ends_its_sandbox_alone() {
    let Some(yard) = project("a_guest_that_panics_or_goes_off_ends_its_sandbox_alone", "m") else { return };
    let mut ends = vec!["echo c > /proc/sysrq-trigger", "echo b > /proc/sysrq-trigger"];
    // Firecracker's machine has no way to go off: it stands still until it is stopped.
    ends.extend((crate::handler() != "microvm/firecracker").then_some("echo o > /proc/sysrq-trigger"));
    for end in ends {
        yard.sh("m", "echo kept > /root/f; sync");
        yard.garth(&["exec", "m", "--", "sh", "-c", end]);
        eventually("the daemon notices", || state(&yard, "m") == "stopped");
    }
    assert_eq!(yard.sh("m", "cat /root/f"), "kept");
}

#[test]
fn a_guest_goes_on_without_its_daemon() {
    let Some(yard) = project("a_guest_goes_on_without_its_daemon", "m") else { return };
    let process = yard.ok(&["exec", "-d", "m", "--", "sh", "-c", "echo begun; read x < /dev/null; sleep 424242"]);
    let machine = pid(&yard, "m");
    yard.kill_daemon();
    eventually("the next one finds it", || yard.ok(&["logs", "m", &process]) == "begun");
    assert_eq!(pid(&yard, "m"), machine);
    assert!(yard.ok(&["ps", "m"]).contains("424242"));
}

#[test]
fn what_is_no_kernel_is_refused() {
    let Some(yard) = project("what_is_no_kernel_is_refused", "m") else { return };
    let file = yard.data_dir().join("no-kernel");
    std::fs::write(&file, "#!/bin/sh\n").expect("file");
    let refused = yard.garth(&["setup", "microvm", "--kernel", &file.to_string_lossy()]);
    assert!(refused.code != 0 && refused.stderr.contains("not a kernel"), "{refused:?}");
    assert_eq!(yard.ok(&["exec", "m", "--", "echo", "up"]), "up");
}
