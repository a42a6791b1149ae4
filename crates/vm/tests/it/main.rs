//! The guest's files with the distribution's own kernel, booted for real.

mod boot;
mod files;
mod machine;
mod probe;
mod world;
