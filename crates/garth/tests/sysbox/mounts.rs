//! Mounts made inside, and those that the sandbox was made with.
use crate::stage::{Check, Checked, ONE, Stage, ensure, equal, fail};

pub const CHECKS: &[Check] = &[
    Check { number: 29, what: "`mount -t proc` works anywhere and shows the virtual files", by: new_proc },
    Check { number: 30, what: "`mount -t sysfs` likewise", by: new_sysfs },
    Check { number: 31, what: "with ro and hidepid=2; private, shared, slave, unbindable", by: variants },
    Check { number: 32, what: "`unshare -mpf --mount-proc`", by: unshared },
    Check { number: 33, what: "`unshare -Urmpf --mount-proc`, twice in each other (+)", by: unshared_users },
    Check { number: 34, what: "a new proc can be unmounted, /proc cannot", by: unmount_proc },
    Check { number: 35, what: "a virtual file cannot be unmounted", by: unmount_virtual },
    Check { number: 36, what: "a recursive bind of /proc keeps the virtual files", by: bind_proc },
    Check {
        number: 37,
        what: "what was given read-only stays so: remounted, in a chroot, in namespaces, after pivot_root, as a bind",
        by: read_only,
    },
    Check { number: 38, what: "likewise by open_tree, mount_setattr and move_mount (+)", by: read_only_by_new_calls },
    Check { number: 39, what: "what is writable can be made read-only", by: less },
    Check { number: 40, what: "a tmpfs over what was given, and off again", by: stacked },
    Check { number: 41, what: "a chain of binds of files, directories and devices unmounts cleanly", by: chain },
    Check {
        number: 42,
        what: "pivot_root and unmounting the old root, with and without a namespace of its own",
        by: pivot,
    },
    Check { number: 43, what: "mounting needs CAP_SYS_ADMIN, and a path that one may search", by: refused },
    Check { number: 44, what: "a user mounts and unmounts FUSE", by: fuse },
    Check {
        number: 45,
        what: "overlay with userxattr, as engines mount it: whiteout, opaque directory, rename, relative paths, many layers",
        by: overlay,
    },
    Check {
        number: 46,
        what: "opaque directories of unpacked layers: user.overlay.opaque counts, trusted.* is refused",
        by: opaque,
    },
    Check { number: 47, what: "openat2 with NO_XDEV and NO_SYMLINKS and O_PATH on nodes of /proc/sys", by: openat2 },
    Check { number: 48, what: "all namespaces at once, in each other", by: namespaces },
];

fn new_proc(stage: &Stage) -> Checked {
    let line = "mkdir -p /root/p /tmp/p; for d in /root/p /tmp/p; do mount -t proc proc $d; \
                cmp /proc/cpuinfo $d/cpuinfo; head -1 $d/meminfo; test ! -s $d/kcore; wc -c < $d/kallsyms; umount $d; done";
    equal("shown", &stage.sh(ONE, line)?, "MemTotal:         524288 kB\n0\nMemTotal:         524288 kB\n0")
}

fn new_sysfs(stage: &Stage) -> Checked {
    let line = "mkdir -p /root/s; mount -t sysfs s /root/s; cat /root/s/devices/system/cpu/online; \
                ls /root/s/class/net | grep lo; test ! -e /root/s/firmware; umount /root/s";
    equal("shown", &stage.sh(ONE, line)?, "0\nlo")?;
    let inner = "unshare -Urmn sh -ec 'mount -t sysfs s /root/s; ls /root/s/class/net'";
    equal("in another network namespace", &stage.sh(ONE, inner)?, "lo")
}

fn variants(stage: &Stage) -> Checked {
    let line = "mkdir -p /root/v; mount -t proc -o ro,hidepid=2 proc /root/v; \
                grep ' /root/v ' /proc/self/mountinfo | grep -q ' ro,'; ! (echo 1 > /root/v/sys/net/ipv4/ip_forward) 2>/dev/null; \
                for how in private shared slave unbindable; do mount --make-$how /root/v; done; umount /root/v; \
                mount -t proc -o hidepid=2 proc /root/v";
    stage.sh(ONE, line)?;
    let seen = stage.sh_as("1000", ONE, "ls -d /root/v/[0-9]* 2>/dev/null | wc -l");
    stage.sh(ONE, "chmod 755 /root")?;
    let shown = stage.sh_as("1000", ONE, "ls -d /root/v/1 2>/dev/null | wc -l")?;
    stage.sh(ONE, "umount /root/v")?;
    ensure(seen.is_ok() && shown == "0", "hidepid=2 hides nothing")
}

const FIRST: &str = "test $(cat /proc/self/stat | cut -d' ' -f1) -lt 9; head -1 /proc/meminfo";

