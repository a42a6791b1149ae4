//! The machine as Cloud Hypervisor takes it, and as it writes it into a snapshot.

use serde_json::{Value, json};

use crate::inside;
use crate::machine::{Drive, DriveAccess, DriveRate, Machine, Nic};
use crate::vmm::VSOCK;

/// Of the guest in its own machine: every machine has a vsock of its own, so all may have the same.
const GUEST_CID: u32 = 3;

/// In milliseconds.
const A_SECOND: u32 = 1000;

/// What it asks of Landlock, or else refuses the machine: Linux 6.2 (`ABI` of its landlock.rs).
const LANDLOCK: u32 = 3;

/// The body of `vm.create`.
pub(super) fn of(machine: &Machine) -> Value {
    // The jail is what encloses it; this comes on top of it where the kernel can.
    let landlock = garth_kernel::landlock::version() >= LANDLOCK;
    let mut config = json!({
        "cpus": { "boot_vcpus": machine.vcpus, "max_vcpus": machine.vcpus, "nested": false },
        // Who serves a share reads and writes where the guest says.
        "memory": { "size": machine.memory.bytes(), "shared": !machine.shares.is_empty() },
        "payload": { "kernel": inside::KERNEL, "initramfs": inside::INITRD, "cmdline": machine.command_line() },
        "disks": machine.drives.iter().map(disk).collect::<Vec<_>>(),
        "rng": { "src": inside::RANDOM },
        "balloon": { "size": 0, "deflate_on_oom": true, "free_page_reporting": true },
        // Its standard output, whether that is a terminal or not.
        "serial": { "mode": "Tty" },
        "console": { "mode": "Off" },
        "vsock": { "cid": GUEST_CID, "socket": format!("{}/{VSOCK}", inside::OWN) },
        // Besides what is named above it opens nothing but what it saves.
        "landlock_enable": landlock,
        "landlock_rules": [{ "path": inside::OWN, "access": "rw" }],
    });
    if let Some(nic) = machine.nic {
        config["net"] = json!([self::nic(nic)]);
    }
    if !machine.shares.is_empty() {
        config["fs"] = machine.shares.iter().map(|tag| share(tag)).collect();
    }
    config
}

fn disk(drive: &Drive) -> Value {
    json!({
        "id": drive.serial,
        "serial": drive.serial,
        "path": inside::drive(drive),
        "readonly": drive.access == DriveAccess::ReadOnly,
        // Left to itself it would look at the disk, whose content is the guest's.
        "image_type": "Raw",
        "rate_limiter_config": limiter(drive.rate),
    })
}

fn share(tag: &str) -> Value {
    json!({ "id": tag, "tag": tag, "socket": inside::share(tag), "num_queues": 1, "queue_size": 1024 })
}

fn limiter(rate: DriveRate) -> Value {
    let bucket = |a_second: Option<u64>| {
        a_second.map(|size| json!({ "size": size, "one_time_burst": null, "refill_time": A_SECOND }))
    };
    match rate == DriveRate::default() {
        true => Value::Null,
        false => json!({ "bandwidth": bucket(rate.bytes), "ops": bucket(rate.operations) }),
    }
}

fn nic(nic: Nic) -> Value {
    json!({
        "id": "net",
        "tap": inside::TAP,
        "mac": nic.mac_text(),
        // It saves the address that the tap has on the host, and would give it to the next tap, which takes a privilege.
        "host_mac": null,
    })
}

/// Puts all that was asked for into what a program wrote that a guest may have taken over: the machines that are made
/// of it must not be less enclosed than it was. What it added, identifiers and defaults, stays.
pub(super) fn restate(theirs: &mut Value, ours: &Value) {
    match (theirs, ours) {
        (Value::Object(theirs), Value::Object(ours)) => {
            for (key, ours) in ours {
                restate(theirs.entry(key).or_insert(Value::Null), ours);
            }
        }
        (Value::Array(theirs), Value::Array(ours)) if theirs.len() == ours.len() => {
            theirs.iter_mut().zip(ours).for_each(|(theirs, ours)| restate(theirs, ours));
        }
        (theirs, ours) => *theirs = ours.clone(),
    }
}
