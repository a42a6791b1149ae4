use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{Running, World, now, server};

/// The median and the 99th percentile of reading a file whole.
fn latency(path: &Path) -> (Duration, Duration) {
    let one = |_| {
        let start = Instant::now();
        assert!(!fs::read(path).unwrap().is_empty());
        start.elapsed()
    };
    let mut all: Vec<Duration> = (0..5000).map(one).collect();
    all.sort_unstable();
    (all[all.len() / 2], all[all.len() * 99 / 100])
}

#[test]
#[ignore = "a measurement: run with --release -- --ignored --nocapture"]
fn time_to_read_a_file() {
    let Some(world) = World::new("time_to_read_a_file") else { return };
    let _running = Running::start(server(&world.fuse, &world.cgroup, now()));
    for name in ["meminfo", "stat", "cpuinfo", "uptime", "loadavg", "swaps"] {
        let kernels = latency(&Path::new("/proc").join(name));
        println!("{name}: {:?} (p50, p99); the kernel's own: {kernels:?}", latency(&world.path(name)));
    }
}
