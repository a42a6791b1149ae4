//! What /proc and /sys say, and what can be written there.
use std::collections::BTreeSet;
use std::time::Instant;

use crate::stage::{Check, Checked, MEMORY, ONE, Stage, TWO, Why, ensure, equal, fail, missing, on_host};
use crate::yard::Yard;

pub const CHECKS: &[Check] = &[
    Check { number: 9, what: "uptime counts from the sandbox's start, with its own idle time (+)", by: uptime },
    Check { number: 10, what: "btime is within 2 s of the sandbox's start (+)", by: btime },
    Check { number: 11, what: "no swap is shown, and the node cannot be written", by: swaps },
    Check { number: 12, what: "the hostname node says what sethostname set, and can be written", by: hostname },
    Check {
        number: 13,
        what: "pid_max, sysrq, panic, printk, kptr_restrict, dmesg_restrict and ptrace_scope are the sandbox's own to write",
        by: own_settings,
    },
    Check { number: 14, what: "a value out of range is EINVAL", by: out_of_range },
    Check { number: 15, what: "cap_last_cap and ngroups_max cannot be written", by: constants },
    Check { number: 16, what: "random/uuid differs at each read and cannot be written", by: random_uuid },
    Check {
        number: 17,
        what: "ip_forward, disable_ipv6 and tcp_keepalive_time are each sandbox's own",
        by: network_settings,
    },
    Check {
        number: 18,
        what: "threads-max, swappiness, pipe-max-size and keys/maxkeys are refused, in user namespaces below too",
        by: host_settings,
    },
    Check { number: 19, what: "rcu_normal and module parameters cannot be written", by: kernel_nodes },
    Check {
        number: 20,
        what: "somaxconn and nf_conntrack_max read back what was written, and the host's never change (+)",
        by: ceilings,
    },
    Check { number: 21, what: "ping_group_range takes \"0 2147483647\"", by: ping_groups },
    Check {
        number: 22,
        what: "users other than root read and cannot write, but with a file's capabilities",
        by: other_users,
    },
    Check { number: 23, what: "/proc/sys lists what a plain unshare would, with the same owners", by: listing },
    Check { number: 24, what: "many readers at once, in two sandboxes and in containers in them", by: many_readers },
    Check { number: 25, what: "product_uuid is the sandbox's own and stays over a restart", by: product_uuid },
    Check {
        number: 26,
        what: "/sys/kernel/debug, config, tracing and security are there and empty",
        by: empty_directories,
    },
    Check { number: 27, what: "memory and processors are the limits in every place that tells (+)", by: limits },
    Check {
        number: 28,
        what: "walking /proc/sys and /sys/devices/virtual ends, and leaves nothing on the host",
        by: walks,
    },
];