fn unshared(stage: &Stage) -> Checked {
    let line = format!("unshare -mpf --mount-proc sh -ec '{}'", FIRST.replace('\'', "\""));
    equal("in it", &stage.sh(ONE, &line)?, "MemTotal:         524288 kB")
}

fn unshared_users(stage: &Stage) -> Checked {
    let how = "unshare -Urmpf --mount-proc";
    let line = format!("{how} {how} sh -ec '{}'", FIRST.replace('\'', "\""));
    equal("in it", &stage.sh(ONE, &line)?, "MemTotal:         524288 kB")?;
    equal("as a user", &stage.sh_as("1000", ONE, &line)?, "MemTotal:         524288 kB")
}

fn unmount_proc(stage: &Stage) -> Checked {
    let program = "os.makedirs('/root/u', exist_ok=True)\nwant(0, mount(b'proc', b'/root/u', b'proc'), umount(b'/root/u'))\n\
                   for flags in (0, 2): want(True, umount(b'/proc', flags) in ('-EBUSY', '-EINVAL', '-EPERM'))\n\
                   want(True, os.path.exists('/proc/self/stat'))";
    stage.python(ONE, program).map(|_| ())
}

fn unmount_virtual(stage: &Stage) -> Checked {
    let program = "for node in (b'/proc/meminfo', b'/proc/kallsyms', b'/sys/devices/system/cpu/online'):\n\
                   \x20   for flags in (0, 2): want('-EINVAL', umount(node, flags))\n\
                   os.makedirs('/root/u', exist_ok=True)\nwant(0, mount(b'proc', b'/root/u', b'proc'))\n\
                   want('-EINVAL', umount(b'/root/u/meminfo', 2))\nwant(0, umount(b'/root/u', 2))";
    stage.python(ONE, program)?;
    stage.refused(ONE, &["unshare -Urm umount -l /proc/meminfo", "unshare -m umount -l /proc/kallsyms"])
}

fn bind_proc(stage: &Stage) -> Checked {
    let line = "mkdir -p /root/b; mount --rbind /proc /root/b; head -1 /root/b/meminfo; wc -c < /root/b/kallsyms; umount -l /root/b; \
                ! mount --bind /proc /root/b 2>/dev/null";
    equal("shown", &stage.sh(ONE, line)?, "MemTotal:         524288 kB\n0")
}

/// Bind remounts of /sys at this place, without read-only.
const RELAX: &str = "for at in (b'/sys', b'/proc/acpi', b'/sys/class/net'):\n\
                     \x20   for more in (0, BIND): want('-EPERM', mount(None, at, None, REMOUNT | more))\n";

fn read_only(stage: &Stage) -> Checked {
    stage.python(ONE, RELAX)?;
    for how in [&["unshare", "-m"][..], &["unshare", "-Urm"], &["unshare", "-Urmpf", "--mount-proc"]] {
        stage.python_by(ONE, how, RELAX)?;
    }
    stage.python_by(ONE, &["unshare", "-m", "chroot", "/"], RELAX)?;
    let copied = "os.makedirs('/root/c', exist_ok=True)\nwant(0, mount(b'/sys', b'/root/c', None, BIND | REC))\n\
                  got = mount(None, b'/root/c', None, REMOUNT | BIND)\nstill = mount(None, b'/root/c/class/net', None, REMOUNT | BIND)\n\
                  try: open('/root/c/x', 'w'); made = True\nexcept OSError: made = False\n\
                  umount(b'/root/c', 2)\nwant('-EPERM', got, still)\nwant(False, made)";
    stage.python_by(ONE, &["unshare", "-m"], copied)?;
    let pivoted = format!(
        "{}\nmount(b'/sys', b'/root/r/sys', None, BIND | REC)\nos.chdir('/root/r')\nwant(0, call(PIVOT_ROOT, b'.', b'.'), umount(b'.', 2))\n\
                           want('-EPERM', mount(None, b'/sys', None, REMOUNT | BIND))",
        NEW_ROOT
    );
    stage.python_by(ONE, &["unshare", "-m"], &pivoted).map(|_| ())
}

/// A root of its own at /root/r.
const NEW_ROOT: &str = "os.makedirs('/root/r', exist_ok=True)\nwant(0, mount(b't', b'/root/r', b'tmpfs'))\n\
                        for d in ('old', 'proc', 'sys', 'usr'): os.mkdir('/root/r/' + d)";

