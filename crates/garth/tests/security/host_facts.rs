//! What /proc, /sys and the filesystem must not tell about the host.

use crate::yard::Yard;

fn yard() -> Yard {
    let yard = Yard::new();
    yard.ok(&["create", "nosy", "--network", "none"]);
    yard
}

#[test]
fn guest_cannot_read_dangerous_proc_nodes() {
    let yard = yard();
    for node in [
        "kcore",
        "keys",
        "key-users",
        "timer_list",
        "sched_debug",
        "latency_stats",
        "kallsyms",
        "kmsg",
        "vmallocinfo",
        "slabinfo",
        "iomem",
        "ioports",
        "modules",
        "interrupts",
        "partitions",
        "diskstats",
        "cmdline",
        "config.gz",
        "mtrr",
    ] {
        let got = yard.sh("nosy", &format!("head -c 64 /proc/{node} 2>/dev/null | wc -c"));
        assert_eq!(got.trim(), "0", "/proc/{node}");
    }
}

#[test]
fn guest_sees_no_host_hardware_in_sys() {
    let yard = yard();
    for dir in [
        "firmware",
        "class/dmi",
        "devices/virtual/dmi",
        "block",
        "class/block",
        "bus",
        "kernel/debug",
        "kernel/tracing",
        "kernel/security",
        "module",
        "devices/pci0000:00",
        "class/tty",
        "power",
        "hypervisor",
    ] {
        let got = yard.sh("nosy", &format!("ls -A /sys/{dir} 2>/dev/null | wc -l"));
        assert_eq!(got.trim(), "0", "/sys/{dir}");
    }
}

#[test]
fn guest_sees_only_its_own_processes_mounts_and_name() {
    let yard = yard();
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("hostname");
    assert_ne!(yard.sh("nosy", "hostname"), host.trim());
    assert!(yard.sh("nosy", "ls -d /proc/[0-9]* | wc -l").trim().parse::<u32>().expect("count") < 12);
    let mounts = yard.sh("nosy", "cat /proc/self/mountinfo");
    assert!(!mounts.contains(&*yard.data_dir().to_string_lossy()), "{mounts}");
    assert!(!mounts.contains("/dev/vda") && !mounts.contains("/dev/sda"), "{mounts}");
}

#[test]
fn guest_cannot_find_the_hosts_secrets() {
    let yard = yard();
    assert!(!yard.sh_succeeds("nosy", "grep -q '^root:[^*!]' /etc/shadow"));
    for path in [
        "/etc/ssh",
        "/etc/ssl/private",
        "/root/.ssh",
        "/etc/apt/auth.conf.d",
        "/var/lib/garth",
        "/var/run/docker.sock",
        "/etc/pip.conf",
        "/root/.bash_history",
    ] {
        let got = yard
            .sh("nosy", &format!("ls -A {path} 2>/dev/null | wc -l; test -s {path} -a -f {path} && echo full; true"));
        assert_eq!(got.trim(), "0", "{path}");
    }
    let host_id = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let seen = yard.sh("nosy", "cat /etc/machine-id 2>/dev/null; true");
    assert!(seen.is_empty() || seen.trim() != host_id.trim(), "the host's machine id");
    let data = yard.data_dir().to_string_lossy().into_owned();
    assert!(!yard.sh_succeeds("nosy", &format!("test -e {data}")));
}

#[test]
fn guest_environment_holds_nothing_of_the_daemons() {
    let yard = Yard::new();
    let mut command = yard.command(&["create", "nosy"]);
    command.env("SECRET_OF_THE_HOST", "hunter2");
    assert_eq!(crate::yard::finish(&mut command, b"").code, 0);
    assert!(!yard.sh("nosy", "env; tr '\\0' '\\n' < /proc/self/environ").contains("hunter2"));
}

#[test]
fn the_hosts_usr_cannot_be_changed_through_the_host_image() {
    let yard = yard();
    yard.sh("nosy", "echo owned > /usr/bin/garth-probe && rm -f /usr/bin/env && echo x >> /usr/lib/os-release; true");
    assert!(!std::path::Path::new("/usr/bin/garth-probe").exists());
    assert!(std::path::Path::new("/usr/bin/env").exists());
}
