//! The end-to-end tests again, on a Debian kernel with cgroup v2 in a virtual machine of its own: this is what most
//! users have. QEMU without KVM runs it anywhere. Needs root, qemu-system-x86_64 and mmdebstrap.

#[path = "../support/yard.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod yard;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use yard::skip;

/// Tests of the `e2e` and `security` programs that need nothing that the guest lacks.
const E2E: &str = "lifecycle::default:: processes::default::exit_codes processes::default::a_timeout processes::default::kill_ends containment::default:: rates::a_disk";
const SECURITY: &str = "boundary::default:: kernel::default:: host_facts::default::guest_cannot_read";

/// Checks of the runtime `sysbox` (docs/sysbox.md) that must pass there: all that pass elsewhere, and those that need
/// controllers in the v2 tree, but for
/// - 55 to 60, 63, 64 and 71, container engines and a Garth in a sandbox: see [`ENGINE_CHECKS`];
/// - 69: 500 starts and stops, half an hour of them.
const SYSBOX: &str = "1,2,3,4,5,6,7,8,9,10,11,14,15,16,17,18,19,23,24,25,26,27,28,29,30,31,32,33,34,35,36,37,38,39,40,41,42,\
                      43,44,45,46,47,48,49,50,51,52,61,62,65,66,67,68,72";

/// Those with container engines, which pass there too: ten minutes of a translated processor, so they are asked for
/// (`--ignored`). 59 passes nowhere, as kind, k3s and k0s are not tried. `GARTH_CHECKS=58` tries others.
const ENGINE_CHECKS: &str = "55,56,57,58,60,63,64,71";

#[test]
fn everything_holds_on_cgroup_v2() {
    let Some((_alone, kernels, base)) = prepare("everything_holds_on_cgroup_v2", Base::Plain) else { return };
    let work = tempfile::tempdir_in("/var/tmp").expect("work");
    let payload = payload_image(work.path(), "", &[("e2e", E2E), ("security", SECURITY)]);
    let console = boot(&kernels.join("stable"), &base, &payload);
    assert!(console.contains("CGROUP2 cpu io memory pids"), "the guest has cgroup v2:\n{console}");
    for program in ["e2e", "security"] {
        assert!(console.contains(&format!("RESULT {program} 0")), "{program} failed on cgroup v2:\n{console}");
    }
}

/// With the newer of Debian's kernels, which has what that runtime needs.
#[test]
fn sysbox_holds_on_cgroup_v2() {
    checks_pass("sysbox_holds_on_cgroup_v2", Base::Plain, SYSBOX);
}

#[test]
#[ignore = "a quarter of an hour"]
fn engines_run_on_cgroup_v2() {
    let checks = std::env::var("GARTH_CHECKS").unwrap_or_else(|_| ENGINE_CHECKS.to_owned());
    checks_pass("engines_run_on_cgroup_v2", Base::Engines, &checks);
}

fn checks_pass(test: &str, base: Base, checks: &str) {
    let Some((_alone, kernels, base)) = prepare(test, base) else { return };
    let work = tempfile::tempdir_in("/var/tmp").expect("work");
    let payload = payload_image(work.path(), checks, &[("sysbox", "")]);
    let console = boot(&kernels.join("newer"), &base, &payload);
    assert!(console.contains("CGROUP2 cpu io memory pids"), "the guest has cgroup v2:\n{console}");
    let passes = |number: &&str| {
        let begin = format!("| {number} |");
        console.lines().any(|line| line.contains(&begin) && line.trim_end().ends_with("| pass |"))
    };
    let broken: Vec<&str> = checks.split(',').filter(|number| !passes(number)).collect();
    assert!(broken.is_empty(), "checks {broken:?} do not pass on cgroup v2:\n{console}");
}

/// The base image, made once; `None` where a program is missing, which is said.
fn prepare(test: &str, base: Base) -> Option<(MutexGuard<'static, ()>, PathBuf, PathBuf)> {
    // One guest at a time, as long as the guard is held: it takes all processors there are.
    static ALONE: Mutex<()> = Mutex::new(());
    for program in ["qemu-system-x86_64", "mmdebstrap", "mke2fs"] {
        if Command::new("which").arg(program).output().map_or(true, |o| !o.status.success()) {
            skip(test, &format!("{program} is not installed"));
            return None;
        }
    }
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cache = cache_dir();
    let kernels = base.kernels(&cache);
    let base = base_image(&cache, base);
    Some((alone, kernels, base))
}

/// Beside the test programs, so that it goes with `cargo clean`.
fn cache_dir() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cgroup-v2");
    std::fs::create_dir_all(&dir).expect("cache");
    dir
}

/// Runs a host program that must succeed.
#[track_caller]
fn must(command: &mut Command) {
    let out = command.output().expect("starts");
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// What sandboxes of the image `host` have then, so that no image of a gigabyte has to be imported there.
const ENGINES: &str = "docker.io,docker-cli,docker-buildx,docker-compose,iptables,podman,buildah,runc,crun,uidmap,passt,slirp4netns,\
                       fuse-overlayfs,netavark,aardvark-dns,busybox-static,passwd,systemd,dbus,redis-server,nginx-light,postgresql";

/// What the guest has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    /// What Garth needs. All tests of the level `default` take three times as long on the other.
    Plain,
    /// And container engines.
    Engines,
}

impl Base {
    /// The kernels whose modules it has.
    fn kernels(self, cache: &Path) -> PathBuf {
        match self {
            Self::Plain => cache.to_owned(),
            Self::Engines => cache.join("engines"),
        }
    }
}

