use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use garth_procview::{Cgroup, DIRECTORIES, NODES, Node, Sources, View};

use crate::support::{OWNER, Running, World, now, server};

/// The number after a name, in a file of lines.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn every_file_is_there_and_says_something() {
    let Some(world) = World::new("every_file_is_there_and_says_something") else { return };
    let _running = Running::start(server(&world.fuse, &world.cgroup, now()));
    for (_, name, _) in NODES {
        // Nothing was read or written in this cgroup, so there is no disk to show.
        assert_eq!(world.read(name).is_empty(), *name == "diskstats", "{name}");
        let found = fs::metadata(world.path(name)).unwrap();
        assert_eq!((found.mode(), found.uid(), found.gid()), (0o100_444, OWNER.uid, OWNER.gid), "{name}");
    }
    let listed = |directory: &str| {
        let names = fs::read_dir(world.path(directory)).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.into_string().unwrap()).collect::<BTreeSet<_>>()
    };
    assert_eq!(listed("dmi"), ["product_name", "product_uuid", "sys_vendor"].map(str::to_owned).into());
    let top = NODES.iter().map(|(_, name, _)| *name).filter(|name| !name.contains('/'));
    let top = top.chain(DIRECTORIES.iter().map(|(name, _)| *name)).map(str::to_owned);
    assert_eq!(listed(""), top.collect());
}

#[test]
fn memory_and_processors_are_the_limits_and_follow_them() {
    let Some(world) = World::new("memory_and_processors_are_the_limits_and_follow_them") else { return };
    let _running = Running::start(server(&world.fuse, &world.cgroup, now()));
    let host = fs::read_to_string("/proc/meminfo").unwrap();
    assert_eq!(number(&world.read("meminfo"), "MemTotal:"), number(&host, "MemTotal:"));
    let online = fs::read_to_string("/sys/devices/system/cpu/online").unwrap();
    assert_eq!(world.read("cpu_online"), online);

    world.cgroup.set("memory", "memory.limit_in_bytes", "64M");
    world.cgroup.set("cpu", "cpu.cfs_quota_us", "50000");
    world.cgroup.run("head -c 20M /dev/zero | tail -c 1 > /dev/null");
    // The kernel gives pages back late, so the use may fall meanwhile.
    let usage = || world.cgroup.get("memory", "memory.usage_in_bytes").trim().parse::<u64>().unwrap();
    let before = usage();
    let meminfo = world.read("meminfo");
    let used = (65536 - number(&meminfo, "MemFree:")) * 1024;
    assert_eq!(number(&meminfo, "MemTotal:"), 65536);
    assert!((usage()..=before).contains(&used), "{before} {used}");
    assert_eq!(world.read("cpu_online"), "0\n");
    assert_eq!(world.read("cpuinfo").matches("processor").count(), 1);
    assert_eq!(world.read("stat").lines().filter(|line| line.starts_with("cpu")).count(), 2);
}

#[test]
fn processor_time_and_age_are_the_sandboxs() {
    let Some(world) = World::new("processor_time_and_age_are_the_sandboxs") else { return };
    let started = now();
    let _running = Running::start(server(&world.fuse, &world.cgroup, started));
    // Until it used some 50 ms of processor time.
    world.cgroup.run("while [ $(cut -d' ' -f14 /proc/$$/stat) -lt 5 ]; do :; done");
    let stat = world.read("stat");
    let fields: Vec<u64> =
        stat.lines().next().unwrap().split_ascii_whitespace().skip(1).map(|n| n.parse().unwrap()).collect();
    let own = world.cgroup.get("cpuacct", "cpuacct.stat");
    assert_eq!((fields[0], fields[2]), (number(&own, "user"), number(&own, "system")));
    assert!(fields[0] + fields[2] >= 5, "{stat}");
    assert_eq!(number(&stat, "btime"), started.wall);
    let uptime: f64 = world.read("uptime").split(' ').next().unwrap().parse().unwrap();
    let age = now().boottime - started.boottime;
    assert!(uptime > 0.0 && uptime <= age.as_secs_f64(), "{uptime} {age:?}");
    let load: f64 = world.read("loadavg").split(' ').next().unwrap().parse().unwrap();
    assert!(load < 1.0);
}

#[test]
fn a_file_is_read_in_parts_and_anew_from_its_start() {
    let Some(world) = World::new("a_file_is_read_in_parts_and_anew_from_its_start") else { return };
    let _running = Running::start(server(&world.fuse, &world.cgroup, now()));
    let mut file = File::open(world.path("meminfo")).unwrap();
    let mut start = [0; 28];
    file.read_exact(&mut start).unwrap();
    world.cgroup.set("memory", "memory.limit_in_bytes", "64M");
    let (mut rest, mut again) = (String::new(), String::new());
    file.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("CommitLimit:       65536 kB"), "one snapshot: {rest}");
    file.rewind().unwrap();
    file.read_to_string(&mut again).unwrap();
    assert!(again.starts_with("MemTotal:          65536 kB\nMemFree:"), "{again}");
    assert_eq!(start.len() + rest.len(), again.len());
}

