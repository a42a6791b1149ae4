//! A sandbox with a kernel of its own.

use super::*;

const BOOT: &str = "0b4f8a4e-8a5d-4d6f-9a55-6f2d7e0c1a11";
const OTHER_BOOT: &str = "7c1d2f3a-1111-4222-8333-444455556666";
const VERSION: &str = "Linux version 6.1.0-50-cloud-amd64 (builder) #1 SMP";

fn stat(pid: i32, name: &str, start: u64) -> String {
    format!("{pid} ({name}) S 1{} {start} 0 0\n", " 0".repeat(17))
}

fn status() -> String {
    let sets = ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"].map(|set| format!("{set}:\t0000000000000000\n"));
    format!(
        "Name:\tqemu\nUid:\t90000\t90000\t90000\t90000\nGid:\t90000\t90000\t90000\t90000\nGroups:\t \n\
         NSpid:\t4242\t1\n{}NoNewPrivs:\t1\nSeccomp:\t2\n",
        sets.concat()
    )
}

const MOUNTS: &str = "\
42 65 0:40 / / ro,nosuid,nodev,noexec,relatime - tmpfs tmpfs ro,size=1024k
43 42 254:0 /usr/bin/qemu /usr/bin/qemu ro,nosuid,nodev,relatime - ext4 /dev/vda rw
44 42 254:0 /usr/lib/libz.so.1.2 /lib/libz.so.1 ro,nosuid,nodev,relatime - ext4 /dev/vda rw
46 42 254:0 /var/cache/garth/guest/7a/vmlinux /guest/vmlinux ro,nosuid,nodev,noexec - ext4 /dev/vda rw
47 42 0:56 /guests/000000000000001a/disk.ext4 /disks/root rw,nosuid,nodev,noexec - btrfs /dev/loop0 rw
48 42 254:0 /var/lib/garth/run/c0/own /own rw,nosuid,nodev,noexec,relatime - ext4 /dev/vda rw
49 42 0:40 /dev/null /dev/null rw,nosuid,noexec,relatime - tmpfs tmpfs ro,size=1024k
50 42 0:56 /guests/000000000000001a/memory/state//deleted /snapshot/state ro,nosuid,nodev,noexec - btrfs /dev/loop0 rw
";
const KVM: &str = "51 42 0:40 /dev/kvm /dev/kvm rw,nosuid,noexec,relatime - tmpfs tmpfs ro,size=1024k\n";

/// What the host sees of a machine that is as it should be.
pub(super) fn host() -> HostFacts {
    let [own, hypervisor] = super::super::machine::of_ours(&subject(Runtime::Microvm));
    HostFacts {
        status: status(),
        mountinfo: MOUNTS.to_owned(),
        shared: shared(&["mnt", "pid", "net", "ipc", "uts", "cgroup"]),
        memory: Some(512 << 20),
        pids: Some(129),
        cpus: Some(2000),
        disk: Some(DiskUse { used: 0, limit: Some(Limits::default().disk) }),
        descriptors: ["/dev/null", "socket:[7]", "/disks/root", "/run/garth/ids.lock"].map(str::to_owned).to_vec(),
        boot_id: format!("{BOOT}\n"),
        version: format!("{VERSION}\n"),
        processes_of_ours: vec![(own, stat(1, "garth (serve)", 77)), (hypervisor, stat(4242, "qemu", 99))],
        ..HostFacts::default()
    }
}

/// What comes of the tries that only this level has.
pub(super) fn good(id: &str, one: &Try) -> Option<Observed> {
    let text = |text: &str| Some(Observed::Text(text.to_owned()));
    match (id, one) {
        ("kernel", Try::Read(path)) if path.ends_with("boot_id") => text(&format!("{OTHER_BOOT}\n")),
        ("kernel", _) => text(&format!("{VERSION}\n")),
        ("processes", Try::Read(_)) => Some(Observed::Errno(2)),
        ("numbers", Try::Read(path)) if path == "/proc/meminfo" => text("MemTotal:  230000 kB\n"),
        ("metadata" | "private-networks", _) => Some(Observed::Errno(111)),
        _ => None,
    }
}

#[track_caller]
fn broken(id: &'static str, worse: impl FnOnce(&mut HostFacts)) {
    outside(Runtime::Microvm, id, worse);
}

