//! The whole product as its users see it: the `garth` program, a real daemon, real sandboxes. Needs root.

#[path = "../support/yard.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod yard;

#[macro_use]
#[path = "../support/level.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod level;

#[path = "../support/authority.rs"]
mod authority;

#[path = "../support/pace.rs"]
mod pace;

#[path = "../support/promises.rs"]
mod promises;

mod bad_input;
mod containment;
mod encrypted;
mod files;
mod lifecycle;
mod pause;
mod processes;
mod rates;
mod real_job;
mod restrictions;
mod verify;
mod volumes;
