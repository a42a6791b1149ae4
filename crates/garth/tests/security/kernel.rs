//! System calls, devices and settings: ways into the kernel that the host runs on. In a machine there is another kernel,
//! which its root may do with as it likes; there the host must stay as it is.

use std::fs::File;

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::host;
use crate::level::{BOX, Level, Sandbox};

levels! {
    every:
        guest_cannot_change_the_hosts_settings,
        guest_cannot_reach_the_hosts_devices,
        guest_cannot_load_code_into_the_hosts_kernel,
        guest_cannot_push_characters_into_the_users_terminal,
        guest_cannot_open_exotic_sockets;
    shared_kernel:
        guest_cannot_write_below_sys,
        risky_system_calls_are_refused,
        new_namespaces_are_as_the_level_has_them;
}

/// Runs a Python line that prints the errno name of a system call made directly, or OK.
fn syscall(sandbox: &Sandbox, line: &str) -> String {
    sandbox.python(&format!(
        "import ctypes, errno, os, socket\nlibc = ctypes.CDLL(None, use_errno=True)\n\
         def call(*a):\n    r = libc.syscall(*a)\n    print('OK' if r >= 0 else errno.errorcode[ctypes.get_errno()])\n{line}"
    ))
}

fn guest_cannot_change_the_hosts_settings(sandbox: &Sandbox) {
    let settings = [
        ("/proc/sys/kernel/panic", "77"),
        ("/proc/sys/kernel/core_pattern", "|/bin/true"),
        ("/proc/sys/kernel/hostname", "owned"),
        ("/proc/sys/vm/overcommit_memory", "1"),
        ("/proc/sys/vm/drop_caches", "1"),
        ("/proc/sys/fs/pipe-max-size", "8192"),
        ("/proc/sys/kernel/modules_disabled", "1"),
        ("/sys/kernel/uevent_helper", "/root/x"),
        ("/proc/sysrq-trigger", "h"),
    ];
    let shown: Vec<&str> = settings.iter().map(|(path, _)| *path).filter(|path| !path.contains("sysrq")).collect();
    host::unchanged(&shown, || {
        for (path, value) in settings {
            let done = sandbox.exec(&["sh", "-c", &format!("echo '{value}' > {path}")]);
            let may = sandbox.level == Level::Microvm && path != "/sys/kernel/uevent_helper";
            assert_eq!(done.code == 0, may, "{path}: {done:?}");
        }
    });
}

/// In a machine, /sys shows what the machine has.
fn guest_cannot_write_below_sys(sandbox: &Sandbox) {
    sandbox.denies(&[
        "find /sys -path /sys/fs/cgroup -prune -o -writable -type f -print 2>/dev/null | while read f; do (echo 0 > \"$f\") 2>/dev/null && exit 0; done; exit 1",
    ]);
}

fn guest_cannot_reach_the_hosts_devices(sandbox: &Sandbox) {
    if sandbox.level == Level::Microvm {
        // Its own disks and no other, and no way to run machines in it.
        let disks = sandbox.sh("for disk in /sys/block/vd*; do echo $(cat $disk/serial); done; ls -d /sys/block/[!lzrv]* /sys/bus/pci/devices/* 2>/dev/null | wc -l");
        let mut disks: Vec<&str> = disks.split_whitespace().collect();
        disks.sort_unstable();
        assert_eq!(disks, ["0", "root", "usr"]);
        return sandbox.denies(&["head -c 1 /dev/kvm", "head -c 1 /dev/vhost-vsock", "head -c 1 /dev/sda"]);
    }
    sandbox.denies(&[
        "mknod /root/s b 8 0",
        "mknod /root/k c 1 1",
        "mknod /dev/k c 1 1 && head -c 1 /dev/k",
        "unshare -Urm mknod /root/k c 1 1",
        "head -c 1 /dev/mem",
        "head -c 1 /dev/vda",
        "head -c 1 /dev/kvm",
        "test -e /dev/loop-control",
    ]);
}

fn guest_cannot_load_code_into_the_hosts_kernel(sandbox: &Sandbox) {
    let ways = [
        "modprobe dummy || exit 1",
        "python3 -c 'import ctypes,sys; sys.exit(ctypes.CDLL(None).syscall(313, 0, b\"\", 0) != 0)'",
        "python3 -c 'import ctypes,sys; sys.exit(ctypes.CDLL(None).syscall(246, 0, 0, 0, 0) != 0)'",
        "dmesg",
    ];
    host::unchanged(
        &["/sys/kernel/kexec_loaded", "/proc/sys/kernel/modules_disabled", "/proc/sys/kernel/tainted"],
        || {
            if sandbox.level != Level::Microvm {
                return sandbox.denies(&ways);
            }
            for way in ways {
                sandbox.exec(&["sh", "-c", way]);
            }
            // What it reads is its own kernel's.
            let log = sandbox.sh("dmesg | grep -m1 'Linux version'");
            assert!(!log.contains(&host::text("/proc/sys/kernel/osrelease")), "{log}");
        },
    );
}

