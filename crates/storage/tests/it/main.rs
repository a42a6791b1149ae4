//! The pool against the real kernel. Needs root; what else a test needs and lacks, it skips loudly.

mod both;
mod support;
