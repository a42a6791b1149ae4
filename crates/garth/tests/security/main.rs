//! Attacks from inside a sandbox of the `default` runtime. Each test is named for the escape that it denies, and runs
//! as root inside the sandbox through the real product. Needs root.

#[path = "../support/yard.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod yard;

mod boundary;
mod host_facts;
mod neighbours;
mod network;
mod volumes;