fn numbers(text: &str) -> Vec<f64> {
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn uptime(stage: &Stage) -> Checked {
    stage.with_own("fresh", |name| {
        let before = Instant::now();
        stage.yard.ok(&["start", name]);
        // By one process: on a slow machine each takes a second to start.
        let program = "import time\nread = lambda: open('/proc/uptime').read().strip()\n\
                       print(read(), read(), time.clock_gettime(time.CLOCK_BOOTTIME))";
        let readings = numbers(&stage.python(name, program)?);
        let age = before.elapsed().as_secs_f64();
        let [first, idle, second, _, clock] = readings[..] else { return fail(format!("{readings:?}")) };
        ensure(first <= age + 0.1 && first <= second, format!("{first} s after {age} s, then {second} s"))?;
        ensure((0.0..=first * 64.0).contains(&idle), format!("idle for {idle} s of {first} s"))?;
        ensure((clock - second).abs() < 1.5, format!("the clock says {clock} s"))
    })
}

fn btime(stage: &Stage) -> Checked {
    let says: i64 =
        stage.sh(ONE, "awk '/^btime/ {print $2}' /proc/stat || sed -n 's/btime //p' /proc/stat")?.parse().unwrap_or(0);
    let started = stage.about(ONE)["started_at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    let Some(started) = started else { return fail("no start time") };
    // It is born while it is started, which may take a while.
    let born = started.as_second() - 60..=started.as_second() + 1;
    ensure(born.contains(&says), format!("{says} and not {}", started.as_second()))
}

fn swaps(stage: &Stage) -> Checked {
    equal("lines", &stage.sh(ONE, "wc -l < /proc/swaps")?, "1")?;
    stage.refused(ONE, &["echo x > /proc/swaps"])
}

fn hostname(stage: &Stage) -> Checked {
    let host = on_host("/proc/sys/kernel/hostname");
    let name = stage.sh(ONE, "hostname renamed; cat /proc/sys/kernel/hostname; hostname one")?;
    equal("the node", &name, "renamed")?;
    equal("the host's", &on_host("/proc/sys/kernel/hostname"), &host)?;
    match stage.sh(ONE, "echo renamed > /proc/sys/kernel/hostname") {
        Ok(_) => equal("the host's", &on_host("/proc/sys/kernel/hostname"), &host),
        Err(_) => fail(
            "it says so; the kernel gives the node to the host's root alone, and one of ours in its place would fail the openat2(NO_XDEV) of container runtimes: `hostname NAME` works",
        ),
    }
}

fn own_settings(stage: &Stage) -> Checked {
    let names = ["sysrq", "panic", "printk", "kptr_restrict", "dmesg_restrict", "yama/ptrace_scope"];
    let all = || -> Vec<String> {
        names.iter().chain(&["pid_max"]).map(|name| on_host(&format!("/proc/sys/kernel/{name}"))).collect()
    };
    let before = all();
    let other = stage.sh(TWO, "cat /proc/sys/kernel/pid_max")?;
    equal("pid_max", &stage.sh(ONE, "echo 31234 > /proc/sys/kernel/pid_max; cat /proc/sys/kernel/pid_max")?, "31234")?;
    equal("another sandbox's pid_max", &stage.sh(TWO, "cat /proc/sys/kernel/pid_max")?, &other)?;
    let mut refused = Vec::new();
    for name in names {
        let node = format!("/proc/sys/kernel/{name}");
        if std::path::Path::new(&node).exists()
            && stage.sh(ONE, &format!("v=$(cat {node}); echo \"$v\" > {node}")).is_err()
        {
            refused.push(name);
        }
    }
    ensure(before == all(), "the host's have changed")?;
    match refused[..] {
        [] => Ok(()),
        _ => fail(format!(
            "pid_max is; of {} the kernel has one for all sandboxes, so that writing is EACCES and not faked; the host's stay",
            refused.join(", ")
        )),
    }
}

fn out_of_range(stage: &Stage) -> Checked {
    let program = "for node, value in [('kernel/pid_max', '0'), ('kernel/pid_max', '99999999'), ('net/ipv4/ip_default_ttl', '256')]:\n\
                   \x20   try: os.write(os.open('/proc/sys/' + node, os.O_WRONLY), value.encode())\n\
                   \x20   except OSError as e: want(errno.EINVAL, e.errno)\n    else: sys.exit(node + ' takes ' + value)";
    stage.python(ONE, program).map(|_| ())
}

fn constants(stage: &Stage) -> Checked {
    stage.refused(ONE, &["echo 1 > /proc/sys/kernel/cap_last_cap", "echo 1 > /proc/sys/kernel/ngroups_max"])
}

fn random_uuid(stage: &Stage) -> Checked {
    let two = stage.sh(ONE, "cat /proc/sys/kernel/random/uuid /proc/sys/kernel/random/uuid | sort -u | wc -l")?;
    equal("different ones", &two, "2")?;
    stage.refused(ONE, &["echo x > /proc/sys/kernel/random/uuid"])
}

fn network_settings(stage: &Stage) -> Checked {
    let nodes = ["net/ipv4/ip_forward", "net/ipv6/conf/lo/disable_ipv6", "net/ipv4/tcp_keepalive_time"];
    let paths: Vec<String> = nodes.iter().map(|node| format!("/proc/sys/{node}")).collect();
    let host: Vec<String> = paths.iter().map(|path| on_host(path)).collect();
    let read = format!("cat {}", paths.join(" "));
    let other = stage.sh(TWO, &read)?;
    let write = format!("echo 1 > {}; echo 1 > {}; echo 4321 > {}; {read}", paths[0], paths[1], paths[2]);
    equal("after writing", &stage.sh(ONE, &write)?, "1\n1\n4321")?;
    stage.sh(ONE, &format!("echo 0 > {}", paths[1]))?;
    equal("another sandbox's", &stage.sh(TWO, &read)?, &other)?;
    ensure(host == paths.iter().map(|path| on_host(path)).collect::<Vec<_>>(), "the host's have changed")
}

const OF_THE_HOST: [&str; 4] = ["kernel/threads-max", "vm/swappiness", "fs/pipe-max-size", "kernel/keys/maxkeys"];

fn host_settings(stage: &Stage) -> Checked {
    for node in OF_THE_HOST {
        let node = format!("/proc/sys/{node}");
        let program = format!(
            "try: os.open('{node}', os.O_WRONLY)\nexcept OSError as e: want(True, e.errno in (errno.EACCES, errno.EROFS, errno.ENOENT))\nelse: sys.exit('it opens')"
        );
        stage.python(ONE, &program)?;
        stage.python_by(ONE, &["unshare", "-Urmpf", "--mount-proc"], &program)?;
    }
    Ok(())
}

fn kernel_nodes(stage: &Stage) -> Checked {
    let nodes = [
        "/sys/kernel/rcu_normal",
        "/sys/module/kernel/parameters/panic",
        "/sys/kernel/mm/transparent_hugepage/enabled",
    ];
    let before: Vec<String> = nodes.iter().map(|node| on_host(node)).collect();
    for node in nodes {
        stage.refused(ONE, &[&format!("echo 1 > {node}")])?;
        stage.refused(ONE, &[&format!("mkdir -p /root/sysfs; mount -t sysfs s /root/sysfs; trap 'umount /root/sysfs' EXIT; echo 1 > /root/sysfs{}", &node[4..])])?;
    }
    ensure(before == nodes.iter().map(|node| on_host(node)).collect::<Vec<_>>(), "the host's have changed")
}

fn ceilings(stage: &Stage) -> Checked {
    let (listen, tracked) = ("/proc/sys/net/core/somaxconn", "/proc/sys/net/netfilter/nf_conntrack_max");
    let host = (on_host(listen), on_host(tracked));
    equal("somaxconn", &stage.sh(ONE, &format!("echo 77 > {listen}; cat {listen}"))?, "77")?;
    let taken = stage.sh(ONE, &format!("echo 7777 > {tracked}; cat {tracked}"));
    ensure(host == (on_host(listen), on_host(tracked)), "the host's have changed")?;
    match taken {
        Ok(value) => equal("nf_conntrack_max", &value, "7777"),
        Err(_) => fail(
            "somaxconn does; of nf_conntrack_max the kernel has one for all network namespaces, read-only in all but the first; the host's stay",
        ),
    }
}

fn ping_groups(stage: &Stage) -> Checked {
    let node = "/proc/sys/net/ipv4/ping_group_range";
    equal("all groups", &stage.sh(ONE, &format!("echo 0 65535 > {node}; cat {node}"))?, "0\t65535")?;
    match stage.sh(ONE, &format!("echo 0 2147483647 > {node}")) {
        Ok(_) => Ok(()),
        Err(_) => fail(
            "the kernel wants both ends to be groups that exist here, and there are 65536: \"0 65535\" means the same and works",
        ),
    }
}

fn other_users(stage: &Stage) -> Checked {
    let node = "/proc/sys/net/ipv4/ip_forward";
    stage.sh_as("1000", ONE, &format!("cat {node}; ! (echo 1 > {node}) 2>/dev/null"))?;
    let by = |set: &str| {
        stage.sh(ONE, &format!("cp $(command -v tee) /tmp/tee; setcap {set}+ep /tmp/tee"))?;
        stage.sh_as("1000", ONE, &format!("echo 1 | /tmp/tee {node}"))
    };
    by("cap_net_admin")?;
    match by("cap_dac_override") {
        Ok(_) => Ok(()),
        Err(_) => fail(
            "CAP_NET_ADMIN of a file lets them write; CAP_DAC_OVERRIDE does not, in no Linux: /proc/sys has checks of its own, which do not ask for it",
        ),
    }
}

fn listing(stage: &Stage) -> Checked {
    let find = "find /proc/sys -printf '%p %M %U:%G\\n' 2>/dev/null; true";
    // Interfaces and neighbours differ; what was mounted on it does not belong to it.
    let nodes = |text: &str| -> BTreeSet<String> {
        let of_interface = |line: &&str| ["/conf/", "/neigh/", "/binfmt_misc"].iter().all(|part| !line.contains(part));
        text.lines().filter(of_interface).map(str::to_owned).collect()
    };
    let user = ["--reuid=65000", "--regid=65000", "--clear-groups"];
    let plain = std::process::Command::new("setpriv")
        .args(user)
        .args(["unshare", "-UrmpniuCf", "--mount-proc", "sh", "-c", find])
        .output()
        .expect("setpriv");
    if !plain.status.success() {
        return missing("unshare -UrmpniuCf");
    }
    let (plain, ours) = (nodes(&String::from_utf8_lossy(&plain.stdout)), nodes(&stage.sh(ONE, find)?));
    let differ: Vec<&String> = plain.symmetric_difference(&ours).take(4).collect();
    ensure(differ.is_empty() && ours.len() > 300, format!("of {} nodes differ {differ:?}", ours.len()))
}

fn many_readers(stage: &Stage) -> Checked {
    let read = "for i in 1 2 3 4 5 6; do cat /proc/meminfo /proc/stat /proc/uptime /proc/cpuinfo /proc/loadavg > /dev/null; \
                find /proc/sys/kernel /proc/sys/net/ipv4 -type f -perm -004 -exec cat {} + >/dev/null 2>&1 || true; done; echo read";
    let inner = format!("unshare -Urmpf --mount-proc sh -ec '{read}'");
    std::thread::scope(|scope| {
        let lines = [(ONE, read), (ONE, &inner), (TWO, read), (TWO, &inner), (ONE, read), (TWO, &inner)];
        let all: Vec<_> = lines.map(|(name, line)| scope.spawn(move || stage.sh(name, line))).into();
        all.into_iter().try_for_each(|one| equal("a reader", &one.join().expect("reader")?, "read"))
    })
}

fn product_uuid(stage: &Stage) -> Checked {
    stage.with_own("machine", |name| {
        let read = |name: &str| stage.sh(name, "cat /sys/class/dmi/id/product_uuid");
        let (first, again, other) = (read(name)?, read(name)?, read(ONE)?);
        ensure(
            first == again && first != other && first.len() == 36,
            format!("{first}, {again}; another has {other}"),
        )?;
        ensure(!first.eq_ignore_ascii_case(&on_host("/sys/class/dmi/id/product_uuid")), "it is the host's")?;
        stage.yard.ok(&["restart", name]);
        ensure(read(name)? == first, "its own and unlike any other; a new one at each start")
    })
}

fn empty_directories(stage: &Stage) -> Checked {
    let line = "cd /sys/kernel; ls -d debug config tracing security >/dev/null; ls -A debug config tracing security | grep -v : | wc -w";
    equal("entries", &stage.sh(ONE, line)?, "0")
}

fn limits(stage: &Stage) -> Checked {
    let kib = (MEMORY / 1024).to_string();
    equal("MemTotal", &stage.sh(ONE, "sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")?, &kib)?;
    equal("free", &stage.sh(ONE, "free -k | sed -n 's/Mem: *\\([0-9]*\\) .*/\\1/p'")?, &kib)?;
    equal("nproc", &stage.sh(ONE, "nproc")?, "1")?;
    equal("cpuinfo", &stage.sh(ONE, "grep -c ^processor /proc/cpuinfo")?, "1")?;
    equal("stat", &stage.sh(ONE, "grep -c '^cpu[0-9]' /proc/stat")?, "1")?;
    equal("cpu/online", &stage.sh(ONE, "cat /sys/devices/system/cpu/online")?, "0")?;
    equal("getconf", &stage.sh(ONE, "getconf _NPROCESSORS_ONLN")?, "1")?;
    let sysinfo = "b = ctypes.create_string_buffer(128)\nwant(0, libc.sysinfo(b))\nt = struct.unpack_from('QQQQQQQQQQH2xQQI', b)\nprint(t[4] * t[13])";
    equal("sysinfo(2)", &stage.python(ONE, sysinfo)?, &MEMORY.to_string())?;
    equal("Python's default", &stage.python(ONE, "print(os.cpu_count(), len(os.sched_getaffinity(0)))")?, "1 1")?;
    let inner =
        "unshare -Urmpf --mount-proc sh -c 'sed -n \"s/MemTotal: *\\([0-9]*\\) kB/\\1/p\" /proc/meminfo; nproc'";
    equal("in a container", &stage.sh(ONE, inner)?, &format!("{kib}\n1"))
}

fn walks(stage: &Stage) -> Checked {
    let yard = Yard::new();
    yard.ok(&["create", "walk", "--runtime", "sysbox", "--network", "none"]);
    yard.sh("walk", "find /proc/sys /sys/devices/virtual /sys -type f -exec cat {} + >/dev/null 2>&1 || true");
    let mounts = |text: &str| text.lines().count();
    let before = mounts(&on_host("/proc/self/mountinfo"));
    yard.ok(&["rm", "-f", "walk"]);
    let data = yard.data_dir().to_string_lossy().into_owned();
    yard.terminate_daemon();
    let left = yard.lasting_traces();
    ensure(left.is_empty(), format!("left of {data}: {left:?}; {before} mounts"))?;
    let ours = stage.yard.traces();
    ensure(ours.iter().all(|trace| !trace.contains("one")), format!("{ours:?}")).map_err(|why: Why| why)
}
