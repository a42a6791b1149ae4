//! Capabilities, system calls, mounts, devices: what root inside must not be able to do.

use crate::yard::Yard;

fn yard() -> Yard {
    let yard = Yard::new();
    yard.ok(&["create", "evil", "--network", "none"]);
    yard
}

#[track_caller]
fn denied(yard: &Yard, attacks: &[&str]) {
    for attack in attacks {
        let done = yard.garth(&["exec", "evil", "--", "sh", "-c", attack]);
        assert_ne!(done.code, 0, "{attack}: {done:?}");
    }
    assert_eq!(yard.sh("evil", "echo alive"), "alive");
}

/// Runs a Python line that prints the errno name of a system call made directly, or OK.
fn syscall(yard: &Yard, line: &str) -> String {
    let program = format!(
        "import ctypes, errno, os, socket\nlibc = ctypes.CDLL(None, use_errno=True)\n\
         def call(*a):\n    r = libc.syscall(*a)\n    print('OK' if r >= 0 else errno.errorcode[ctypes.get_errno()])\n{line}"
    );
    yard.ok(&["exec", "evil", "--", "python3", "-c", &program])
}

#[test]
fn capabilities_are_no_more_than_dockers() {
    let yard = yard();
    let status = yard.sh("evil", "grep -E '^Cap(Prm|Eff|Bnd|Amb|Inh)' /proc/self/status");
    // CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND_SERVICE NET_RAW SYS_CHROOT MKNOD AUDIT_WRITE SETFCAP
    const DOCKER: u64 = 0xa804_25fb;
    for line in status.lines() {
        let set = u64::from_str_radix(line.split_whitespace().nth(1).expect("a set"), 16).expect("hex");
        assert_eq!(set & !DOCKER, 0, "{line}");
    }
}

#[test]
fn guest_cannot_mount_or_remount() {
    denied(
        &yard(),
        &[
            "mkdir -p /root/m && mount -t tmpfs t /root/m",
            "mkdir -p /root/m && mount --bind / /root/m",
            "mount -o remount,rw /proc/sys",
            "umount /proc/sys",
            "umount -l /proc/kcore",
            "mkdir -p /root/m && mount -t proc p /root/m",
            "mkdir -p /root/m && unshare -m mount -t tmpfs t /root/m",
        ],
    );
}

#[test]
fn guest_cannot_gain_capabilities_in_a_user_namespace() {
    denied(
        &yard(),
        &[
            "unshare -U true",
            "unshare -Ur true",
            "mkdir -p /root/m && unshare -Urm mount -t tmpfs t /root/m",
            "unshare -Urn true",
        ],
    );
}

#[test]
fn guest_cannot_make_or_use_device_nodes() {
    denied(
        &yard(),
        &[
            "mknod /root/s b 8 0",
            "mknod /root/k c 1 1",
            "mknod /dev/k c 1 1 && head -c 1 /dev/k",
            "head -c 1 /dev/mem",
            "head -c 1 /dev/vda",
            "head -c 1 /dev/kvm",
            "test -e /dev/loop-control",
        ],
    );
}

#[test]
fn guest_cannot_write_kernel_settings() {
    denied(
        &yard(),
        &[
            "echo h > /proc/sysrq-trigger",
            "v=$(cat /proc/sys/kernel/panic) && echo $v > /proc/sys/kernel/panic",
            "echo '|/bin/true' > /proc/sys/kernel/core_pattern",
            "echo 1 > /proc/sys/vm/drop_caches",
            "echo x > /proc/sys/kernel/hostname",
            "echo /root/x > /sys/kernel/uevent_helper",
            "test -w /sys/fs/cgroup/memory.max && echo max > /sys/fs/cgroup/memory.max || exit 1",
            "find /sys -writable -type f 2>/dev/null | while read f; do (echo 0 > \"$f\") 2>/dev/null && exit 0; done; exit 1",
        ],
    );
}

#[test]
fn guest_cannot_load_code_into_the_kernel() {
    denied(&yard(), &["modprobe dummy", "dmesg", "echo 1 > /proc/sys/kernel/modules_disabled"]);
    let yard = yard();
    // x86-64 numbers: bpf, perf_event_open, init_module, finit_module, kexec_load, userfaultfd, io_uring_setup,
    // open_by_handle_at, add_key, keyctl, request_key, unshare(NEWUSER), setns, pivot_root, fsopen, open_tree, move_mount, mount_setattr
    for call in [
        "321, 0, 0, 0",
        "298, 0, 0, -1, -1, 0",
        "175, 0, 0, 0",
        "313, 0, 0, 0",
        "246, 0, 0, 0, 0",
        "323, 0",
        "425, 1, 0",
        "304, 0, 0, 0",
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
    ] {
        let answer = syscall(&yard, &format!("call({call})"));
        assert!(answer == "EPERM" || answer == "ENOSYS", "syscall({call}): {answer}");
    }
}

