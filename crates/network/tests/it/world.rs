//! ```text
//!   sandboxes ==wires== HOST uplink 192.168.50.2 ----- 192.168.50.1 OUTSIDE
//!                        |  2001:7f8:50::2              2001:7f8:50::1
//!                        |                              on lo: internet, LAN, metadata addresses
//!                        +-- lan 10.99.0.1 ------------ 10.99.0.2 NEIGHBOUR (a second network card)
//! ```
//!
//! The uplink's own network is private, as on a laptop: what is blocked is decided by the
//! destination, not by the way there.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use garth_kernel::netns;
use garth_network::{Network, NetworkConfig};
use garth_spec::SandboxId;

pub const INTERNET4: &str = "93.184.215.14";
pub const INTERNET6: &str = "2606:2800:21f:cb07::14";
pub const METADATA: &str = "169.254.169.254";
pub const UPLINK4: &str = "192.168.50.2";
pub const UPLINK6: &str = "2001:7f8:50::2";

pub const NEIGHBOUR4: &str = "10.99.0.2";
pub const NEIGHBOUR6: &str = "fd99::2";

/// The host's own addresses; the last one is on its loopback interface, as for a local service.
pub const HOST: [&str; 5] = [UPLINK4, UPLINK6, "10.99.0.1", "fd99::1", "172.30.0.1"];

/// Addresses that OUTSIDE has and answers on, and that no sandbox may reach.
pub const PRIVATE: [&str; 16] = [
    METADATA,
    "10.20.30.40",
    "100.100.100.200",
    "168.63.129.16",
    "172.20.0.1",
    "192.0.0.192",
    "192.0.2.1",
    "192.168.50.1",
    "192.168.77.7",
    "198.18.0.1",
    "203.0.113.9",
    "240.0.0.1",
    "fd00:ec2::254",
    "2001:db8::1",
    "2002:a00:1::1",
    "64:ff9b::a14:1e28",
];

/// How long to wait for something that must not come; a refusal comes sooner.
pub const PATIENCE: Duration = Duration::from_millis(400);

/// How long to wait for something that must come, on a busy machine.
pub const LONG: Duration = Duration::from_secs(60);

pub struct World {
    pub host: OwnedFd,
    pub outside: OwnedFd,
    pub neighbour: OwnedFd,
    pub data: tempfile::TempDir,
    pub network: Network,
}

/// Everything a test needs, or `None` after saying what is missing.
pub fn world(test: &str) -> Option<World> {
    for program in ["/usr/sbin/nft", "/usr/sbin/ip"] {
        if !std::path::Path::new(program).exists() {
            eprintln!("SKIP {test}: {program}");
            return None;
        }
    }
    let Ok(host) = Network::loopback_only() else {
        eprintln!("SKIP {test}: the privilege to make network namespaces");
        return None;
    };
    let (outside, neighbour) = (Network::loopback_only().unwrap(), Network::loopback_only().unwrap());
    join(&host, &outside, &neighbour);
    serve(&outside, PRIVATE.iter().chain([&INTERNET4, &INTERNET6]));
    serve(&neighbour, &[NEIGHBOUR4, NEIGHBOUR6]);
    serve(&host, &HOST);
    let data = tempfile::tempdir().unwrap();
    let network = open(&host, NetworkConfig::new(data.path(), "t1"));
    Some(World { host, outside, neighbour, data, network })
}

pub fn open(host: &OwnedFd, config: NetworkConfig) -> Network {
    inside(host, || Network::open(config).unwrap())
}

