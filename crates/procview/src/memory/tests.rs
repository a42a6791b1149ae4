use super::*;
use crate::reader::number;

const HOST: Host = Host { total: 24 << 30, huge_page: 2 << 20 };

const V1: &str = "cache 1\nrss 2\ninactive_file 3\nhierarchical_memory_limit 67108864\n\
    hierarchical_memsw_limit 134217728\ntotal_cache 20971520\ntotal_rss 4194304\ntotal_shmem 1048576\n\
    total_inactive_file 12582912\ntotal_active_file 7340032\ntotal_active_anon 4096\ntotal_swap 999\n";

const V2: &str = "anon 4194304\nfile 20971520\nkernel 1\nshmem 1048576\ninactive_file 12582912\nactive_file 7340032\n\
    slab_reclaimable 2097152\nslab_unreclaimable 1048576\nworkingset_refault_file 7\n";

fn line(text: &[u8], name: &str) -> String {
    let text = std::str::from_utf8(text).unwrap();
    text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
}

fn rendered(memory: Memory) -> Vec<u8> {
    let mut out = Vec::new();
    memory.render(&mut out);
    out
}

#[test]
fn the_total_is_the_limit_and_cache_is_available() {
    let out = rendered(Memory::new(HOST, 32 << 20, Stat::parse_v1(V1)));
    for expected in [
        "MemTotal:          65536 kB",
        "MemFree:           32768 kB",
        "MemAvailable:      52224 kB",
        "Cached:            20480 kB",
        "SwapTotal:             0 kB",
        "Active:             7172 kB",
        "Shmem:              1024 kB",
        "AnonPages:          4096 kB",
        "HugePages_Total:       0",
        "Hugepagesize:       2048 kB",
    ] {
        assert_eq!(line(&out, expected.split_once(':').unwrap().0), expected);
    }
}

#[test]
fn version_2_counts_reclaimable_slab_as_available() {
    let stat = Stat { limit: number("67108864\n"), ..Stat::parse_v2(V2) };
    let memory = Memory::new(HOST, 32 << 20, stat);
    assert_eq!(memory.available, (32 + 12 + 7 + 2) << 20);
    assert_eq!(line(&rendered(memory), "Slab:"), "Slab:               3072 kB");
}

#[test]
fn without_a_limit_the_total_is_the_hosts() {
    for limit in [number("max\n"), Some(9_223_372_036_854_771_712)] {
        let memory = Memory::new(HOST, 1 << 30, Stat { limit, ..Stat::default() });
        assert_eq!((memory.total, memory.free), (24 << 30, 23 << 30));
    }
}

#[test]
fn use_above_the_limit_and_absurd_statistics_stay_within_the_total() {
    let stat = Stat { inactive_file: u64::MAX, active_file: u64::MAX, cache: u64::MAX, ..Stat::parse_v1(V1) };
    let memory = Memory::new(HOST, 65 << 20, stat);
    assert_eq!((memory.total, memory.free, memory.available, memory.stat.cache), (64 << 20, 0, 64 << 20, 64 << 20));
    assert_eq!(line(&rendered(memory), "MemFree:"), "MemFree:               0 kB");
}

#[test]
fn lines_have_the_kernels_order_and_columns() {
    let kernels = std::fs::read_to_string("/proc/meminfo").unwrap();
    let ours = String::from_utf8(rendered(Memory::new(HOST, 1 << 30, Stat::default()))).unwrap();
    let mut rest = kernels.lines();
    let name = |line: &str| line.split(':').next().unwrap().to_owned();
    for ours in ours.lines().filter(|ours| kernels.contains(&format!("{}:", name(ours)))) {
        let kernels = rest.find(|kernels| name(kernels) == name(ours)).unwrap_or_else(|| panic!("{ours} is too late"));
        let longest = 24 + if kernels.ends_with(" kB") { 3 } else { 0 };
        assert_eq!(ours.len(), kernels.len().min(longest), "{ours} {kernels}");
    }
    assert!(rest.count() < 5, "the last lines are there");
}

#[test]
fn the_hosts_total_is_parsed() {
    let host = Host::parse("MemTotal:       24683656 kB\nMemFree: 1 kB\nHugepagesize:       2048 kB\n");
    assert_eq!(host, Some(Host { total: 24_683_656 << 10, huge_page: 2 << 20 }));
    assert_eq!(Host::parse("MemFree: 1 kB\n"), None);
}
