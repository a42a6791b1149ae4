//! The pool against the real kernel. Needs root; what else a test needs and lacks, it skips loudly.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod both;
mod btrfs;
mod guest;
mod recovery;
mod support;
