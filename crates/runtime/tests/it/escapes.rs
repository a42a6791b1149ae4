//! Each test is named for the way out that it denies.
use crate::support::{python, run, sh};
use crate::yard;

#[track_caller]
fn denied(scripts: &[&str]) {
    let yard = yard!();
    let sandbox = yard.start();
    for script in scripts {
        let reply = sh(&sandbox, script);
        assert_ne!(reply.code, 0, "{script}: {}{}", reply.out, reply.err);
    }
    sandbox.destroy().expect("destroy");
}

#[test]
fn root_cannot_mount() {
    denied(&[
        "mount -t tmpfs none /mnt",
        "mount --bind / /mnt",
        "mount -o remount,rw /proc/sys",
        "mount -t proc none /mnt",
        "umount /proc/kcore",
        "umount -l /proc/sys",
    ]);
}

#[test]
fn a_user_namespace_gives_no_capabilities() {
    denied(&[
        "unshare -Ur true",
        "unshare -Ur mount -t tmpfs none /mnt",
        "unshare -m true",
        "unshare -n true",
        "unshare -p -f true",
        "unshare -C true",
        "unshare -T true",
        "nsenter -t 1 -m true",
    ]);
}

#[test]
fn no_mount_of_the_host_is_in_reach() {
    let yard = yard!();
    let sandbox = yard.start();
    let mounts = sh(&sandbox, "cat /proc/self/mountinfo").out;
    let host = yard.dir.path().to_str().expect("utf-8");
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let (root, at) = (fields[3], fields[4]);
        let known =
            at == "/" || at == "/usr" || ["/proc", "/sys", "/dev", "/run"].iter().any(|top| at.starts_with(top));
        assert!(known, "{line}");
        // The disk's own directory shows as the root of its mount; layers of the overlay do not show.
        assert!(at == "/" || !root.contains(host) && !fields[5..].concat().contains(host), "{line}");
    }
    assert_eq!(sh(&sandbox, "ls /").out.split_whitespace().filter(|name| *name == "work").count(), 0);
    assert_ne!(sh(&sandbox, &format!("ls {host}")).code, 0);
    sandbox.destroy().expect("destroy");
}

#[test]
fn climbing_out_of_a_chroot_ends_at_the_sandboxs_root() {
    let yard = yard!();
    let sandbox = yard.start();
    let names = python(
        &sandbox,
        "import os\nos.mkdir('/tmp/jail')\nos.chroot('/tmp/jail')\nfor _ in range(64): os.chdir('..')\nos.chroot('.')\n\
         print(sorted(os.listdir('/')))",
    );
    let own = python(&sandbox, "import os\nprint(sorted(os.listdir('/')))");
    assert_eq!(names, own);
    sandbox.destroy().expect("destroy");
}

#[test]
fn the_init_gives_no_way_to_the_host() {
    denied(&[
        "ls /proc/1/root/",
        "ls /proc/1/cwd/",
        "readlink /proc/1/fd/0",
        "ls /proc/1/fd/*/",
        "cat /proc/1/fd/*",
        "ls /proc/1/map_files/",
        "readlink /proc/1/exe",
        "cat /proc/1/maps",
        "cat /proc/1/environ",
        "cp /bin/true /proc/1/exe",
    ]);
}

#[test]
fn the_init_cannot_be_traced_or_killed() {
    let yard = yard!();
    let sandbox = yard.start();
    let attach = "import ctypes\nl=ctypes.CDLL(None,use_errno=True)\nprint(l.ptrace(16,1,0,0), ctypes.get_errno())";
    assert_eq!(python(&sandbox, attach), "-1 1");
    sh(&sandbox, "kill -9 1; kill -STOP 1; kill -SEGV 1");
    assert_eq!(sh(&sandbox, "echo alive").out, "alive\n");
    sandbox.destroy().expect("destroy");
}

