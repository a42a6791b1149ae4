//! Capabilities, mounts, users, the init: what root inside must not be able to do to the host.

use crate::host;
use crate::level::{BOX, Level, SECRET, Sandbox};
use crate::yard::eventually;

levels! {
    every:
        capabilities_are_no_more_than_the_levels,
        guest_cannot_mount_on_the_host,
        guest_gains_nothing_on_the_host_by_a_user_namespace,
        guest_cannot_look_into_the_daemons_agent,
        guest_cannot_break_out_of_its_root,
        guest_sees_no_descriptor_of_the_host,
        set_user_id_programs_gain_nothing_with_no_new_privs,
        a_crash_dumps_no_core_on_the_host,
        guest_cannot_raise_its_own_limits;
    shared_kernel:
        guest_cannot_uncover_what_is_hidden;
}

fn capabilities_are_no_more_than_the_levels(sandbox: &Sandbox) {
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP
    const DOCKER: u64 = 0xa804_25fb;
    let pid = sandbox.pid();
    match sandbox.level {
        Level::Default => {
            let status = sandbox.sh("grep -E '^Cap(Prm|Eff|Bnd|Amb|Inh)' /proc/self/status");
            assert_eq!(status.lines().count(), 5);
            for line in status.lines() {
                let set = u64::from_str_radix(line.split_whitespace().nth(1).expect("a set"), 16).expect("hex");
                assert_eq!(set & !DOCKER, 0, "{line}");
            }
        }
        // All of them, over namespaces of its own users.
        Level::Sysbox => {
            let users = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/user")).expect("a namespace");
            assert_ne!(users(&pid.to_string()), users("self"));
            assert!(host::is_nobody(pid), "{:?}", host::status(pid, "Uid"));
        }
        // All of them in the guest; what runs it has none.
        Level::Microvm => {
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(host::status(pid, set), ["0000000000000000"], "{set}");
            }
        }
    }
}

fn guest_cannot_mount_on_the_host(sandbox: &Sandbox) {
    sandbox.sh("mkdir -p /root/m");
    for mount in [
        "mount -t tmpfs garth-mark /root/m",
        "mount --bind /tmp /root/m",
        "mount --rbind / /root/m",
        "mount -t proc p /root/m",
        "unshare -m mount -t tmpfs garth-mark /root/m",
    ] {
        let done = sandbox.exec(&["sh", "-c", mount]);
        assert!(!host::has_mount("garth-mark") && !host::has_mount(" /root/m "), "{mount}: it is on the host");
        assert_eq!(done.code == 0, sandbox.level != Level::Default, "{mount}: {done:?}");
        sandbox.sh("umount -l /root/m 2>/dev/null || true");
    }
}

/// Also not as root of a namespace further in. In a machine nothing is hidden: what there is, is the guest's.
fn guest_cannot_uncover_what_is_hidden(sandbox: &Sandbox) {
    let mut ways = vec!["umount -l /proc/kcore", "umount /proc/kallsyms", "mount -o remount,bind,rw /sys"];
    ways.extend(["unshare -m umount -l /proc/kallsyms", "unshare -Urm umount -l /proc/kcore"]);
    ways.extend(["unshare -Urm mount -o remount,bind,rw /sys", "mount -o remount,rw /sys"]);
    if sandbox.level == Level::Default {
        ways.extend(["mount -o remount,rw /proc/sys", "umount /proc/sys"]);
    }
    sandbox.denies(&ways);
}

fn guest_gains_nothing_on_the_host_by_a_user_namespace(sandbox: &Sandbox) {
    let ways =
        ["unshare -U true", "unshare -Ur true", "unshare -Urm mount -t tmpfs garth-mark /tmp", "unshare -Urn true"];
    if sandbox.level == Level::Default {
        return sandbox.denies(&ways);
    }
    for way in ways {
        assert!(sandbox.succeeds(way), "{way}");
    }
    assert!(!host::has_mount("garth-mark"));
    let seconds = sandbox.own_number(271_828);
    let process = sandbox.yard.ok(&["exec", "-d", BOX, "--", "unshare", "-Ur", "sleep", &seconds]);
    eventually("it runs inside", || sandbox.succeeds(&format!("pgrep -fx 'sleep {seconds}'")));
    match (sandbox.level, host::process(&["sleep", &seconds])) {
        (Level::Sysbox, Some(pid)) => assert!(host::is_nobody(pid), "{:?}", host::status(pid, "Uid")),
        (Level::Sysbox, None) => panic!("the host does not see it"),
        (_, found) => assert_eq!(found, None, "the host sees a process of a guest"),
    }
    sandbox.yard.ok(&["kill", BOX, &process]);
}

