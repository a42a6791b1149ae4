mod machine;

use garth_spec::{ByteSize, Observed, ProjectId, Runtime, Try};

use super::judge::Evidence;
use super::*;
use crate::local::DiskUse;

const PERM: Observed = Observed::Errno(1);

/// Our own code, or what comes nearest to it.
fn native(runtime: Runtime) -> garth_spec::Handler {
    runtime.handlers().next().expect("a handler")
}

fn subject(runtime: Runtime) -> Subject {
    let limits = Limits { memory: ByteSize::mib(256), pids: 100, ..Limits::default() };
    Subject {
        level: Level::of(native(runtime)),
        capabilities: Level::of(native(runtime)).capabilities,
        read_only: false,
        limits,
        network: Network::Internet,
        no_new_privs: true,
        disk: ProjectId::from_bits(0x1a).to_string(),
        volumes: vec![Shown { at: "/data".to_owned(), real: "/home/me/data".into(), read_only: true }],
        pid: 4242,
        guest: (runtime == Runtime::Microvm)
            .then_some(super::machine::Guest { memory: ByteSize::mib(256), translated: true }),
        started_at: None,
        neighbours: vec!["10.128.0.9".parse().expect("an address")],
        host: vec!["192.0.2.2:4000".parse().expect("an address")],
    }
}

fn status(capabilities: &str, seccomp: u32, uid: u32) -> String {
    format!(
        "Name:\tgarth-agent\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nNSpid:\t4242\t1\nCapPrm:\t{capabilities}\n\
         CapEff:\t{capabilities}\nCapBnd:\t{capabilities}\nCapAmb:\t0000000000000000\nNoNewPrivs:\t1\n\
         Seccomp:\t{seccomp}\nSeccomp_filters:\t2\n"
    )
}

fn shared(own: &[&str]) -> Vec<(String, bool)> {
    let kinds = ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user", "time"];
    kinds.iter().map(|kind| ((*kind).to_owned(), !own.contains(kind))).collect()
}

/// What the host sees of a sandbox that is as it should be.
fn host(runtime: Runtime) -> HostFacts {
    if runtime == Runtime::Microvm {
        return machine::host();
    }
    let sysbox = runtime == Runtime::Sysbox;
    let map = if sysbox { "0 131072 65536\n" } else { "         0          0 4294967295\n" };
    let mut own = vec!["mnt", "pid", "net", "ipc", "uts", "cgroup"];
    own.extend(sysbox.then_some(["user", "time"]).into_iter().flatten());
    HostFacts {
        status: status(
            if sysbox { "000001ffffffffff" } else { "00000000800405fb" },
            2,
            if sysbox { 131_072 } else { 0 },
        ),
        uid_map: map.to_owned(),
        gid_map: map.to_owned(),
        mountinfo: "1 0 0:57 /disks/000000000000001a/rootfs / rw,nodev - btrfs /dev/loop0 rw\n\
                    2 1 0:80 / /usr rw - overlay overlay rw\n3 1 0:75 / /proc rw - proc proc rw\n\
                    4 3 0:75 /sys /proc/sys ro - proc proc rw\n"
            .to_owned(),
        shared: shared(&own),
        memory: Some(256 << 20),
        pids: Some(101),
        cpus: Some(2000),
        disk: Some(DiskUse { used: 0, limit: Some(Limits::default().disk) }),
        processes: Some(3),
        oom_kills: 1,
        connected: Vec::new(),
        age: Some(Duration::from_secs(60)),
        ..HostFacts::default()
    }
}

