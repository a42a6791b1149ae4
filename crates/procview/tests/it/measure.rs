use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use garth_procview::Node;

use crate::support::{Running, World, now, server};

/// The median and the 99th percentile.
fn latency(mut step: impl FnMut()) -> (Duration, Duration) {
    let one = |_| {
        let start = Instant::now();
        step();
        start.elapsed()
    };
    let mut all: Vec<Duration> = (0..5000).map(one).collect();
    all.sort_unstable();
    (all[all.len() / 2], all[all.len() * 99 / 100])
}

/// As `cat` reads a file: two reads, the second one finds the end.
fn read(path: &Path) {
    let mut file = File::open(path).unwrap();
    let mut buffer = [0; 65536];
    assert!(file.read(&mut buffer).unwrap() > 0);
    assert_eq!(file.read(&mut buffer).unwrap(), 0);
}

#[test]
#[ignore = "a measurement: run with --release -- --ignored --nocapture"]
fn time_to_read_a_file() {
    let Some(world) = World::new("time_to_read_a_file") else { return };
    let mut server = server(&world.fuse, &world.cgroup, now());
    for node in [Node::Meminfo, Node::Stat, Node::Cpuinfo, Node::Uptime, Node::Loadavg, Node::Swaps] {
        let mut out = Vec::new();
        let time = latency(|| {
            out.clear();
            server.view().render(node, &mut out).unwrap();
        });
        println!("{node:?}: rendered in {time:?} (p50, p99)");
    }
    let _running = Running::start(server);
    for name in ["meminfo", "stat", "cpuinfo", "uptime", "loadavg", "swaps"] {
        let (ours, kernels) = (world.path(name), Path::new("/proc").join(name));
        println!(
            "{name}: read in {:?} (p50, p99), the kernel's own in {:?}",
            latency(|| read(&ours)),
            latency(|| read(&kernels))
        );
    }
}
