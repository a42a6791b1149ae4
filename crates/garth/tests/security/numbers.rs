//! What only a stronger level can pass. Each check is made at every level, and must fail where the level is not said to
//! pass it: when `default` begins to pass one, that is to be written down, here and in SECURITY.md.

use std::sync::Mutex;
use std::thread;

use crate::host;
use crate::level::{BOX, Level, MEMORY, Sandbox};
use crate::yard::{eventually, skip};

levels! {
    every: what_is_the_sandboxs_own_is_as_the_table_says;
}

struct Check {
    what: &'static str,
    passes: &'static [Level],
    by: fn(&Sandbox) -> bool,
}

const FROM_SYSBOX: &[Level] = &[Level::Sysbox, Level::Microvm];
const MICROVM: &[Level] = &[Level::Microvm];

const CHECKS: &[Check] = &[
    Check { what: "its root is not root on the host", passes: FROM_SYSBOX, by: root_is_nobody },
    Check { what: "its groups are not the host's", passes: FROM_SYSBOX, by: groups_are_nobodys },
    Check { what: "/proc/meminfo has its own limit", passes: FROM_SYSBOX, by: meminfo },
    Check { what: "sysinfo(2) has its own limit", passes: FROM_SYSBOX, by: sysinfo },
    Check { what: "/proc/cpuinfo has its own processors", passes: FROM_SYSBOX, by: cpuinfo },
    Check { what: "/proc/stat has its own processors", passes: FROM_SYSBOX, by: stat },
    Check { what: "/sys/devices/system/cpu/online has its own", passes: FROM_SYSBOX, by: online },
    Check { what: "sched_getaffinity(2) has its own", passes: FROM_SYSBOX, by: affinity },
    Check { what: "/proc/uptime is since its own start", passes: FROM_SYSBOX, by: uptime },
    Check { what: "btime of /proc/stat is its own start", passes: FROM_SYSBOX, by: btime },
    Check { what: "the monotonic clock is its own", passes: FROM_SYSBOX, by: monotonic },
    Check { what: "/proc/loadavg counts its own threads", passes: FROM_SYSBOX, by: loadavg },
    // At `default` it is hidden.
    Check { what: "/proc/diskstats has nothing of the host's disks", passes: &Level::ALL, by: diskstats },
    Check { what: "pid_max can be changed, its own", passes: FROM_SYSBOX, by: pid_max },
    Check { what: "somaxconn can be changed, its own", passes: FROM_SYSBOX, by: somaxconn },
    Check { what: "the boot has an id of its own", passes: MICROVM, by: boot_id },
    Check { what: "the kernel is its own", passes: MICROVM, by: kernel },
    Check { what: "vm.swappiness can be changed, its own", passes: MICROVM, by: swappiness },
];

fn what_is_the_sandboxs_own_is_as_the_table_says(sandbox: &Sandbox) {
    if host::text("/sys/devices/system/cpu/online") == "0" {
        skip("what_is_the_sandboxs_own_is_as_the_table_says", "a second processor");
        return;
    }
    let wrong = CHECKS.iter().filter(|check| (check.by)(sandbox) != check.passes.contains(&sandbox.level));
    let wrong: Vec<&str> = wrong.map(|check| check.what).collect();
    assert!(wrong.is_empty(), "not as the table says at {:?}: {wrong:#?}", sandbox.level);
}

fn number(text: &str) -> f64 {
    text.trim().parse().unwrap_or_else(|_| panic!("a number and not {text:?}"))
}

fn root_is_nobody(sandbox: &Sandbox) -> bool {
    let seconds = sandbox.own_number(161_803);
    let process = sandbox.yard.ok(&["exec", "-d", BOX, "--", "sleep", &seconds]);
    eventually("it runs", || sandbox.succeeds(&format!("pgrep -fx 'sleep {seconds}'")));
    let nobody = host::process(&["sleep", &seconds]).is_none_or(host::is_nobody);
    sandbox.yard.ok(&["kill", BOX, &process]);
    nobody && host::is_nobody(sandbox.pid())
}