/// What comes of a try in a sandbox that is as it should be.
fn good(runtime: Runtime, id: &str, one: &Try) -> Observed {
    let text = |text: &str| Observed::Text(text.to_owned());
    if let Some(seen) = (runtime == Runtime::Microvm).then(|| machine::good(id, one)).flatten() {
        return seen;
    }
    match (id, one) {
        ("kernel-addresses", _) if runtime == Runtime::Sysbox => text("0000000000000000 A fixed_percpu_data\n"),
        ("kernel-memory" | "kernel-addresses", _) => text(""),
        ("raw-devices", _) => Observed::Errno(2),
        ("mounting" | "user-namespaces", _) if runtime == Runtime::Sysbox => Observed::Done,
        ("loopback", _) => Observed::Done,
        ("processes", Try::Signal(_)) => Observed::Errno(3),
        ("processes", _) => text("1\n2\n7\ncpuinfo\nself"),
        ("descriptors", _) => text("0\n1\n2\n3"),
        ("devices", _) => text("c 1:3 null\nc 136:0 0\nc 5:2 ptmx"),
        ("root", _) => text("57:256"),
        ("pids-limit", _) => Observed::Errno(11),
        ("memory-limit", _) => Observed::Killed,
        ("host-addresses", _) => Observed::Errno(111),
        ("neighbours", _) => Observed::Errno(110),
        ("capabilities" | "no-new-privs", _) => text(&status("00000000800405fb", 2, 0)),
        ("numbers", Try::Read(path)) => text(match path.as_str() {
            "/proc/meminfo" => "MemTotal:         262144 kB\nMemFree: 1 kB\n",
            "/proc/cpuinfo" => "processor\t: 0\nflags: x\n\nprocessor\t: 1\n",
            "/proc/stat" => "cpu  1 2\ncpu0 1 2\ncpu1 1 2\nintr 0\n",
            "/proc/uptime" => "61.50 100.00\n",
            _ => "0-1\n",
        }),
        _ => PERM,
    }
}

/// The ids of the checks that fail, after something was changed for the worse.
fn failed(
    runtime: Runtime,
    subject: impl FnOnce(&mut Subject),
    host: impl FnOnce(&mut HostFacts),
    worse: impl Fn(&str, &Try) -> Option<Observed>,
) -> Vec<&'static str> {
    let (mut of, mut facts) = (self::subject(runtime), self::host(runtime));
    subject(&mut of);
    host(&mut facts);
    let checks = checks::of(&of);
    let observed = checks.iter().flat_map(|check| {
        let one = |one| worse(check.id, one).unwrap_or_else(|| good(runtime, check.id, one));
        check.tries.iter().map(one).collect::<Vec<_>>()
    });
    let report = ProbeReport { observed: observed.collect() };
    judged(&checks, report, &Facts { subject: of, host: facts })
        .into_iter()
        .filter(|check| !check.passed)
        .map(|check| check.id)
        .collect()
}

#[track_caller]
fn inside(runtime: Runtime, id: &'static str, observed: Observed) {
    assert_eq!(failed(runtime, |_| {}, |_| {}, |of, _| (of == id).then(|| observed.clone())), [id], "{observed:?}");
}

#[track_caller]
fn outside(runtime: Runtime, id: &'static str, worse: impl FnOnce(&mut HostFacts)) {
    assert_eq!(failed(runtime, |_| {}, worse, |_, _| None), [id]);
}

const BOTH: [Runtime; 2] = [Runtime::Default, Runtime::Sysbox];

#[test]
fn a_sandbox_that_is_as_it_should_be_passes() {
    for runtime in BOTH {
        assert_eq!(failed(runtime, |_| {}, |_| {}, |_, _| None), [""; 0], "{runtime}");
        assert_eq!(failed(runtime, |of| of.network = Network::None, |_| {}, |_, _| None), [""; 0], "{runtime}");
    }
}

#[test]
fn ids_are_there_once() {
    let mut ids: Vec<&str> = checks::of(&subject(Runtime::Sysbox)).iter().map(|check| check.id).collect();
    let count = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), count);
}

#[test]
fn an_attack_that_works_fails_its_check() {
    for runtime in BOTH {
        for id in [
            "kernel-memory",
            "kernel-addresses",
            "kernel-log",
            "kernel-settings",
            "kernel-modules",
            "system-calls",
            "read-only",
            "raw-devices",
            "device-nodes",
            "init",
            "host-addresses",
            "metadata",
            "private-networks",
            "neighbours",
            "limits",
            "memory-limit",
            "pids-limit",
            "processes",
        ] {
            inside(runtime, id, Observed::Done);
        }
    }
    inside(Runtime::Default, "mounting", Observed::Done);
    inside(Runtime::Default, "user-namespaces", Observed::Done);
    inside(Runtime::Sysbox, "mounting", PERM);
    inside(Runtime::Sysbox, "user-namespaces", PERM);
    inside(Runtime::Default, "loopback", PERM);
}