#[test]
fn the_init_holds_no_descriptor_of_the_host() {
    let yard = yard!();
    let sandbox = yard.start();
    let own = run(&sandbox, &["%fds"]).out;
    let mut kinds: Vec<&str> = own.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    kinds.retain(|target| !target.starts_with("socket:") && !target.starts_with("/proc/"));
    // Standard input, output and error, and the state directory, which is the root of a mount of its own.
    assert_eq!(kinds, ["/dev/null", "/dev/null", "/dev/null", "/"], "{own}");
    let sockets = own.matches("socket:").count();
    assert!(sockets <= 3, "listener, channel, this connection: {own}");
    let of_child = sh(&sandbox, "ls -l /proc/self/fd").out;
    assert!(!of_child.contains("memfd") && !of_child.contains("/state"), "{of_child}");
    sandbox.destroy().expect("destroy");
}

#[test]
fn dot_dot_of_the_state_directory_is_itself() {
    let yard = yard!();
    std::fs::write(yard.dir.path().join("state/record"), "").expect("record");
    let sandbox = yard.start();
    assert_eq!(run(&sandbox, &["%state"]).out, "record\nrecord\nrecord\n");
    sandbox.destroy().expect("destroy");
}

#[test]
fn host_facts_in_proc_are_covered() {
    let yard = yard!();
    let sandbox = yard.start();
    for node in ["kcore", "kmsg", "kallsyms", "keys", "cmdline", "timer_list", "kpageflags", "slabinfo", "partitions"] {
        let reply = sh(&sandbox, &format!("head -c 1 /proc/{node} 2>/dev/null | wc -c"));
        assert_eq!(reply.out.trim(), "0", "{node}");
    }
    for dir in ["bus", "acpi", "driver", "fs", "tty/driver", "scsi"] {
        assert_eq!(sh(&sandbox, &format!("ls -A /proc/{dir} 2>/dev/null")).out, "", "{dir}");
    }
    sandbox.destroy().expect("destroy");
}

#[test]
fn switches_of_the_host_cannot_be_written() {
    denied(&[
        "echo h > /proc/sysrq-trigger",
        "v=$(cat /proc/sys/kernel/panic) && echo $v > /proc/sys/kernel/panic",
        "echo '|/tmp/x' > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo 3 > /proc/sys/vm/drop_caches",
        "echo f > /proc/irq/default_smp_affinity",
        "echo 'some 150000 1000000' > /proc/pressure/memory",
        "echo always > /sys/kernel/mm/transparent_hugepage/enabled",
        "echo 0 > /sys/devices/system/cpu/cpu1/online",
    ]);
}

#[test]
fn sys_shows_nothing_but_what_is_listed() {
    let yard = yard!();
    let sandbox = yard.start();
    let list = |dir: &str| sh(&sandbox, &format!("ls {dir}")).out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert_eq!(list("/sys"), "class devices fs kernel");
    assert_eq!(list("/sys/kernel"), "mm");
    assert_eq!(list("/sys/class"), "net");
    assert_eq!(list("/sys/devices/virtual"), "net");
    assert_eq!(list("/sys/class/net"), "lo");
    assert_eq!(list("/sys/devices/virtual/net"), "lo");
    assert_ne!(list("/sys/devices/system/cpu"), "");
    assert_eq!(sh(&sandbox, "cat /sys/class/net/lo/mtu").out, "65536\n");
    sandbox.destroy().expect("destroy");
}

#[test]
fn cgroup_limits_cannot_be_raised_from_inside() {
    let yard = yard!();
    let sandbox = yard.start();
    let writable = sh(
        &sandbox,
        "find /sys/fs/cgroup -type f -writable; mkdir /sys/fs/cgroup/x /sys/fs/cgroup/*/x 2>/dev/null; ls -d /sys/fs/cgroup/x /sys/fs/cgroup/*/x 2>/dev/null",
    );
    assert_eq!(writable.out, "");
    let own = sh(&sandbox, "cat /proc/self/cgroup").out;
    assert!(own.lines().all(|line| line.ends_with(":/")), "{own}");
    sandbox.destroy().expect("destroy");
}

