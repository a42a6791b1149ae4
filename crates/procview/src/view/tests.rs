//! Directories of ordinary files stand for the host's /proc and the cgroups of both versions.

use std::fs;
use std::os::fd::OwnedFd;

use super::*;
use crate::Cgroup;

const SECOND: Duration = Duration::from_secs(1);

struct Fixture {
    directory: tempfile::TempDir,
    view: View,
}

fn write(directory: &tempfile::TempDir, name: &str, text: &str) {
    fs::write(directory.path().join(name), text).unwrap();
}

impl Fixture {
    fn new(v2: bool, files: &[(&str, &str)]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        write(&directory, "meminfo", "MemTotal:       1048576 kB\nHugepagesize:       2048 kB\n");
        write(&directory, "stat", "cpu  1\ncpu0 1\ncpu1 1\ncpu2 1\ncpu3 1\nintr 9\n");
        let block = |n| format!("processor\t: {n}\nmodel name\t: X\n\n");
        write(&directory, "cpuinfo", &(0..4).map(block).collect::<String>());
        files.iter().for_each(|(name, text)| write(&directory, name, text));
        let open = || OwnedFd::from(fs::File::open(directory.path()).unwrap());
        let cgroup = match v2 {
            true => Cgroup::V2(open()),
            false => Cgroup::V1 { memory: open(), cpu: open(), cpuacct: open(), blkio: Some(open()) },
        };
        let now = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap();
        let started = Started { boottime: now - 100 * SECOND, wall: 1_700_000_000, id: *b"0123456789abcdef" };
        let view = View::new(Sources { proc: open(), cgroup }, started).unwrap();
        Self { directory, view }
    }