#[track_caller]
fn mounted(line: &str) {
    broken("mounts", |host| host.mountinfo += &format!("99 42 {line}\n"));
}

#[test]
fn a_machine_that_is_as_it_should_be_passes() {
    assert_eq!(failed(Runtime::Microvm, |_| {}, |_| {}, |_, _| None), [""; 0]);
    assert_eq!(failed(Runtime::Microvm, |of| of.network = Network::None, |_| {}, |_, _| None), [""; 0]);
    let more = |host: &mut HostFacts| {
        for line in [
            "254:0 /var/lib/garth/run/c0/share0.sock /shares/volume0 ro,nosuid,nodev,noexec - ext4 /dev/vda rw",
            "254:0 /var/cache/garth/templates/0a/memory /snapshot/memory ro,nosuid,nodev,noexec - ext4 /dev/vda rw",
        ] {
            host.mountinfo += &format!("99 42 {line}\n");
        }
    };
    assert_eq!(failed(Runtime::Microvm, |_| {}, more, |_, _| None), [""; 0]);
}

#[test]
fn a_kernel_that_is_the_hosts_fails() {
    let read = |wanted: &'static str, said: &'static str| {
        let worse = move |_: &str, one: &Try| match one {
            Try::Read(path) if path.ends_with(wanted) => Some(Observed::Text(said.to_owned())),
            _ => None,
        };
        failed(Runtime::Microvm, |_| {}, |_| {}, worse)
    };
    assert_eq!(read("boot_id", BOOT), ["kernel"]);
    assert_eq!(read("boot_id", "none"), ["kernel"]);
    assert_eq!(read("/proc/version", ""), ["kernel"]);
    assert_eq!(read("/proc/version", "Linux version 7.0"), [""; 0]);
    broken("kernel", |host| host.boot_id.clear());
    inside(Runtime::Microvm, "kernel", PERM);
}

#[test]
fn a_process_is_the_hosts_by_name_and_start_and_not_by_number() {
    let seen = |name: &str, start| {
        let said = stat(4242, name, start);
        failed(
            Runtime::Microvm,
            |_| {},
            |_| {},
            move |_, one| match one {
                Try::Read(path) if path == "/proc/4242/stat" => Some(Observed::Text(said.clone())),
                _ => None,
            },
        )
    };
    assert_eq!(seen("qemu", 99), ["processes"]);
    assert_eq!(seen("qemu", 98), [""; 0]);
    assert_eq!(seen("sh", 99), [""; 0]);
    inside(Runtime::Microvm, "processes", Observed::Text(String::new()));
    inside(Runtime::Microvm, "processes", Observed::Done);
}

#[test]
fn an_attack_by_network_or_size_that_works_fails() {
    for id in ["host-addresses", "metadata", "private-networks", "neighbours", "numbers", "no-new-privs"] {
        inside(Runtime::Microvm, id, Observed::Done);
    }
    inside(Runtime::Microvm, "metadata", Observed::Errno(110));
    inside(Runtime::Microvm, "private-networks", Observed::Errno(110));
    inside(Runtime::Microvm, "loopback", PERM);
    inside(Runtime::Microvm, "numbers", Observed::Text("MemTotal:  300000 kB\n".to_owned()));
}

#[test]
fn a_hypervisor_with_anything_to_take_fails() {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let zero = format!("{set}:\t0000000000000000");
        broken("capabilities", |host| host.status = host.status.replace(&zero, &format!("{set}:\t0000000000000400")));
        broken("capabilities", |host| host.status = host.status.replace(&zero, ""));
    }
    broken("capabilities", |host| host.status = host.status.replace("NoNewPrivs:\t1", "NoNewPrivs:\t0"));
    broken("filter", |host| host.status = host.status.replace("Seccomp:\t2", "Seccomp:\t0"));
    broken("users", |host| host.status = host.status.replace("90000", "0"));
    broken("users", |host| host.status = host.status.replace("90000", "1000"));
    broken("users", |host| host.status = host.status.replace("Uid:\t90000\t90000\t90000", "Uid:\t90000\t90000\t0"));
    broken("users", |host| host.status = host.status.replace("Gid:\t90000", "Gid:\t0"));
    broken("users", |host| host.status = host.status.replace("Groups:\t ", "Groups:\t6 "));
    broken("namespaces", |host| host.shared = shared(&["mnt", "pid", "ipc", "uts", "cgroup"]));
    broken("namespaces", |host| host.status = host.status.replace("4242\t1", "4242"));
    broken("descriptors", |host| host.descriptors.push("/var/lib/garth".to_owned()));
    broken("descriptors", |host| host.descriptors.clear());
}

