//! Projects in Firecracker and Cloud Hypervisor: the tests of the level `microvm` again, with each as the handler.
//! `GARTH_TEST_FIRECRACKER` and `GARTH_TEST_CLOUD_HYPERVISOR` name their files. Both need KVM, so this makes some:
//!
//! ```text
//!  this program --> QEMU without KVM, with a processor that has SVM --> Debian with kvm-amd, and garth
//!                     `-- the program `microvm` --> a daemon --> the VMM in its jail --> a project
//! ```
//!
//! Needs root, qemu-system-x86_64, mmdebstrap, mke2fs and mkfs.erofs. `GARTH_TEST_LAB` has it run other tests than all that
//! fit, by the words of `cargo test`. It takes half an hour: one emulated processor runs another.

mod debian;
#[path = "../support/yard.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod yard;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use yard::Yard;

/// Tests of the program `microvm`. Moving files and disk limits are the same whoever runs the guest, and take minutes here.
const TESTS: &str = "machine::a_guest_has machine::the_program machine::every_check network:: pausing:: warm:: \
                     faults::a_killed faults::a_guest_that_panics faults::a_guest_goes_on";

/// Firecracker has no device for them.
const VOLUMES: &str = "volumes::";

const ORDERS: &str = r#"
mkdir -p /dev/pts /dev/shm; mount -t devpts devpts /dev/pts; mount -t tmpfs shm /dev/shm; mount -t tmpfs run /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +cpu +io +memory +pids > /sys/fs/cgroup/cgroup.subtree_control
for m in kvm_amd dummy loop btrfs overlay fuse tun veth bridge nf_tables nft_ct nft_masq nft_chain_nat nft_fib nft_reject_inet; do
  modprobe $m || echo "lab: no $m"
done
ip link set lo up
# Without a way out the kernel answers for unreachable addresses itself, and not to all (icmp_ratelimit).
ip link add out type dummy; ip link set out up; ip address add 192.0.2.1/24 dev out; ip route add default dev out
mkdir -p /var/cache/garth/guest; tar -C /var/cache/garth/guest -xf /mnt/payload/guest.tar
cp /mnt/payload/vmm /usr/local/bin/$(cat /mnt/payload/name)
export GARTH_TEST_PROGRAM=/mnt/payload/garth
export GARTH_TEST_HANDLER=microvm/$(cat /mnt/payload/name)
/mnt/payload/garth doctor 2>&1 | grep -A4 microvm | sed 's/^/lab: /'
/mnt/payload/microvm --test-threads=1 --nocapture $(cat /mnt/payload/tests); result=$?
timed() {
  begun=$(date +%s%N); /mnt/payload/garth "$@" || echo "lab: failed"
  echo "lab: $* took $((($(date +%s%N) - begun) / 1000000)) ms"
}
timed create figures --runtime $GARTH_TEST_HANDLER --memory 256MiB
for order in "start figures" "exec figures -- true" "pause figures" "resume figures" "stop figures" \
             "start figures" "rm -f figures"; do
  timed $order
done
grep -h template /var/lib/garth/garth.log | sed 's/^/lab: /'
echo "RESULT $result"
"#;

#[test]
fn projects_live_in_firecracker() {
    run("projects_live_in_firecracker", "GARTH_TEST_FIRECRACKER", "firecracker", TESTS);
}

#[test]
fn projects_live_in_cloud_hypervisor() {
    run(
        "projects_live_in_cloud_hypervisor",
        "GARTH_TEST_CLOUD_HYPERVISOR",
        "cloud-hypervisor",
        &format!("{TESTS} {VOLUMES}"),
    );
}

fn run(test: &str, given: &str, name: &str, tests: &str) {
    // One machine at a time: it takes all processors there are.
    static ALONE: Mutex<()> = Mutex::new(());
    let Some(vmm) = std::env::var_os(given).map(PathBuf::from) else {
        return eprintln!("SKIP {test}: {given} names no program");
    };
    if let Some(missing) = debian::missing() {
        return eprintln!("SKIP {test}: {missing} is not installed");
    }
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let base = debian::base();
    let work = tempfile::tempdir_in("/var/tmp").expect("work");
    let tests = std::env::var("GARTH_TEST_LAB").unwrap_or_else(|_| tests.to_owned());
    let console = base.boot(&payload(work.path(), &vmm, name, &tests), name);
    console.lines().filter(|line| line.contains("lab:")).for_each(|line| println!("{line}"));
    assert!(console.contains("RESULT 0"), "{console}");
}

/// The programs and what guests start from, as a disk.
fn payload(work: &Path, vmm: &Path, name: &str, tests: &str) -> PathBuf {
    let dir = work.join("payload");
    std::fs::create_dir(&dir).expect("dir");
    let copy = |from: &Path, to: &str| {
        std::fs::copy(from, dir.join(to)).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    };
    copy(Path::new(env!("CARGO_BIN_EXE_garth")), "garth");
    copy(vmm, "vmm");
    copy(&debian::test_program("microvm"), "microvm");
    std::fs::write(dir.join("name"), name).expect("name");
    std::fs::write(dir.join("tests"), tests).expect("tests");
    std::fs::write(dir.join("orders"), ORDERS).expect("orders");
    guest_files(&dir.join("guest.tar"));
    debian::image(&dir, &work.join("payload.ext4"), "1G")
}

/// What guests are started from, made here: by this agent, and by no daemon that others use.
fn guest_files(into: &Path) {
    let cache = debian::place().join("cache");
    let yard = Yard::new();
    let made = yard::finish(yard.command(&["setup", "microvm"]).env("GARTH_CACHE_DIR", &cache), b"");
    assert_eq!(made.code, 0, "{made:?}");
    let key = std::fs::read_link(cache.join("guest/current")).expect("what guests start from");
    // With the times of its files, which tell that nobody changed them.
    let mut tar = std::process::Command::new("tar");
    debian::must(
        tar.args(["--format=posix", "-cf"]).arg(into).arg("-C").arg(cache.join("guest")).arg("current").arg(key),
    );
}
