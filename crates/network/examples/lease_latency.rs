//! How long a lease takes, in a network namespace of its own that plays the host: run as root.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on should say where")]

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use garth_kernel::netns;
use garth_network::{Network, NetworkConfig};
use garth_spec::SandboxId;

fn main() {
    let host = Network::loopback_only().unwrap();
    netns::enter(host.as_fd()).unwrap();
    let data = tempfile::tempdir().unwrap();
    let config = NetworkConfig::new(data.path(), "bench");
    let warm = config.warm as u64;

    let start = Instant::now();
    drop(Network::loopback_only().unwrap());
    println!("loopback only          {:>9.1?}", start.elapsed());

    let cold = Network::open(NetworkConfig { warm: 0, ..config.clone() }).unwrap();
    let first = timed(|| drop(cold.lease(SandboxId::from_bits(1)).unwrap()));
    println!("the host's first lease {first:>9.1?}");
    cold.release(SandboxId::from_bits(1));
    report("cold", (2..202).map(|id| run(&cold, id, Duration::ZERO)).collect());
    cold.close().unwrap();
    drop(cold);

    let network = Network::open(config).unwrap();
    drop(network.lease(SandboxId::from_bits(1)).unwrap());
    network.release(SandboxId::from_bits(1));
    let pause = Duration::from_millis(20);
    std::thread::sleep(pause * 5);
    report("warm, 50 a second", (2..102).map(|id| run(&network, id, pause)).collect());
    report("warm, back to back", (200..400).map(|id| run(&network, id, Duration::ZERO)).collect());
    std::thread::sleep(pause * 5);
    let held: Vec<_> = (1000..1000 + 8 * warm).map(SandboxId::from_bits).collect();
    let mut leases = Vec::new();
    report("burst of 64", held.iter().map(|id| timed(|| leases.push(network.lease(*id).unwrap()))).collect());
    held.iter().for_each(|id| network.release(*id));
    let mut took: Vec<_> =
        (2000..3000).map(|id| timed(|| leases.push(network.lease(SandboxId::from_bits(id)).unwrap()))).collect();
    report("last 100 of 1,000", took.split_off(900));
    took.truncate(100);
    report("first 100 of 1,000", took);
    (2000..3000).for_each(|id| network.release(SandboxId::from_bits(id)));
    println!("close, 1,000 released  {:>9.1?}", timed(|| network.close().unwrap()));
}

/// One lease, held for no time; then `pause`.
fn run(network: &Network, id: u64, pause: Duration) -> Duration {
    let id = SandboxId::from_bits(id);
    let took = timed(|| drop(network.lease(id).unwrap()));
    network.release(id);
    std::thread::sleep(pause);
    took
}

fn timed(act: impl FnOnce()) -> Duration {
    let start = Instant::now();
    act();
    start.elapsed()
}

fn report(what: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    println!("{what:<22} p50 {:>9.1?}  p95 {:>9.1?}  p99 {:>9.1?}", at(50), at(95), at(99));
}