#[test]
fn a_hypervisor_that_sees_more_than_it_opens_fails() {
    mounted("254:0 /etc /etc ro,nosuid,nodev,noexec - ext4 /dev/vda rw");
    mounted("254:0 /usr /usr ro,nosuid,nodev - ext4 /dev/vda rw");
    mounted("254:0 / /usr/lib/x ro,nosuid,nodev - ext4 /dev/vda rw");
    mounted("254:0 /usr/lib/y /usr/lib/y rw,nosuid,nodev - ext4 /dev/vda rw");
    mounted("254:0 /usr/lib/y /usr/lib/y ro,nodev - ext4 /dev/vda rw");
    mounted("254:0 /usr/lib/y /usr/lib/y ro,nosuid - ext4 /dev/vda rw");
    mounted("0:20 /1 /usr/lib/y ro,nosuid,nodev - proc proc rw");
    mounted("0:6 /vda /dev/vda rw,nosuid,noexec - devtmpfs devtmpfs rw");
    mounted("0:6 /vda /dev/urandom rw,nosuid,noexec - devtmpfs devtmpfs rw");
    mounted("254:0 /var/lib/garth /own rw,nosuid,nodev,noexec - ext4 /dev/vda rw");
    mounted("0:56 /guests/000000000000001b/disk.ext4 /disks/usr rw,nosuid,nodev,noexec - btrfs /dev/loop0 rw");
    mounted("0:56 /guests/000000000000001b/memory/state /snapshot/x ro,nosuid,nodev,noexec - btrfs /dev/loop0 rw");
    mounted("0:56 /guests/000000000000001a/memory/state /snapshot/x rw,nosuid,nodev,noexec - btrfs /dev/loop0 rw");
    mounted("254:0 /var/lib/garth/run/c0/control.sock /shares/volume0 ro,nosuid,nodev,noexec - ext4 /dev/vda rw");
    mounted("254:0 /var/lib/garth/run/c0/share0.sock /shares/volume0 rw,nosuid,nodev,noexec - ext4 /dev/vda rw");
    broken("mounts", |host| host.mountinfo = host.mountinfo.replace("01a/", "01b/"));
    broken("mounts", |host| host.mountinfo = host.mountinfo.replace("run/c0/own", "run/c0"));
    broken("mounts", |host| host.mountinfo = host.mountinfo.replace("/ / ro", "/ / rw"));
    broken("mounts", |host| host.mountinfo.clear());
}

#[test]
fn limits_of_a_machine_are_the_guests_and_some_for_the_hypervisor() {
    broken("memory-limit", |host| host.memory = Some((256 << 20) - 1));
    broken("memory-limit", |host| host.memory = Some((768 << 20) + 1));
    broken("memory-limit", |host| host.memory = None);
    broken("pids-limit", |host| host.pids = Some(4096));
    broken("pids-limit", |host| host.pids = None);
    broken("cpu-limit", |host| host.cpus = Some(4000));
    broken("disk-limit", |host| host.disk = None);
    let lower = |of: &mut Subject| of.limits.memory = ByteSize::mib(240);
    assert_eq!(failed(Runtime::Microvm, lower, |_| {}, |_, _| None), ["memory-limit"]);
}

#[test]
fn what_keeps_the_kernel_apart_is_said() {
    let said = |translated, mounts: &str| {
        let (mut of, mut host) = (subject(Runtime::Microvm), host());
        of.guest = of.guest.map(|guest| super::super::machine::Guest { translated, ..guest });
        host.mountinfo += mounts;
        judge::accelerator(&Evidence { facts: &Facts { subject: of, host }, tried: &[] })
    };
    assert!(said(true, "").is_ok_and(|evidence| evidence.contains("QEMU's translator and not the processor")));
    assert!(said(false, KVM).is_ok_and(|evidence| evidence.starts_with("KVM")));
    assert!(said(false, "").is_err());
    assert!(said(true, KVM).is_err());
}