fn groups_are_nobodys(sandbox: &Sandbox) -> bool {
    host::status(sandbox.pid(), "Gid").iter().all(|id| number(id) >= 65_536.0)
}

fn meminfo(sandbox: &Sandbox) -> bool {
    number(&sandbox.sh("sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) * 1024.0 <= MEMORY as f64
}

fn sysinfo(sandbox: &Sandbox) -> bool {
    let program = "import ctypes, struct\nb = ctypes.create_string_buffer(128)\nctypes.CDLL(None).sysinfo(b)\n\
                   t = struct.unpack_from('QQQQQQQQQQH2xQQI', b)\nprint(t[4] * t[13])";
    number(&sandbox.python(program)) <= MEMORY as f64
}

fn cpuinfo(sandbox: &Sandbox) -> bool {
    sandbox.sh("grep -c ^processor /proc/cpuinfo") == "1"
}

fn stat(sandbox: &Sandbox) -> bool {
    sandbox.sh("grep -c '^cpu[0-9]' /proc/stat") == "1"
}

fn online(sandbox: &Sandbox) -> bool {
    sandbox.sh("cat /sys/devices/system/cpu/online") == "0"
}

fn affinity(sandbox: &Sandbox) -> bool {
    sandbox.python("import os; print(len(os.sched_getaffinity(0)))") == "1"
}

/// The host was up before any sandbox was.
fn uptime(sandbox: &Sandbox) -> bool {
    let host = number(host::text("/proc/uptime").split(' ').next().unwrap_or_default());
    number(&sandbox.sh("cut -d' ' -f1 /proc/uptime")) < host - 1.0
}

fn btime(sandbox: &Sandbox) -> bool {
    let of = |stat: &str| stat.lines().find_map(|line| line.strip_prefix("btime ")).map(number).expect("btime");
    of(&sandbox.sh("cat /proc/stat")) > of(&host::text("/proc/stat")) + 1.0
}

fn monotonic(sandbox: &Sandbox) -> bool {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
    number(&sandbox.python("import time; print(time.clock_gettime(time.CLOCK_MONOTONIC))")) < now as f64 - 1.0
}

/// While this program has a crowd of threads.
fn loadavg(sandbox: &Sandbox) -> bool {
    const CROWD: usize = 300;
    let door = Mutex::new(());
    let threads = thread::scope(|scope| {
        let closed = door.lock();
        for _ in 0..CROWD {
            scope.spawn(|| drop(door.lock()));
        }
        let threads = sandbox.sh("cut -d' ' -f4 /proc/loadavg | cut -d/ -f2");
        drop(closed);
        threads
    });
    number(&threads) < CROWD as f64
}

fn diskstats(sandbox: &Sandbox) -> bool {
    let (own, host) = (sandbox.sh("cat /proc/diskstats"), host::text("/proc/diskstats"));
    own.lines().all(|line| !host.lines().any(|of_the_host| of_the_host == line))
}

fn is_own(sandbox: &Sandbox, node: &str, value: &str) -> bool {
    host::unchanged(&[node], || sandbox.succeeds(&format!("echo {value} > {node} && test $(cat {node}) = {value}")))
}

fn pid_max(sandbox: &Sandbox) -> bool {
    is_own(sandbox, "/proc/sys/kernel/pid_max", "31234")
}

fn somaxconn(sandbox: &Sandbox) -> bool {
    is_own(sandbox, "/proc/sys/net/core/somaxconn", "77")
}

fn swappiness(sandbox: &Sandbox) -> bool {
    is_own(sandbox, "/proc/sys/vm/swappiness", "11")
}

fn boot_id(sandbox: &Sandbox) -> bool {
    let node = "/proc/sys/kernel/random/boot_id";
    sandbox.sh(&format!("cat {node}")) != host::text(node)
}

fn kernel(sandbox: &Sandbox) -> bool {
    sandbox.sh("cat /proc/version") != host::text("/proc/version")
}