#[test]
fn nobody_writes() {
    let Some(world) = World::new("nobody_writes") else { return };
    let _running = Running::start(server(&world.fuse, &world.cgroup, now()));
    let path = world.path("swaps");
    let mut ways = [OpenOptions::new(), OpenOptions::new(), OpenOptions::new(), OpenOptions::new()];
    ways[0].write(true);
    ways[1].read(true).write(true);
    ways[2].append(true);
    ways[3].write(true).truncate(true);
    for way in ways {
        assert_eq!(way.open(&path).unwrap_err().kind(), io::ErrorKind::PermissionDenied, "{way:?}");
    }
    assert!(fs::remove_file(&path).is_err() && fs::write(world.path("new"), "x").is_err());
    assert!(fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).is_err());
    assert!(world.read("swaps").starts_with("Filename"));
}

#[test]
fn usual_tools_understand_the_files() {
    let Some(world) = World::new("usual_tools_understand_the_files") else { return };
    let _running = Running::start(server(&world.fuse, &world.cgroup, now()));
    world.cgroup.set("memory", "memory.limit_in_bytes", "64M");
    world.cgroup.set("cpu", "cpu.cfs_quota_us", "50000");
    // Inside a mount namespace of its own, as in a sandbox: the files bound over the host's.
    let mount = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&world.mount));
    let binds = ["meminfo", "cpuinfo", "stat", "loadavg", "uptime", "swaps"];
    let binds = binds.map(|name| format!("mount --bind {mount}/{name} /proc/{name}")).join(" && ");
    let script = format!("{binds} && free -k && uptime && vmstat && top -b -n 1 | head -5 && cat /proc/uptime");
    let output = Command::new("unshare").args(["-m", "/bin/sh", "-c", &script]).output().unwrap();
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if said.contains("not found") {
        return eprintln!("SKIP usual_tools_understand_the_files: {said}");
    }
    assert!(output.status.success() && said.is_empty(), "{said}");
    let row: Vec<&str> = text.lines().find(|line| line.starts_with("Mem:")).unwrap().split_ascii_whitespace().collect();
    assert_eq!(row[1], "65536", "{text}");
    assert!(text.contains("up 0 min") && text.contains("load average: 0.0"), "{text}");
}

#[test]
fn a_cgroup_that_is_gone_is_an_error_and_not_the_hosts_numbers() {
    let Some(world) = World::new("a_cgroup_that_is_gone_is_an_error_and_not_the_hosts_numbers") else { return };
    let _running = Running::start(server(&world.fuse, &world.cgroup, now()));
    for name in ["meminfo", "cpuinfo", "stat"] {
        assert!(!world.read(name).is_empty());
    }
    world.cgroup.remove();
    for name in ["meminfo", "cpuinfo", "stat"] {
        assert_eq!(fs::read(world.path(name)).unwrap_err().raw_os_error(), Some(5), "{name}");
    }
    assert!(world.read("swaps").starts_with("Filename"), "the server goes on");
}

/// The hierarchy of version 2, also where the controllers are in those of version 1.
fn v2() -> Option<&'static str> {
    ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().find(|root| Path::new(root).join("cgroup.procs").exists())
}

#[test]
fn version_2_tells_its_own_time_and_pressure() {
    let Some(root) = v2() else { return eprintln!("SKIP version_2_tells_its_own_time_and_pressure: cgroup v2") };
    let own = Path::new(root).join(format!("garth-procview-test-{}", std::process::id()));
    fs::create_dir(&own).unwrap();
    let open = |path: &Path| File::open(path).unwrap().into();
    let sources = Sources { proc: open(Path::new("/proc")), cgroup: Cgroup::V2(open(&own)) };
    let mut view = View::new(sources, now()).unwrap();
    let script = format!("echo $$ > {}/cgroup.procs; cut -d' ' -f1 /proc/loadavg", own.display());
    assert!(Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success());
    let mut text = |node| {
        let mut out = Vec::new();
        view.render(node, &mut out).map(|()| String::from_utf8(out).unwrap())
    };
    let texts = [Node::Stat, Node::PressureCpu, Node::PressureMemory, Node::Loadavg].map(&mut text);
    let used = fs::read_to_string(own.join("cpu.stat")).unwrap();
    fs::remove_dir(&own).unwrap();
    let [stat, cpu, memory, load] = texts.map(Result::unwrap);
    assert_eq!(number(&stat, "cpu "), number(&used, "user_usec") / 10_000, "{stat} {used}");
    assert!(number(&used, "usage_usec") > 0);
    for pressure in [cpu, memory] {
        assert!(pressure.starts_with("some avg10=") && pressure.contains("\nfull avg10="), "{pressure}");
    }
    assert!(load.ends_with(" 1/1 0\n"), "{load}");
}
