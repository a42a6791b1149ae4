//! The real kernel asks, a server in a thread answers, for real cgroups with limits.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod files;
mod measure;
mod restart;
mod support;
