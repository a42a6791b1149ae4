//! How long a lease takes, in a network namespace of its own that plays the host: run as root.
#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on should say where")]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
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

    let pause = Duration::from_millis(20);
    let start = Instant::now();
    drop(Network::loopback_only().unwrap());
    println!("loopback only          {:>9.1?}", start.elapsed());

    let cold = Network::open(NetworkConfig { warm: 0, ..config.clone() }).unwrap();
    let first = timed(|| drop(cold.lease(SandboxId::from_bits(1)).unwrap()));
    println!("the host's first lease {first:>9.1?}");
    cold.release(SandboxId::from_bits(1));
    report("cold, 50 a second", (2..52).map(|id| run(&cold, id, pause)).collect());
    let given: Vec<Owned> = (0..50).map(|_| Owned::new()).collect();
    let run_in = |(id, owned): (u64, &Owned)| {
        let netns = owned.netns.try_clone().unwrap();
        let took = timed(|| drop(cold.lease_in(SandboxId::from_bits(id), netns).unwrap()));
        cold.release(SandboxId::from_bits(id));
        std::thread::sleep(pause);
        took
    };
    report("into a given one", (300..).zip(&given).map(run_in).collect());
    let loopback = |_| {
        let owned = Owned::new();
        timed(|| Network::loopback_in(owned.netns.as_fd()).unwrap())
    };
    report("loopback in one", (0..50).map(loopback).collect());
    drop(given);
    cold.close().unwrap();
    drop(cold);

    let network = Network::open(config).unwrap();
    drop(network.lease(SandboxId::from_bits(1)).unwrap());
    network.release(SandboxId::from_bits(1));
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

/// A network namespace that belongs to a user namespace of its own, as a sandbox makes it.
struct Owned {
    netns: OwnedFd,
    /// Ends when its input does.
    holder: Child,
}

impl Owned {
    fn new() -> Self {
        let mut holder = Command::new("unshare")
            .args(["-Urn", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        holder.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let netns = File::open(format!("/proc/{}/ns/net", holder.id())).unwrap().into();
        Self { netns, holder }
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        drop(self.holder.stdin.take());
        self.holder.wait().unwrap();
    }
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