#[test]
fn what_is_read_that_should_not_be_fails_its_check() {
    let text = |text: &str| Observed::Text(text.to_owned());
    inside(Runtime::Default, "kernel-memory", text("\x7fELF"));
    inside(Runtime::Default, "kernel-addresses", text("ffffffff81000000 T _text\n"));
    inside(Runtime::Default, "devices", text("c 1:3 null\nb 8:0 sda"));
    inside(Runtime::Default, "devices", text("c 1:1 mem"));
    inside(Runtime::Default, "descriptors", text("0\n1\n2\n3\n4"));
    let many: Vec<String> = (1..40).map(|pid| pid.to_string()).collect();
    assert_eq!(
        failed(
            Runtime::Default,
            |_| {},
            |_| {},
            |_, one| { matches!(one, Try::Entries(path) if path == "/proc").then(|| text(&many.join("\n"))) }
        ),
        ["processes"]
    );
    let inode = std::cell::Cell::new(0);
    let another = |id: &str, _: &Try| (id == "root").then(|| text(&format!("57:{}", inode.replace(inode.get() + 1))));
    assert_eq!(failed(Runtime::Default, |_| {}, |_| {}, another), ["root"]);
    inside(Runtime::Sysbox, "numbers", text("MemTotal: 16384000 kB\n"));
    inside(Runtime::Default, "no-new-privs", text("NoNewPrivs:\t0\n"));
    inside(Runtime::Default, "capabilities", text(&status("000001ffffffffff", 2, 0)));
}

#[test]
fn a_slow_answer_is_not_a_local_refusal() {
    inside(Runtime::Default, "metadata", Observed::Errno(110));
    inside(Runtime::Default, "private-networks", Observed::Errno(111));
    inside(Runtime::Default, "neighbours", Observed::Errno(111));
}

#[test]
fn what_the_host_sees_fails_its_check() {
    use Runtime::{Default, Sysbox};
    outside(Default, "filter", |host| host.status = status("00000000800405fb", 0, 0));
    outside(Default, "capabilities", |host| host.status = status("00000000a80425fb", 2, 0));
    outside(Default, "namespaces", |host| host.shared = shared(&["mnt", "pid", "ipc", "uts", "cgroup"]));
    outside(Default, "namespaces", |host| host.status = host.status.replace("4242\t1", "4242"));
    outside(Sysbox, "namespaces", |host| host.shared = shared(&["mnt", "pid", "net", "ipc", "uts", "cgroup"]));
    outside(Sysbox, "users", |host| host.uid_map = "0 0 4294967295\n".to_owned());
    outside(Sysbox, "users", |host| host.gid_map = "0 131072 131072\n".to_owned());
    outside(Sysbox, "users", |host| host.uid_map = "0 1000 1\n1 131073 65535\n".to_owned());
    outside(Sysbox, "users", |host| host.status = status("000001ffffffffff", 2, 0));
    outside(Default, "users", |host| host.uid_map = String::new());
    outside(Default, "mounts", |host| host.mountinfo += "9 1 8:1 /var/lib/garth /mnt rw - ext4 /dev/sda1 rw\n");
    outside(Default, "mounts", |host| host.mountinfo += "9 1 8:1 /usr /usr rw - ext4 /dev/sda1 rw\n");
    outside(Default, "mounts", |host| host.mountinfo += "9 1 0:99 / /mnt rw - tmpfs t rw\n");
    outside(Default, "mounts", |host| host.mountinfo = host.mountinfo.replace("01a", "01b"));
    outside(Default, "mounts", |host| host.mountinfo.clear());
    outside(Sysbox, "mounts", |host| host.mountinfo += "9 1 0:57 / /mnt rw - btrfs /dev/loop0 rw\n");
    for options in ["rw,nosuid,nodev", "ro,nodev", "ro,nosuid"] {
        let more = format!("9 1 8:1 /me/data /data {options} - ext4 /dev/sda1 rw\n");
        outside(Default, "mounts", |host| host.mountinfo += &more);
        outside(Sysbox, "mounts", |host| host.mountinfo += &more);
    }
    outside(Sysbox, "mounts", |host| host.mountinfo += "9 1 8:1 / /mnt rw - ext4 /dev/sda1 rw\n");
    outside(Default, "memory-limit", |host| host.memory = Some(512 << 20));
    outside(Default, "memory-limit", |host| host.memory = None);
    outside(Default, "memory-limit", |host| host.oom_kills = 0);
    outside(Default, "pids-limit", |host| host.pids = Some(4096));
    outside(Default, "cpu-limit", |host| host.cpus = None);
    outside(Default, "disk-limit", |host| host.disk = Some(DiskUse { used: 0, limit: None }));
    outside(Default, "processes", |host| host.processes = None);
    outside(Default, "host-addresses", |host| host.connected = vec!["10.128.0.2:5".parse().expect("an address")]);
}

