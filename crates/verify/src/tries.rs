//! What every engine tries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use garth_spec::{ProbeCall, Try};

use crate::{Check, check, judge};

/// The same try of several paths.
pub fn paths(of: fn(String) -> Try, paths: &[&str]) -> Vec<Try> {
    paths.iter().map(|path| of((*path).to_owned())).collect()
}

/// Several system calls.
pub fn calls(calls: &[ProbeCall]) -> Vec<Try> {
    calls.iter().copied().map(Try::Call).collect()
}

/// Connections to a port that need not be open: what counts is who refuses.
pub fn web(addresses: &[IpAddr]) -> Vec<Try> {
    const HTTP: u16 = 80;
    addresses.iter().map(|address| Try::Connect(SocketAddr::new(*address, HTTP))).collect()
}

/// The metadata services of clouds.
pub const METADATA: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)), IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254))];

/// One address of each private or shared range.
pub const PRIVATE: [IpAddr; 7] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(100, 64, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(172, 16, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(192, 168, 0, 1)),
    IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2002, 0x0a00, 1, 0, 0, 0, 0, 1)),
];

/// An address of the internet where nobody is (RFC 5737).
pub const PUBLIC: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// What nobody may do to a kernel that others use as well. `risky` are the system calls that the level refuses.
pub fn kernel<F>(risky: &[ProbeCall]) -> Vec<Check<F>> {
    let settings = [
        "/proc/sys/kernel/panic",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/vm/overcommit_memory",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
    ];
    let mut log = paths(Try::Read, &["/proc/kmsg", "/dev/kmsg"]);
    log.extend(calls(&[ProbeCall::Syslog]));
    vec![
        check(
            "kernel-memory",
            "the kernel's memory cannot be read",
            paths(Try::Read, &["/proc/kcore", "/dev/mem", "/dev/port"]),
            judge::refused_or_empty,
        ),
        check(
            "kernel-addresses",
            "the kernel's addresses are hidden",
            paths(Try::Read, &["/proc/kallsyms"]),
            judge::no_addresses,
        ),
        check("kernel-log", "the kernel's log cannot be read", log, judge::refused_or_empty),
        check(
            "kernel-settings",
            "the machine's settings cannot be written",
            paths(Try::OpenForWrite, &settings),
            judge::refused,
        ),
        check("kernel-modules", "no module can be loaded", calls(&[ProbeCall::InitModule]), judge::refused),
        check("system-calls", "risky system calls are refused", calls(risky), judge::refused),
    ]
}

/// Character devices that are harmless, by major and minor number: null zero full random urandom tty ptmx, and terminals.
pub const DEVICES: &[(u32, Option<u32>)] =
    &[(1, Some(3)), (1, Some(5)), (1, Some(7)), (1, Some(8)), (1, Some(9)), (5, Some(0)), (5, Some(2)), (136, None)];

/// Those, and fuse and tun, which are kept in the user and network namespaces of who opens them.
pub const MORE_DEVICES: &[(u32, Option<u32>)] = &[
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
    (10, Some(229)),
    (10, Some(200)),
];

/// Which boot of which kernel it is.
pub fn boot() -> Vec<Try> {
    paths(Try::Read, &["/proc/sys/kernel/random/boot_id", "/proc/version"])
}

/// Nodes of devices through which a machine is taken over.
pub fn raw_devices<F>() -> Check<F> {
    check(
        "raw-devices",
        "memory, disks and virtualisation are not in /dev",
        paths(Try::Identity, &["/dev/mem", "/dev/kvm", "/dev/sda", "/dev/vda", "/dev/loop-control"]),
        judge::absent,
    )
}

/// And whether one can be made.
pub fn device_nodes<F>() -> Check<F> {
    check(
        "device-nodes",
        "no node of a disk can be made and opened",
        [8, 7, 254].map(|major| Try::BlockDevice { major, minor: 0 }).to_vec(),
        judge::refused,
    )
}
