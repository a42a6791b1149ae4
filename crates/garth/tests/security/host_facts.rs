//! What /proc, /sys and the filesystem must not tell about the host.

use crate::host;
use crate::level::{Level, SECRET, Sandbox};

levels! {
    every:
        guest_cannot_read_dangerous_proc_nodes,
        guest_sees_no_host_hardware_in_sys,
        guest_sees_only_its_own_processes_mounts_and_name,
        guest_cannot_find_the_hosts_secrets,
        guest_environment_holds_nothing_of_the_daemons,
        the_hosts_usr_cannot_be_changed_through_the_host_image;
}

/// Empty where the kernel is the host's; a machine's kernel tells its own.
fn guest_cannot_read_dangerous_proc_nodes(sandbox: &Sandbox) {
    let mut empty =
        vec!["kcore", "keys", "key-users", "timer_list", "sched_debug", "latency_stats", "kallsyms", "kmsg"];
    empty.extend(["vmallocinfo", "slabinfo", "iomem", "ioports", "modules", "interrupts", "partitions", "cmdline"]);
    empty.extend(["config.gz", "mtrr"]);
    match sandbox.level {
        Level::Default => empty.push("diskstats"),
        // A virtual one is in its place.
        Level::Sysbox => {}
        Level::Microvm => {
            for node in ["cmdline", "iomem", "partitions", "diskstats", "interrupts", "version", "devices"] {
                let seen = sandbox.sh(&format!("cat /proc/{node}"));
                assert!(!seen.is_empty() && seen != host::text(format!("/proc/{node}")), "/proc/{node}: {seen}");
            }
            return;
        }
    }
    for node in empty {
        let got = sandbox.sh(&format!("head -c 64 /proc/{node} 2>/dev/null | wc -c"));
        assert_eq!(got.trim(), "0", "/proc/{node}");
    }
}

fn guest_sees_no_host_hardware_in_sys(sandbox: &Sandbox) {
    let mut empty = vec!["firmware/efi", "devices/pci0000:00", "bus/pci/devices", "hypervisor", "class/net/eth0"];
    if sandbox.level != Level::Microvm {
        empty.extend(["firmware", "block", "class/block", "bus", "kernel/debug", "kernel/tracing", "kernel/security"]);
        empty.extend(["module", "class/tty", "power"]);
    }
    if sandbox.level == Level::Default {
        empty.extend(["class/dmi", "devices/virtual/dmi"]);
    }
    for dir in empty {
        let got = sandbox.sh(&format!("ls -A /sys/{dir} 2>/dev/null | wc -l"));
        assert_eq!(got.trim(), "0", "/sys/{dir}");
    }
    for id in ["product_uuid", "product_serial", "board_serial", "chassis_serial"] {
        let (seen, host) = (
            sandbox.sh(&format!("cat /sys/class/dmi/id/{id} 2>/dev/null || true")),
            host::text(format!("/sys/class/dmi/id/{id}")),
        );
        assert!(seen.is_empty() || seen != host, "{id}");
    }
}

fn guest_sees_only_its_own_processes_mounts_and_name(sandbox: &Sandbox) {
    assert_ne!(sandbox.sh("hostname"), host::text("/proc/sys/kernel/hostname"));
    let mut of_the_host = std::process::Command::new("sleep").arg("314159").spawn().expect("sleep");
    let seen = sandbox.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '; true");
    of_the_host.kill().expect("kill");
    of_the_host.wait().expect("wait");
    assert!(!seen.contains("314159"), "{seen}");
    // Threads of a guest's kernel have no arguments.
    let count = sandbox
        .sh("for p in /proc/[0-9]*; do [ -n \"$(tr -d '\\0' < $p/cmdline)\" ] && echo $p; done 2>/dev/null | wc -l");
    assert!(count.parse::<u32>().expect("count") < 12, "{count}: {seen}");
    let mounts = sandbox.sh("cat /proc/self/mountinfo");
    assert!(!mounts.contains(&*sandbox.yard.data_dir().to_string_lossy()), "{mounts}");
    if sandbox.level != Level::Microvm {
        assert!(!mounts.contains("/dev/vda") && !mounts.contains("/dev/sda"), "{mounts}");
    }
}

fn guest_cannot_find_the_hosts_secrets(sandbox: &Sandbox) {
    assert!(!sandbox.succeeds("grep -q '^root:[^*!]' /etc/shadow"));
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
        let got =
            sandbox.sh(&format!("ls -A {path} 2>/dev/null | wc -l; test -s {path} -a -f {path} && echo full; true"));
        assert_eq!(got.trim(), "0", "{path}");
    }
    let seen = sandbox.sh("cat /etc/machine-id 2>/dev/null; true");
    assert!(seen.is_empty() || seen != host::text("/etc/machine-id"), "the host's machine id");
    assert!(!sandbox.succeeds(&format!("test -e {}", sandbox.yard.data_dir().display())));
}

fn guest_environment_holds_nothing_of_the_daemons(sandbox: &Sandbox) {
    let daemon = sandbox.yard.daemon_pid().expect("a daemon");
    assert!(host::text(format!("/proc/{daemon}/environ")).contains(SECRET), "the daemon has it");
    assert!(!sandbox.sh("env; cat /proc/[0-9]*/environ | tr '\\0' '\\n'; true").contains(SECRET));
}

fn the_hosts_usr_cannot_be_changed_through_the_host_image(sandbox: &Sandbox) {
    host::unchanged(&["/usr/lib/os-release"], || {
        sandbox.sh("echo owned > /usr/bin/garth-probe && mv /usr/bin/env /usr/bin/env.mine && echo x >> /usr/lib/os-release; true");
        assert!(!std::path::Path::new("/usr/bin/garth-probe").exists());
        assert!(std::path::Path::new("/usr/bin/env").exists());
    });
    sandbox.sh("mv /usr/bin/env.mine /usr/bin/env");
}