#[test]
fn guest_cannot_clone_into_new_namespaces() {
    let yard = yard();
    // clone(CLONE_NEWUSER | SIGCHLD), and clone3, whose flags no filter can see.
    assert_eq!(syscall(&yard, "call(56, 0x10000000 | 17, 0, 0, 0, 0)"), "EPERM");
    assert_eq!(syscall(&yard, "call(435, 0, 0)"), "ENOSYS");
}

#[test]
fn guest_cannot_push_characters_into_a_terminal() {
    let yard = yard();
    assert_eq!(syscall(&yard, "m, s = os.openpty()\ncall(16, s, 0x5412, ctypes.c_char_p(b'x'))"), "EPERM");
    // The upper half of the request is ignored by the kernel and so must not fool the filter (CVE-2019-10063).
    assert_eq!(
        syscall(&yard, "m, s = os.openpty()\ncall(16, s, ctypes.c_ulong(0x100005412), ctypes.c_char_p(b'x'))"),
        "EPERM"
    );
}

#[test]
fn guest_cannot_open_exotic_sockets() {
    let yard = yard();
    for family in ["AF_ALG", "AF_VSOCK", "AF_PACKET", "AF_BLUETOOTH"] {
        let line = format!(
            "try:\n    socket.socket(getattr(socket, '{family}'), socket.SOCK_RAW if '{family}' == 'AF_PACKET' else socket.SOCK_STREAM, 0)\n    print('OK')\nexcept OSError as e:\n    print(errno.errorcode[e.errno])"
        );
        let answer = syscall(&yard, &line);
        assert_ne!(answer, "OK", "{family}");
    }
}

#[test]
fn guest_cannot_reach_its_init_or_the_agents_files() {
    denied(
        &yard(),
        &[
            "readlink /proc/1/fd/3",
            "for f in /proc/1/fd/*; do stat -L $f && exit 0; done 2>/dev/null; exit 1",
            "cat /proc/1/environ",
            "head -c 1 /proc/1/mem",
            "ls /proc/1/root/",
            "ls /proc/1/cwd/",
            "cp /bin/true /proc/1/exe",
            "python3 -c 'import os; os.open(\"/proc/1/exe\", os.O_RDWR)'",
            "cat /proc/1/maps | grep .",
        ],
    );
}

#[test]
fn guest_cannot_break_out_of_its_root() {
    let yard = yard();
    // The classic: chroot below an open directory, then walk up.
    let program = "import os\nos.makedirs('/root/jail', exist_ok=True)\nd = os.open('/', os.O_RDONLY)\nos.chroot('/root/jail')\nos.fchdir(d)\n\
                   [os.chdir('..') for _ in range(64)]\nos.chroot('.')\nprint(os.path.exists('/work') and os.path.exists('/var/tmp/garth-marker'))";
    let marker = std::path::Path::new("/var/tmp/garth-marker");
    std::fs::write(marker, "x").expect("marker");
    let seen = yard.ok(&["exec", "evil", "--", "python3", "-c", program]);
    std::fs::remove_file(marker).expect("marker");
    assert_eq!(seen, "False");
}

#[test]
fn guest_sees_no_descriptor_of_the_host() {
    let yard = yard();
    let open = yard.sh("evil", "for f in /proc/self/fd/*; do readlink $f; done; true");
    for target in open.lines() {
        assert!(
            target.starts_with("pipe:") || target.starts_with("/dev/null") || target.starts_with("/proc/"),
            "{open}"
        );
    }
}

#[test]
fn set_user_id_programs_gain_nothing_with_no_new_privs() {
    let yard = Yard::new();
    yard.ok(&["create", "evil", "--network", "none", "--no-new-privs"]);
    yard.sh("evil", "cp $(which id) /root/id && chmod 4755 /root/id && chmod 755 /root");
    assert_ne!(yard.ok(&["exec", "-u", "1000", "evil", "--", "/root/id", "-u"]), "0");
    assert_eq!(yard.sh("evil", "grep NoNewPrivs /proc/self/status | cut -f2"), "1");
}

#[test]
fn a_crash_dumps_no_core_on_the_host() {
    let yard = yard();
    assert_eq!(yard.sh("evil", "ulimit -c; ulimit -Hc"), "0\n0");
}

#[test]
fn guest_cannot_raise_its_own_limits() {
    denied(
        &yard(),
        &[
            "mkdir /sys/fs/cgroup/x",
            "mkdir /sys/fs/cgroup/memory/x",
            "for f in $(find /sys/fs/cgroup -name 'memory*limit*' -o -name memory.max -o -name pids.max); do echo 99999999999 > $f && exit 0; done 2>/dev/null; exit 1",
            "ulimit -Hc unlimited; grep -q 'Max core file size *unlimited' /proc/self/limits",
            "ulimit -Sc unlimited; grep -q 'Max core file size *unlimited' /proc/self/limits",
        ],
    );
}