#[test]
fn a_read_only_root_is_one_and_has_a_tmp_of_its_own() {
    let tmp = "9 1 0:99 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw\n";
    let read_only = |subject: &mut Subject| subject.read_only = true;
    let sealed = |host: &mut HostFacts| host.mountinfo = host.mountinfo.replace("/ rw,nodev", "/ ro,nodev") + tmp;
    assert_eq!(failed(Runtime::Default, read_only, sealed, |_, _| None), [""; 0]);
    assert_eq!(failed(Runtime::Default, read_only, |_| {}, |_, _| None), ["mounts"]);
    assert_eq!(failed(Runtime::Default, |_| {}, sealed, |_, _| None), ["mounts"]);
}

#[test]
fn fewer_capabilities_are_held_to() {
    let fewer = |subject: &mut Subject| subject.capabilities = 1;
    assert_eq!(failed(Runtime::Default, fewer, |_| {}, |_, _| None), ["capabilities"]);
    assert_eq!(failed(Runtime::Sysbox, fewer, |_| {}, |_, _| None), ["capabilities", "mounting"]);
}

#[test]
fn a_volume_is_a_mount_of_the_host_that_was_asked_for() {
    let at = |root: &str, at: &str| format!("9 1 8:1 {root} {at} ro,nosuid,nodev - ext4 /dev/sda1 rw\n");
    for more in [at("/me/data", "/data"), at("/me/data", "/where/a/link/led"), at("/@home/me/data", "/data")] {
        assert_eq!(failed(Runtime::Default, |_| {}, |host| host.mountinfo += &more, |_, _| None), [""; 0], "{more}");
    }
    let inside = at("/me/data", "/data") + &at("/me/data/sub", "/var/lib/containers/x");
    assert_eq!(failed(Runtime::Sysbox, |_| {}, |host| host.mountinfo += &inside, |_, _| None), [""; 0]);
    let other = at("/me/data", "/data") + &at("/me/other", "/mnt");
    assert_eq!(failed(Runtime::Sysbox, |_| {}, |host| host.mountinfo += &other, |_, _| None), ["mounts"]);
}

#[test]
fn a_sandbox_that_may_mount_may_do_so() {
    let more = "9 1 0:57 /disks/000000000000001a/rootfs/data /mnt rw - btrfs /dev/loop0 rw\n\
                10 1 0:99 / /var/lib/docker/x/merged rw - overlay overlay rw\n11 1 0:98 / /m rw - fuse.sshfs x rw\n";
    assert_eq!(failed(Runtime::Sysbox, |_| {}, |host| host.mountinfo += more, |_, _| None), [""; 0]);
}

#[test]
fn a_report_that_leaves_something_out_fails() {
    let of = subject(Runtime::Default);
    let checks = checks::of(&of);
    let judged =
        judged(&checks, ProbeReport { observed: vec![] }, &Facts { subject: of, host: host(Runtime::Default) });
    let passed: Vec<&str> = judged.iter().filter(|check| check.passed).map(|check| check.id).collect();
    // Those that only the host makes.
    assert_eq!(passed, ["filter", "users", "namespaces", "mounts", "cpu-limit", "disk-limit"]);
}

#[test]
fn limits_that_are_large_are_compared_and_not_tried() {
    let large = |of: &mut Subject| of.limits = Limits::default();
    let tries: Vec<Try> = {
        let mut of = subject(Runtime::Default);
        large(&mut of);
        checks::of(&of).into_iter().flat_map(|check| check.tries).collect()
    };
    assert!(!tries.iter().any(|one| matches!(one, Try::Allocate(_) | Try::Threads(_))));
    let set = |host: &mut HostFacts| {
        (host.memory, host.pids) = (Some(Limits::default().memory.bytes()), Some(4096));
    };
    assert_eq!(failed(Runtime::Default, large, set, |_, _| None), [""; 0]);
}

#[test]
fn every_check_judges_its_own_tries() {
    let facts = Facts { subject: subject(Runtime::Default), host: host(Runtime::Default) };
    for check in checks::of(&facts.subject).iter().filter(|check| !check.tries.is_empty()) {
        let killed: Vec<_> = check.tries.iter().cloned().map(|one| (one, Observed::Text("?".to_owned()))).collect();
        let verdict = (check.judge)(&Evidence { facts: &facts, tried: &killed });
        assert!(check.id == "root" || verdict.is_err(), "{}: {verdict:?}", check.id);
    }
}
