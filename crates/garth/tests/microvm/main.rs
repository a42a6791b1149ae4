//! Sandboxes with a kernel of their own, as users see them: real guests, in QEMU, without KVM where there is none that
//! works; in another program where `GARTH_TEST_HANDLER` names its handler, as the lab does. Needs root. The first run on
//! a machine fetches a kernel and makes a file of /usr, which takes minutes.

#[path = "../support/yard.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod yard;

#[path = "../support/pace.rs"]
mod pace;

mod faults;
mod machine;
mod moving;
mod network;
mod pausing;
mod rates;
mod restrictions;
mod volumes;
mod warm;

use yard::Yard;

const QEMU: &str = "microvm/qemu";

/// What the projects are run by.
fn handler() -> String {
    std::env::var("GARTH_TEST_HANDLER").unwrap_or_else(|_| QEMU.to_owned())
}

/// A yard with a project of this name that has a kernel of its own; `None`, said loudly, where QEMU is missing.
fn project(test: &str, name: &str) -> Option<Yard> {
    project_in(Yard::new(), test, name)
}

fn project_in(yard: Yard, test: &str, name: &str) -> Option<Yard> {
    let (doctor, handler) = (yard.ok(&["doctor"]), handler());
    if handler == QEMU && !doctor.contains("vmm: QEMU") {
        yard::skip(test, "QEMU");
        return None;
    }
    assert!(doctor.contains(&format!("runtime {handler}: works")), "{doctor}");
    create(&yard, name);
    Some(yard)
}

fn create(yard: &Yard, name: &str) {
    create_with(yard, name, "none");
}

fn create_with(yard: &Yard, name: &str, network: &str) {
    yard.ok(&["create", name, "--runtime", &handler(), "--memory", "256MiB", "--network", network]);
}

/// The program that runs a project's guest, as the host numbers it.
fn pid(yard: &Yard, name: &str) -> i32 {
    let pid = yard.json(&["inspect", name])["pid"].as_i64().expect("a running sandbox");
    i32::try_from(pid).expect("a pid")
}

fn state(yard: &Yard, name: &str) -> String {
    yard.json(&["inspect", name])["state"].as_str().unwrap_or_default().to_owned()
}
