//! Attacks from inside a sandbox, at every level. Each test is named for the escape that it denies, and runs as root inside
//! the sandbox through the real product. Where a level gives more (users or a kernel of its own), what is denied elsewhere
//! happens, and the host is looked at instead. Needs root.

#[path = "../support/yard.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod yard;

#[macro_use]
#[path = "../support/level.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod level;

mod boundary;
mod host;
mod host_facts;
mod kernel;
mod neighbours;
mod network;
mod numbers;
mod street;
mod volumes;
