//! The whole product as its users see it: the `garth` program, a real daemon, real sandboxes. Needs root.

#[path = "../support/yard.rs"]
mod yard;

mod bad_input;
mod containment;
mod files;
mod lifecycle;
mod processes;
mod real_job;