/// x86-64 numbers: bpf, perf_event_open, init_module, finit_module, kexec_load, userfaultfd, io_uring_setup,
/// open_by_handle_at, swapon, settimeofday.
const REFUSED: [&str; 10] = [
    "321, 0, 0, 0",
    "298, 0, 0, -1, -1, 0",
    "175, 0, 0, 0",
    "313, 0, 0, 0",
    "246, 0, 0, 0, 0",
    "323, 0",
    "425, 1, 0",
    "304, 0, 0, 0",
    "167, b'/dev/zero', 0",
    "164, 0, 0",
];

/// add_key, keyctl, request_key, unshare(NEWUSER), setns, pivot_root, fsopen, open_tree, move_mount, mount_setattr: over
/// namespaces of its own users, `sysbox` has them.
const OWN: [&str; 10] = [
    "248, 0, 0, 0, 0, 0",
    "250, 0, 0, 0, 0, 0",
    "249, 0, 0, 0, 0",
    "272, 0x10000000",
    "308, 0, 0",
    "155, 0, 0",
    "430, b'tmpfs', 0",
    "428, -100, b'/', 1",
    "429, -100, b'/', -100, b'/', 0",
    "442, -100, b'/', 0, 0, 0",
];

fn risky_system_calls_are_refused(sandbox: &Sandbox) {
    let own = if sandbox.level == Level::Default { &OWN[..] } else { &[] };
    for call in REFUSED.iter().chain(own) {
        let answer = syscall(sandbox, &format!("call({call})"));
        assert!(answer == "EPERM" || answer == "ENOSYS", "syscall({call}): {answer}");
    }
}

fn new_namespaces_are_as_the_level_has_them(sandbox: &Sandbox) {
    // clone(CLONE_NEWUSER | SIGCHLD), and clone3, whose flags no filter can see.
    let (clone, clone3) =
        (syscall(sandbox, "call(56, 0x10000000 | 17, 0, 0, 0, 0)"), syscall(sandbox, "call(435, 0, 0)"));
    match sandbox.level {
        Level::Default => assert_eq!((clone.as_str(), clone3.as_str()), ("EPERM", "ENOSYS")),
        _ => assert_eq!((clone.lines().last(), clone3.as_str()), (Some("OK"), "EINVAL")),
    }
}

fn guest_cannot_push_characters_into_the_users_terminal(sandbox: &Sandbox) {
    if sandbox.level != Level::Microvm {
        assert_eq!(syscall(sandbox, "m, s = os.openpty()\ncall(16, s, 0x5412, ctypes.c_char_p(b'x'))"), "EPERM");
        // The upper half of the request is ignored by the kernel and so must not fool the filter (CVE-2019-10063).
        let high = "m, s = os.openpty()\ncall(16, s, ctypes.c_ulong(0x100005412), ctypes.c_char_p(b'x'))";
        assert_eq!(syscall(sandbox, high), "EPERM");
    }
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
    let master = openpt(flags).expect("a terminal");
    grantpt(&master).expect("grant");
    unlockpt(&master).expect("unlock");
    let line = File::from(ioctl_tiocgptpeer(&master, flags).expect("its other end"));
    let push = "import fcntl, termios\nfor c in b'touch /var/tmp/owned\\n':\n    try: fcntl.ioctl(0, termios.TIOCSTI, bytes([c]))\n    except OSError: pass";
    let mut command = sandbox.yard.command(&["exec", "-t", BOX, "--", "python3", "-c", push]);
    let ends = || line.try_clone().expect("dup");
    let done = command.stdin(ends()).stdout(ends()).stderr(ends()).status().expect("garth");
    assert!(done.success());
    assert_eq!(rustix::io::ioctl_fionread(&line).expect("bytes to be read"), 0, "somebody typed");
}

fn guest_cannot_open_exotic_sockets(sandbox: &Sandbox) {
    let (raw, stream) = ("SOCK_RAW", "SOCK_STREAM");
    let wanted: &[(&str, &str)] = match sandbox.level {
        Level::Default => &[("AF_ALG", stream), ("AF_VSOCK", stream), ("AF_BLUETOOTH", stream), ("AF_PACKET", raw)],
        // Packets of its own network.
        Level::Sysbox => &[("AF_ALG", stream), ("AF_VSOCK", stream), ("AF_BLUETOOTH", stream)],
        Level::Microvm => &[],
    };
    for (family, kind) in wanted {
        let line = format!(
            "try:\n    socket.socket(socket.{family}, socket.{kind}, 0)\n    print('OK')\nexcept OSError as e:\n    print(errno.errorcode[e.errno])"
        );
        assert_ne!(syscall(sandbox, &line), "OK", "{family}");
    }
    // The host behind any virtual machine.
    assert!(
        !sandbox.succeeds("python3 -c 'import socket; socket.socket(socket.AF_VSOCK).connect((2, 1024))' 2>/dev/null")
    );
}