#[test]
fn devices_cannot_be_made_or_used() {
    let yard = yard!();
    // A node that came with an image, say, of this machine's kernel memory (1:1) and of a disk.
    let disk = yard.disk();
    for (name, kind, major, minor) in [("mem", "c", "1", "1"), ("null", "c", "1", "3")] {
        let status = std::process::Command::new("mknod").arg(disk.join(name)).args([kind, major, minor]).status();
        assert!(status.expect("mknod").success());
    }
    let sandbox = yard.start();
    for script in
        ["mknod /tmp/sda b 8 0", "mknod /dev/mem c 1 1", "head -c 1 /mem", "head -c 1 /null", "head -c 1 /dev/mem"]
    {
        assert_ne!(sh(&sandbox, script).code, 0, "{script}");
    }
    assert_eq!(
        sh(&sandbox, "ls /dev").out.split_whitespace().collect::<Vec<_>>().join(" "),
        "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    );
    assert_eq!(
        sh(&sandbox, "head -c 3 /dev/zero | od -An -tx1; echo x > /dev/null; mkfifo /tmp/f && echo ok").out,
        " 00 00 00\nok\n"
    );
    sandbox.destroy().expect("destroy");
}

#[test]
fn namespaces_are_not_the_hosts_nor_a_neighbours() {
    let yard = yard!();
    let mut other = yard.plan();
    other.usr = other.usr.map(|mut usr| {
        (usr.upper, usr.work) = (yard.dir.path().join("upper2"), yard.dir.path().join("work2"));
        usr
    });
    for dir in ["upper2", "work2"] {
        std::fs::create_dir(yard.dir.path().join(dir)).expect("dir");
    }
    let (one, two) = (yard.start(), yard.start_with(&other));
    for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
        let script = format!("readlink /proc/self/ns/{kind}");
        let (one, two) = (sh(&one, &script).out, sh(&two, &script).out);
        let host = std::fs::read_link(format!("/proc/self/ns/{kind}")).expect("own namespace");
        assert!(one.trim() != host.to_string_lossy() && one != two && !one.is_empty(), "{kind}");
    }
    assert_eq!(sh(&one, "cat /proc/sys/kernel/hostname").out, "yard\n");
    assert_eq!(sh(&one, "ls -d /proc/[0-9]* | wc -l").out.trim().parse::<usize>().map(|count| count < 6), Ok(true));
    one.destroy().expect("destroy");
    two.destroy().expect("destroy");
}

#[test]
fn capabilities_end_at_the_bounding_set() {
    let yard = yard!();
    let sandbox = yard.start();
    let status = sh(&sandbox, "grep ^Cap /proc/self/status").out;
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE SYS_CHROOT SETFCAP.
    let kept = "00000000800405fb";
    for (name, set) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", kept),
        ("CapEff", kept),
        ("CapBnd", kept),
        ("CapAmb", "0000000000000000"),
    ] {
        assert!(status.contains(&format!("{name}:\t{set}")), "{status}");
    }
    assert_eq!(sh(&sandbox, "grep Seccomp: /proc/self/status").out, "Seccomp:\t2\n");
    sandbox.destroy().expect("destroy");
}

#[test]
fn a_crash_starts_no_handler_on_the_host() {
    let yard = yard!();
    let sandbox = yard.start();
    let script = "import resource as r\nr.setrlimit(r.RLIMIT_CORE,(0,0))\nprint(r.getrlimit(r.RLIMIT_CORE))";
    assert_eq!(python(&sandbox, script), "(1, 1)");
    assert_eq!(sh(&sandbox, "ulimit -c 0; ulimit -H -c unlimited; ulimit -S -n 64 && ulimit -n").out, "64\n");
    sandbox.destroy().expect("destroy");
}

#[test]
fn ping_needs_no_raw_socket() {
    let yard = yard!();
    let sandbox = yard.start();
    let script = "import socket as s\ns.socket(s.AF_INET,s.SOCK_DGRAM,s.IPPROTO_ICMP)\nb=s.socket()\nb.bind(('127.0.0.1',80))\n\
                  try: s.socket(s.AF_INET,s.SOCK_RAW,s.IPPROTO_ICMP)\nexcept PermissionError: print('refused')";
    assert_eq!(python(&sandbox, script), "refused");
    sandbox.destroy().expect("destroy");
}