    fn text(&mut self, node: Node) -> String {
        let mut out = Vec::new();
        self.view.render(node, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }
}

const V1: &[(&str, &str)] = &[
    (
        "memory.stat",
        "total_cache 1048576\ntotal_active_file 1048576\ntotal_shmem 4096\nhierarchical_memory_limit 67108864\n",
    ),
    ("memory.usage_in_bytes", "33554432\n"),
    ("memory.limit_in_bytes", "9223372036854771712\n"),
    ("cpu.cfs_quota_us", "150000\n"),
    ("cpu.cfs_period_us", "100000\n"),
    ("cpuacct.stat", "user 3000\nsystem 1000\n"),
    ("cgroup.procs", "1\n2\n3\n"),
    ("blkio.throttle.io_service_bytes_recursive", "8:0 Read 512\nTotal 512\n"),
    ("blkio.throttle.io_serviced_recursive", "8:0 Read 1\nTotal 1\n"),
];

const V2: &[(&str, &str)] = &[
    ("memory.stat", "file 1048576\nactive_file 1048576\nshmem 4096\n"),
    ("memory.current", "33554432\n"),
    ("memory.max", "67108864\n"),
    ("cpu.max", "150000 100000\n"),
    ("cpu.stat", "usage_usec 40000000\nuser_usec 30000000\nsystem_usec 10000000\n"),
    ("pids.current", "3\n"),
    ("io.stat", "8:0 rbytes=512 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n"),
    (
        "cpu.pressure",
        "some avg10=1.50 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    ),
];

#[test]
fn both_versions_of_cgroups_show_the_same() {
    for (v2, files) in [(false, V1), (true, V2)] {
        let mut fixture = Fixture::new(v2, files);
        let meminfo = fixture.text(Node::Meminfo);
        assert!(meminfo.starts_with("MemTotal:          65536 kB\nMemFree:           32768 kB\n"), "{meminfo}");
        assert!(meminfo.contains("MemAvailable:      33792 kB\n"), "{meminfo}");
        assert_eq!(fixture.view.cpus().unwrap(), 2);
        assert_eq!(fixture.text(Node::CpuOnline), "0-1\n");
        assert_eq!(
            fixture.text(Node::Cpuinfo),
            "processor\t: 0\nmodel name\t: X\n\nprocessor\t: 1\nmodel name\t: X\n\n"
        );
        let stat = fixture.text(Node::Stat);
        assert!(stat.starts_with("cpu  3000 0 1000 160") && stat.contains("\nbtime 1700000000\n"), "{stat}");
        let uptime = fixture.text(Node::Uptime);
        assert!(uptime.starts_with("100.") && uptime.contains(" 160."), "{uptime}");
        assert!(fixture.text(Node::Loadavg).ends_with(" 1/3 0\n"));
        assert_eq!(fixture.text(Node::Diskstats), "   0       0 disk 1 0 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n");
        let pressure = if v2 { "some avg10=1.50" } else { "some avg10=0.00" };
        assert!(fixture.text(Node::PressureCpu).starts_with(pressure));
        assert_eq!(fixture.text(Node::PressureMemory).lines().count(), 2);
        let Sysinfo { uptime, loads, totalram, freeram, sharedram, procs, mem_unit, .. } =
            fixture.view.sysinfo().unwrap();
        assert_eq!((uptime, totalram, freeram, sharedram), (100, 64 << 20, 32 << 20, 4096));
        assert_eq!((procs, mem_unit), (3, 1));
        assert!((20_000..22_000).contains(&loads[0]), "0.4 * (1 - e^(-100/60)) * 65536 is 21,262: {loads:?}");
    }
}

#[test]
fn limits_that_change_show_at_once() {
    let mut fixture = Fixture::new(true, V2);
    assert_eq!(fixture.text(Node::CpuOnline), "0-1\n");
    write(&fixture.directory, "cpu.max", "max 100000\n");
    write(&fixture.directory, "memory.max", "134217728\n");
    assert_eq!(fixture.text(Node::CpuOnline), "0-3\n");
    assert_eq!(fixture.text(Node::Cpuinfo).matches("processor").count(), 4);
    assert!(fixture.text(Node::Meminfo).starts_with("MemTotal:         131072 kB\n"));
    write(&fixture.directory, "cpu.max", "1000 100000\n");
    assert_eq!(fixture.text(Node::CpuOnline), "0\n");
}

#[test]
fn without_controllers_the_host_is_the_limit() {
    for v2 in [false, true] {
        let mut fixture = Fixture::new(v2, &[]);
        assert_eq!(fixture.view.cpus().unwrap(), 4);
        assert!(fixture.text(Node::Meminfo).starts_with("MemTotal:        1048576 kB\nMemFree:         1048576 kB\n"));
        assert_eq!(fixture.text(Node::Diskstats), "");
        assert!(fixture.text(Node::Loadavg).ends_with(" 1/1 0\n"));
        assert_eq!(fixture.text(Node::PressureIo).lines().count(), 2);
    }
}

#[test]
fn the_machine_is_named_after_the_sandbox() {
    let mut fixture = Fixture::new(true, &[]);
    assert_eq!(fixture.text(Node::ProductUuid), "30313233-3435-3637-3839-616263646566\n");
    assert_eq!(fixture.text(Node::SysVendor) + &fixture.text(Node::ProductName), "Garth\nGarth sandbox\n");
}

#[test]
fn a_sandbox_that_begins_begins_at_nothing() {
    let mut fixture = Fixture::new(true, V2);
    fixture.text(Node::Stat);
    write(&fixture.directory, "cpu.stat", "user_usec 0\nsystem_usec 0\n");
    let boottime = Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap();
    fixture.view.begin(Started { boottime, wall: 5, id: [0; 16] });
    let stat = fixture.text(Node::Stat);
    assert!(stat.starts_with("cpu  0 0 0 ") && stat.contains("\nbtime 5\n"), "{stat}");
    assert!(fixture.text(Node::Uptime).starts_with("0."));
}

#[test]
fn a_proc_that_is_none_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let open = || OwnedFd::from(fs::File::open(directory.path()).unwrap());
    let view = || View::new(Sources { proc: open(), cgroup: Cgroup::V2(open()) }, Started::default());
    assert_eq!(view().unwrap_err().kind(), io::ErrorKind::NotFound);
    write(&directory, "meminfo", "Nonsense: 1\n");
    assert_eq!(view().unwrap_err().kind(), io::ErrorKind::InvalidData);
}