fn read_only_by_new_calls(stage: &Stage) -> Checked {
    let program = "for at in (b'/sys', b'/proc/acpi', b'/sys/class/net'):\n\
                   \x20   want('-EPERM', call(MOUNT_SETATTR, -100, at, 0, attributes(clear=1), 32))\n\
                   \x20   tree = call(OPEN_TREE, -100, at, 1 | 0x8000)\n    if isinstance(tree, str): want('-EINVAL', tree); continue\n\
                   \x20   want('-EPERM', call(MOUNT_SETATTR, tree, b'', 0x1000, attributes(clear=1), 32))\n\
                   tree = call(OPEN_TREE, -100, b'/sys', 1 | 0x8000)\nos.makedirs('/root/m', exist_ok=True)\n\
                   want(0, call(MOVE_MOUNT, tree, b'', -100, b'/root/m', 4))\n\
                   got = call(MOUNT_SETATTR, -100, b'/root/m', 0, attributes(clear=1), 32)\n\
                   one = call(MOUNT_SETATTR, -100, b'/root/m/class/net', 0, attributes(clear=1), 32)\n\
                   moved = call(MOVE_MOUNT, -100, b'/sys', -100, b'/root/m', 0)\n\
                   umount(b'/root/m', 2)\nwant('-EPERM', got, one)\nwant('-EINVAL', moved)";
    for how in [&["unshare", "-m"][..], &["unshare", "-Urm"]] {
        stage.python_by(ONE, how, program)?;
    }
    // A file system of its own makes nothing but the virtual ones.
    stage.python(ONE, "want('-ENOSYS', call(FSOPEN, b'proc', 0), call(FSOPEN, b'sysfs', 0))").map(|_| ())
}

fn less(stage: &Stage) -> Checked {
    let line = "mount --bind /dev/shm /dev/shm; mount -o remount,bind,ro /dev/shm; ! (echo x > /dev/shm/x) 2>/dev/null; umount /dev/shm; \
                echo x > /dev/shm/x; unshare -m sh -ec 'mount -o remount,bind,ro /run; ! (echo x > /run/x) 2>/dev/null'; echo x > /run/x";
    stage.sh(ONE, line).map(|_| ())
}

fn stacked(stage: &Stage) -> Checked {
    let program = "for at in (b'/sys', b'/proc', b'/dev/shm', b'/run'):\n\
                   \x20   want(0, mount(b'over', at, b'tmpfs'))\n    open(at + b'/over', 'w')\n    want(0, umount(at))\n\
                   \x20   want(False, os.path.exists(at + b'/over'))\n\
                   want(True, os.path.exists('/proc/self/stat'), os.path.exists('/sys/kernel'))";
    stage.python(ONE, program).map(|_| ())
}

fn chain(stage: &Stage) -> Checked {
    let line = "mkdir -p /root/k/a /root/k/b; touch /root/k/f /root/k/g /root/k/n; echo text > /root/k/f; before=$(wc -l < /proc/self/mountinfo); \
                mount --bind /root/k/a /root/k/b; mount --bind /root/k/b /root/k/a; mount --bind /root/k/f /root/k/g; mount --bind /root/k/g /root/k/f; \
                mount --bind /dev/null /root/k/n; echo x > /root/k/n; cat /root/k/g; \
                umount /root/k/n /root/k/f /root/k/g /root/k/a /root/k/b; test $(wc -l < /proc/self/mountinfo) = $before; rm -r /root/k";
    equal("through the binds", &stage.sh(ONE, line)?, "text")
}

fn pivot(stage: &Stage) -> Checked {
    let program = format!(
        "{NEW_ROOT}\nwant(0, mount(b'/usr', b'/root/r/usr', None, BIND | REC), mount(b'proc', b'/root/r/proc', b'proc'))\n\
         os.chdir('/root/r')\nwant(0, call(PIVOT_ROOT, b'.', b'old'))\nos.chdir('/')\nwant(0, umount(b'/old', 2))\n\
         want([], os.listdir('/old'))\nwant(True, os.path.exists('/proc/self/stat'))\n\
         want(['old', 'proc', 'sys', 'usr'], sorted(os.listdir('/')))"
    );
    stage.python_by(ONE, &["unshare", "-m"], &program)?;
    stage.python_by(ONE, &["unshare", "-Urmpf"], &program)?;
    // Of all processes of the sandbox.
    stage.with_own("pivoted", |name| stage.python(name, &program).map(|_| ()))
}

fn refused(stage: &Stage) -> Checked {
    let without = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    let program = "want('-EPERM', mount(b't', b'/root', b'tmpfs'), mount(b'proc', b'/root', b'proc'), mount(b's', b'/root', b'sysfs'))";
    stage.python_by(ONE, &without, program)?;
    stage.python_by(ONE, &["setpriv", "--reuid=1000", "--clear-groups"], program)?;
    let admin = ["setpriv", "--reuid=1000", "--clear-groups", "--inh-caps=+sys_admin", "--ambient-caps=+sys_admin"];
    stage.sh(ONE, "mkdir -p /tmp/closed/x /tmp/open; chmod 700 /tmp/closed; chmod 777 /tmp/open")?;
    let program = "want('-EACCES', mount(b't', b'/tmp/closed/x', b'tmpfs'), mount(b'proc', b'/tmp/closed/x', b'proc'), mount(b's', b'/tmp/closed/x', b'sysfs'))\n\
                   want(0, mount(b'proc', b'/tmp/open', b'proc'), umount(b'/tmp/open'))";
    match stage.python_by(ONE, &admin, program) {
        Ok(_) => Ok(()),
        Err(_) => {
            fail("a new proc or sysfs may be put where a process with CAP_SYS_ADMIN, and no other, cannot search")
        }
    }
}