fn guest_cannot_look_into_the_daemons_agent(sandbox: &Sandbox) {
    if sandbox.level == Level::Microvm {
        // Root of its own kernel sees its init, and by that nothing of the host.
        let seen = sandbox
            .sh("tr '\\0' '\\n' < /proc/1/environ; ls -l /proc/1/fd /proc/1/root/ /proc/1/cwd/; cat /proc/1/maps");
        let data = sandbox.yard.data_dir().to_string_lossy().into_owned();
        for word in [SECRET, data.as_str(), "garth-test."] {
            assert!(!seen.contains(word), "{word}: {seen}");
        }
        return;
    }
    sandbox.denies(&[
        "readlink /proc/1/fd/3",
        "for f in /proc/1/fd/*; do stat -L $f && exit 0; done 2>/dev/null; exit 1",
        "cat /proc/1/environ",
        "head -c 1 /proc/1/mem",
        "ls /proc/1/root/",
        "ls /proc/1/cwd/",
        "cp /bin/true /proc/1/exe",
        "python3 -c 'import os; os.open(\"/proc/1/exe\", os.O_RDWR)'",
        "cat /proc/1/maps | grep .",
    ]);
}

fn guest_cannot_break_out_of_its_root(sandbox: &Sandbox) {
    // The classic: chroot below an open directory, then walk up.
    let program = "import os\nos.makedirs('/root/jail', exist_ok=True)\nd = os.open('/', os.O_RDONLY)\nos.chroot('/root/jail')\nos.fchdir(d)\n\
                   [os.chdir('..') for _ in range(64)]\nos.chroot('.')\nprint(os.path.exists('/usr/bin'), os.path.exists('PATH'))";
    let marker = tempfile::Builder::new().prefix("garth-marker.").tempfile_in("/var/tmp").expect("marker");
    let seen = sandbox.python(&program.replace("PATH", &marker.path().to_string_lossy()));
    assert_eq!(seen, "True False");
}

fn guest_sees_no_descriptor_of_the_host(sandbox: &Sandbox) {
    let open = sandbox.sh("for f in /proc/self/fd/*; do readlink $f; done; true");
    for target in open.lines() {
        assert!(
            target.starts_with("pipe:") || target.starts_with("/dev/null") || target.starts_with("/proc/"),
            "{open}"
        );
    }
}

fn set_user_id_programs_gain_nothing_with_no_new_privs(sandbox: &Sandbox) {
    let yard = &sandbox.yard;
    let runtime = sandbox.level.runtime();
    yard.ok(&["create", "nnp", "--runtime", runtime, "--memory", "256MiB", "--network", "none", "--no-new-privs"]);
    yard.sh("nnp", "cp $(which id) /root/id && chmod 4755 /root/id && chmod 755 /root");
    let user = yard.ok(&["exec", "-w", "/", "-u", "1000", "nnp", "--", "/root/id", "-u"]);
    let bit = yard.sh("nnp", "grep NoNewPrivs /proc/self/status | cut -f2");
    yard.ok(&["rm", "-f", "nnp"]);
    assert_eq!((user.as_str(), bit.as_str()), ("1000", "1"));
}

fn a_crash_dumps_no_core_on_the_host(sandbox: &Sandbox) {
    if sandbox.level != Level::Microvm {
        assert_eq!(sandbox.sh("ulimit -c; ulimit -Hc"), "0\n0");
        return sandbox.denies(&[
            "ulimit -Hc unlimited; grep -q 'Max core file size *unlimited' /proc/self/limits",
            "ulimit -Sc unlimited; grep -q 'Max core file size *unlimited' /proc/self/limits",
        ]);
    }
    // The guest's kernel runs the guest's handler, as a process of the guest.
    let mark = std::path::Path::new("/var/tmp/garth-handler-ran");
    let handler = format!(
        "printf '#!/bin/sh\\ntouch {}\\n' > /root/handler; chmod +x /root/handler; echo '|/root/handler' > /proc/sys/kernel/core_pattern",
        mark.display()
    );
    sandbox.sh(&handler);
    assert_eq!(sandbox.exec(&["sh", "-c", "kill -SEGV $$"]).code, 139);
    eventually("the guest's handler ran", || sandbox.succeeds(&format!("test -e {}", mark.display())));
    assert!(!mark.exists(), "the handler ran on the host");
}

fn guest_cannot_raise_its_own_limits(sandbox: &Sandbox) {
    let raise = "for f in $(find /sys/fs/cgroup -name 'memory*limit*' -o -name memory.max -o -name pids.max -o -name cpu.max); do echo 99999999999 > $f && exit 0; done 2>/dev/null; exit 1";
    let pid = sandbox.pid();
    let before = host::limits(pid);
    assert!(!before.is_empty(), "its cgroups have no limits");
    if sandbox.level == Level::Default {
        sandbox.denies(&["mkdir /sys/fs/cgroup/x", "mkdir /sys/fs/cgroup/memory/x", raise]);
    }
    sandbox.exec(&[
        "sh",
        "-c",
        &format!("mkdir /sys/fs/cgroup/garth-x; echo $$ > /sys/fs/cgroup/garth-x/cgroup.procs; {raise}"),
    ]);
    assert_eq!(host::limits(pid), before);
}