/// A Debian with its kernel and a newer one, made once.
fn base_image(cache: &Path, base: Base) -> PathBuf {
    let image = cache.join(match base {
        Base::Plain => "base-3.ext4",
        Base::Engines => "base-4.ext4",
    });
    if image.exists() {
        return image;
    }
    let root = cache.join("root");
    let _ = std::fs::remove_dir_all(&root);
    let mut packages =
        "linux-image-cloud-amd64,btrfs-progs,nftables,iproute2,python3,procps,kmod,util-linux,attr,libcap2-bin"
            .to_owned();
    if base == Base::Engines {
        packages = format!("{packages},{ENGINES}");
    }
    let without = ["man", "doc", "locale"].map(|name| format!("--dpkgopt=path-exclude=/usr/share/{name}/*"));
    let keep = |kernel: &str| {
        let to = base.kernels(cache).join(kernel);
        std::fs::create_dir_all(&to).expect("a directory for a kernel");
        format!("--customize-hook=cp -L \"$1/vmlinuz\" \"$1/initrd.img\" '{}'", to.display())
    };
    let newer = "sed -n 's/ trixie main/ trixie-backports main/p' /etc/apt/sources.list > /etc/apt/sources.list.d/newer.list && apt-get update && \
                 apt-get install -y --no-install-recommends -t trixie-backports linux-image-cloud-amd64";
    must(
        Command::new("mmdebstrap")
            .args(["--variant=minbase", "--components=main", &format!("--include={packages}")])
            .args(without)
            .args([keep("stable"), format!("--customize-hook=chroot \"$1\" sh -c \"{newer}\""), keep("newer")])
            .arg("trixie")
            .arg(&root),
    );
    let init = root.join("guest-init");
    std::fs::write(&init, GUEST_INIT).expect("init");
    std::fs::set_permissions(&init, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("executable");
    let made = cache.join("base.new");
    must(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-d"]).arg(&root).arg(&made).arg("4G"));
    std::fs::remove_dir_all(&root).expect("remove");
    std::fs::rename(made, &image).expect("rename");
    image
}

const GUEST_INIT: &str = r#"#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev 2>/dev/null
mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm; mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup; mount -o remount,rw /
echo +cpu +io +memory +pids > /sys/fs/cgroup/cgroup.subtree_control
ip link set lo up
for m in loop btrfs overlay fuse tun veth bridge nf_tables nft_ct nft_masq nft_chain_nat nft_fib nft_reject_inet; do modprobe $m; done
mkdir -p /mnt/payload; mount /dev/vdb /mnt/payload
echo "CGROUP2 $(tr ' ' '\n' < /sys/fs/cgroup/cgroup.subtree_control | grep -xE 'cpu|io|memory|pids' | sort | tr '\n' ' ')"
uname -r
export GARTH_TEST_PROGRAM=/mnt/payload/garth GARTH_TEST_ENGINES=machine
for program in e2e security sysbox; do
  [ -e /mnt/payload/$program ] || continue
  export GARTH_CHECKS=$(cat /mnt/payload/checks)
  /mnt/payload/$program --test-threads=1 --nocapture $(cat /mnt/payload/$program.tests) 2>&1; echo "RESULT $program $?"
done
sync; echo o > /proc/sysrq-trigger; sleep 60
"#;

/// The programs under test, as a disk.
fn payload_image(work: &Path, checks: &str, programs: &[(&str, &str)]) -> PathBuf {
    let dir = work.join("payload");
    std::fs::create_dir(&dir).expect("dir");
    std::fs::copy(env!("CARGO_BIN_EXE_garth"), dir.join("garth")).expect("garth");
    std::fs::write(dir.join("checks"), checks).expect("checks");
    for (program, tests) in programs {
        std::fs::copy(test_program(program), dir.join(program)).expect("test program");
        std::fs::write(dir.join(format!("{program}.tests")), tests).expect("tests");
    }
    let image = work.join("payload.ext4");
    must(Command::new("mke2fs").args(["-q", "-F", "-t", "ext4", "-d"]).arg(&dir).arg(&image).arg("1G"));
    image
}

/// The newest build of another test program of this crate: cargo puts it beside this one.
fn test_program(name: &str) -> PathBuf {
    let here = std::env::current_exe().expect("this program");
    let mut found: Vec<_> = std::fs::read_dir(here.parent().expect("deps"))
        .expect("deps")
        .flatten()
        .map(|e| e.path())
        .filter(|p| {
            p.extension().is_none()
                && p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&format!("{name}-")))
        })
        .collect();
    found.sort_by_key(|p| p.metadata().and_then(|m| m.modified()).ok());
    found.pop().unwrap_or_else(|| panic!("no {name} test program: run `cargo test -p garth`, not one target alone"))
}

/// Boots, runs the guest to its power-off, returns what it printed.
fn boot(kernel: &Path, base: &Path, payload: &Path) -> String {
    let drive = |file: &Path, more: &str| format!("file={},format=raw,if=virtio{more}", file.display());
    let out = Command::new("timeout")
        .args([
            "2400",
            "qemu-system-x86_64",
            "-M",
            "q35",
            "-accel",
            "tcg,thread=multi",
            "-cpu",
            "max",
            "-m",
            "3072",
            "-smp",
            "2",
        ])
        .args(["-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-serial", "stdio", "-nic", "none"])
        .arg("-kernel")
        .arg(kernel.join("vmlinuz"))
        .arg("-initrd")
        .arg(kernel.join("initrd.img"))
        .args([
            "-append",
            "console=ttyS0 quiet root=/dev/vda rw init=/guest-init panic=-1 mitigations=off no_timer_check \
             clearcpuid=cx16",
        ])
        .args(["-drive", &drive(base, ",snapshot=on"), "-drive", &drive(payload, ",readonly=on")])
        .stdin(std::process::Stdio::null())
        .output()
        .expect("qemu starts");
    format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr))
}