fn join(host: &OwnedFd, outside: &OwnedFd, neighbour: &OwnedFd) {
    for netns in [host, outside, neighbour] {
        // Addresses are good at once instead of after a second of asking whether others have them.
        sh(
            netns,
            "echo 0 > /proc/sys/net/ipv6/conf/all/accept_dad; echo 0 > /proc/sys/net/ipv6/conf/default/accept_dad",
        );
    }
    // Descriptors of this process as `ip` sees them: its child inherits none, but can open ours.
    let path = |fd: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(fd));
    sh(
        host,
        &format!(
            "ip link add up0 type veth peer name up0 netns {} && ip link add lan0 type veth peer name lan0 netns {} &&
             ip addr add {UPLINK4}/24 dev up0 && ip addr add {UPLINK6}/64 dev up0 nodad && ip link set up0 up mtu 1400 &&
             ip addr add 10.99.0.1/24 dev lan0 && ip addr add fd99::1/64 dev lan0 nodad && ip link set lan0 up &&
             ip addr add 172.30.0.1/32 dev lo",
            path(outside),
            path(neighbour)
        ),
    );
    sh(
        outside,
        "ip addr add 192.168.50.1/24 dev up0 && ip addr add 2001:7f8:50::1/64 dev up0 nodad && ip link set up0 up mtu 1400",
    );
    sh(neighbour, "ip addr add 10.99.0.2/24 dev lan0 && ip addr add fd99::2/64 dev lan0 nodad && ip link set lan0 up");
    for address in PRIVATE.iter().chain([&INTERNET4, &INTERNET6]).filter(|address| **address != "192.168.50.1") {
        let length = if address.contains(':') { 128 } else { 32 };
        // 240.0.0.1 is refused by some kernels as an address; then nothing can answer there.
        sh(outside, &format!("ip addr add {address}/{length} dev lo || true"));
    }
    sh(host, "ip route add default via 192.168.50.1 && ip -6 route add default via 2001:7f8:50::1");
    // Whoever sees a packet with a sandbox's own address can answer it: only a rule can stop it.
    sh(outside, "ip route add default via 192.168.50.2 && ip -6 route add default via 2001:7f8:50::2");
    sh(neighbour, "ip route add default via 10.99.0.1 && ip -6 route add default via fd99::1");
    // The kernel tells IPv6 up to a second late that a link is up; until then it hears no neighbour.
    for (netns, link) in [(host, "up0"), (host, "lan0"), (outside, "up0"), (neighbour, "lan0")] {
        let show = format!("ip -6 addr show dev {link} scope link -tentative");
        eventually("IPv6 to hear its neighbours", || sh(netns, &show).contains("fe80:"));
    }
}

/// Servers on port 7777 of every address in `netns`: TCP sends the peer's address, UDP echoes.
pub fn serve<'a>(netns: &OwnedFd, addresses: impl IntoIterator<Item = &'a &'a str>) {
    let tcp = inside(netns, || TcpListener::bind("[::]:7777").unwrap());
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let peer = stream.peer_addr().unwrap().ip().to_canonical();
            let _ = stream.write_all(peer.to_string().as_bytes());
        }
    });
    // One socket each, because an echo must come from the address that was asked.
    for address in addresses {
        let Ok(udp) = inside(netns, || UdpSocket::bind((*address, 7777))) else { continue };
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let _ = udp.send_to(&buffer[..length], from);
            }
        });
    }
}

/// Runs `act` in a thread inside `netns`.
pub fn inside<T: Send>(netns: &OwnedFd, act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            netns::enter(netns.as_fd()).unwrap();
            act()
        });
        thread.join().unwrap()
    })
}

/// Runs a shell script in `netns`, which must succeed, and returns what it printed.
pub fn sh(netns: &OwnedFd, script: &str) -> String {
    let (output, error, status) = attempt(netns, script);
    assert!(status, "{script}\n{output}{error}");
    output
}

/// Runs a shell script in `netns`.
pub fn attempt(netns: &OwnedFd, script: &str) -> (String, String, bool) {
    inside(netns, || {
        let output = Command::new("/bin/sh").args(["-c", script]).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        (text(output.stdout), text(output.stderr), output.status.success())
    })
}

/// What the server at `address` says, over TCP.
pub fn tcp(netns: &OwnedFd, address: &str) -> std::io::Result<String> {
    tcp_within(LONG, netns, address)
}

fn tcp_within(patience: Duration, netns: &OwnedFd, address: &str) -> std::io::Result<String> {
    let to = SocketAddr::new(address.parse::<IpAddr>().unwrap(), 7777);
    inside(netns, || {
        let mut stream = TcpStream::connect_timeout(&to, patience)?;
        stream.set_read_timeout(Some(patience))?;
        let mut said = String::new();
        stream.read_to_string(&mut said)?;
        Ok(said)
    })
}

/// Whether the server at `address` answers the one packet that is sent over UDP.
pub fn udp(netns: &OwnedFd, address: &str) -> bool {
    udp_within(LONG, netns, address)
}

fn udp_within(patience: Duration, netns: &OwnedFd, address: &str) -> bool {
    let to = SocketAddr::new(address.parse::<IpAddr>().unwrap(), 7777);
    let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
    inside(netns, || {
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.set_read_timeout(Some(patience)).unwrap();
        let sent = socket.connect(to).and_then(|()| socket.send(b"?"));
        sent.is_ok() && socket.recv(&mut [0; 8]).is_ok()
    })
}

/// Whether the server at `address` answers in any way; for when it must not.
pub fn reached(netns: &OwnedFd, address: &str) -> bool {
    tcp_within(PATIENCE, netns, address).is_ok() || udp_within(PATIENCE, netns, address)
}

/// An id that no other test of this process uses.
pub fn id() -> SandboxId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    SandboxId::from_bits(NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits, up to a minute, until `done` says so.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain for: {what}");
        std::thread::yield_now();
    }
}
