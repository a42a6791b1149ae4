//! What Firecracker is told. It refuses a request with a field that it does not know.

use serde_json::{Value, json};

use super::{MEMORY, STATE};
use crate::http::Request;
use crate::inside;
use crate::machine::{Drive, DriveAccess, DriveRate, Machine, Nic};
use crate::vmm::VSOCK;

/// Of the guest in its own machine: every machine has a vsock of its own, so all may have the same.
const GUEST_CID: u32 = 3;

/// In milliseconds.
const A_SECOND: u32 = 1000;

/// All that makes a machine, to its start.
pub(super) fn boot(machine: &Machine) -> Vec<Request> {
    let shape = json!({ "vcpu_count": machine.vcpus, "mem_size_mib": machine.memory_mib(), "smt": false });
    let mut requests = vec![Request::put("/machine-config", shape), boot_source(machine)];
    requests.extend(machine.drives.iter().map(drive));
    requests.extend(machine.nic.map(nic));
    let vsock = json!({ "guest_cid": GUEST_CID, "uds_path": own(VSOCK) });
    let balloon = json!({ "amount_mib": 0, "deflate_on_oom": true, "free_page_reporting": true });
    requests.push(Request::put("/vsock", vsock));
    requests.push(Request::put("/entropy", json!({})));
    requests.push(Request::put("/balloon", balloon));
    requests.push(Request::put("/actions", json!({ "action_type": "InstanceStart" })));
    requests
}

/// Its disks have no serial that could be chosen: what a guest reads is made of numbers of the file's on the host
/// (`build_disk_image_id` in its block device). They are attached in the order of these requests, before all other
/// devices but the balloon, so the guest is told their serials in that order.
fn boot_source(machine: &Machine) -> Request {
    // Its machine has no way to go off (its ACPI tables name no sleep state); a restart ends it.
    let mut words = machine.command_line() + " garth.off=restart";
    let serials: Vec<&str> = machine.drives.iter().map(|drive| drive.serial.as_str()).collect();
    if !serials.is_empty() {
        words += &format!(" garth.disks={}", serials.join(","));
    }
    let source = json!({ "kernel_image_path": inside::KERNEL, "initrd_path": inside::INITRD, "boot_args": words });
    Request::put("/boot-source", source)
}

/// None is the root device, which would come first: the initrd finds the root.
fn drive(drive: &Drive) -> Request {
    let body = json!({
        "drive_id": drive.serial,
        "path_on_host": inside::drive(drive),
        "is_root_device": false,
        "is_read_only": drive.access == DriveAccess::ReadOnly,
        // By default it tells the guest that a flush is done and does none.
        "cache_type": "Writeback",
        "io_engine": "Sync",
        "rate_limiter": limiter(drive.rate),
    });
    Request::put(format!("/drives/{}", drive.serial), body)
}

fn nic(nic: Nic) -> Request {
    let body = json!({ "iface_id": "net", "host_dev_name": inside::TAP, "guest_mac": nic.mac_text() });
    Request::put("/network-interfaces/net", body)
}

pub(super) fn state(state: &str) -> Request {
    Request::patch("/vm", json!({ "state": state }))
}

pub(super) fn save() -> Request {
    let paths = json!({ "snapshot_type": "Full", "snapshot_path": own(STATE), "mem_file_path": own(MEMORY) });
    Request::put("/snapshot/create", paths)
}

/// Its memory is the file, mapped: what the guest writes stays with the guest.
pub(super) fn load() -> Request {
    let at = |name: &str| format!("{}/{name}", inside::SNAPSHOT);
    let body = json!({
        "snapshot_path": at(STATE),
        "mem_backend": { "backend_type": "File", "backend_path": at(MEMORY) },
        "resume_vm": false,
        // Whatever the program that saved it believed.
        "vsock_override": { "uds_path": own(VSOCK) },
    });
    Request::put("/snapshot/load", body)
}

pub(super) fn balloon(mib: u64) -> Request {
    Request::patch("/balloon", json!({ "amount_mib": mib }))
}

pub(super) fn rate(serial: &str, rate: DriveRate) -> Request {
    Request::patch(format!("/drives/{serial}"), json!({ "drive_id": serial, "rate_limiter": limiter(rate) }))
}

/// A bucket of nothing is none, which also takes an earlier one away (`TokenBucket::new`).
fn limiter(rate: DriveRate) -> Value {
    let bucket = |a_second: Option<u64>| json!({ "size": a_second.unwrap_or(0), "refill_time": A_SECOND });
    json!({ "bandwidth": bucket(rate.bytes), "ops": bucket(rate.operations) })
}

/// Opening the file again makes it look at its size.
pub(super) fn reopen(serial: &str) -> Request {
    let body: Value = json!({ "drive_id": serial, "path_on_host": format!("/disks/{serial}") });
    Request::patch(format!("/drives/{serial}"), body)
}

fn own(name: &str) -> String {
    format!("{}/{name}", inside::OWN)
}