fn fuse(stage: &Stage) -> Checked {
    let program = "at = b'/tmp/fuse-of-1000'\nos.makedirs(at, exist_ok=True)\nfd = os.open('/dev/fuse', os.O_RDWR)\n\
                   options = f'fd={fd},rootmode=40000,user_id=0,group_id=0'.encode()\n\
                   want(0, mount(b'mine', at, b'fuse', NOSUID | NODEV, options))\n\
                   want(True, 'mine' in open('/proc/self/mounts').read())\nwant(0, umount(at))";
    let run = |user: &str, by: &[&str]| {
        let text = format!("{}\n{program}", include_str!("prelude.py"));
        let args: Vec<&str> = ["exec", "-w", "/", "-u", user, ONE, "--"]
            .into_iter()
            .chain(by.iter().copied())
            .chain(["python3", "-c", &text])
            .collect();
        let done = stage.yard.garth(&args);
        ensure(done.code == 0, format!("as {user}: {}", done.stderr.lines().last().unwrap_or_default()))
    };
    run("1000", &["unshare", "-Urm"])?;
    run("0", &[])
}

fn overlay(stage: &Stage) -> Checked {
    let line = "rm -rf /root/o; mkdir -p /root/o; cd /root/o; mkdir -p u w m l1/d l2/d l3; echo 1 > l1/a; echo 2 > l2/a; echo 3 > l2/d/x; echo 4 > l1/d/y; \
                mount -t overlay o -o userxattr,lowerdir=l1:l2:l3,upperdir=u,workdir=w m; \
                cat m/a m/d/x m/d/y; rm m/a; test ! -e m/a; test -c u/a; rm -r m/d; mkdir m/d; test -z \"$(ls m/d)\"; \
                mkdir m/e; mv m/e m/f; mv m/d m/g; echo n > m/g/n; umount m; \
                mkdir l4 l5 l6 l7 l8 l9; mount -t overlay o -o userxattr,lowerdir=l9:l8:l7:l6:l5:l4:u:l1:l2:l3 m; test ! -e m/a; cat m/g/n; umount m; cd /; rm -rf /root/o";
    equal("read", &stage.sh(ONE, line)?, "1\n3\n4\nn")
}

fn opaque(stage: &Stage) -> Checked {
    let line = "rm -rf /root/o; mkdir -p /root/o; cd /root/o; mkdir -p l1/d l2/d m; echo below > l2/d/x; echo above > l1/d/y; \
                setfattr -n user.overlay.opaque -v y l1/d; mount -t overlay o -o userxattr,lowerdir=l1:l2 m; ls m/d; umount m; \
                ! setfattr -n trusted.overlay.opaque -v y l2/d 2>/dev/null; cd /; rm -rf /root/o";
    equal("an opaque directory", &stage.sh(ONE, line)?, "y")
}

fn openat2(stage: &Stage) -> Checked {
    // NO_XDEV 1, NO_MAGICLINKS 2, NO_SYMLINKS 4, BENEATH 8; O_PATH 0x200000.
    let program = "proc = os.open('/proc', os.O_PATH)\n\
                   for node in (b'sys/kernel/cap_last_cap', b'sys/net/ipv4/ip_forward', b'self/attr/exec', b'sys/kernel/hostname'):\n\
                   \x20   for flags in (0, 0x200000):\n\
                   \x20       for resolve in (1, 5, 15) if not node.startswith(b'self') else (1, 3):\n\
                   \x20           fd = call(OPENAT2, proc, node, struct.pack('QQQ', flags, 0, resolve), 24)\n\
                   \x20           if isinstance(fd, str): sys.exit(f'{node} {flags} {resolve}: {fd}')\n            os.close(fd)";
    stage.python(ONE, program)?;
    stage.python_by(ONE, &["unshare", "-Urmpf", "--mount-proc"], program).map(|_| ())
}

fn namespaces(stage: &Stage) -> Checked {
    let all = "unshare -UrmpniuCTf";
    let line =
        format!("{all} {all} {all} --mount-proc sh -ec 'id -u; hostname deep; hostname; ls /proc/self/ns | wc -l'");
    let said = stage.sh(ONE, &line)?;
    ensure(said.starts_with("0\ndeep\n"), format!("{said:?}"))
}
