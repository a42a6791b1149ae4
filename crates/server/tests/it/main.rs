//! The daemon on this host, as root: real disks, networks and sandboxes.
//!
//! A daemon is this test program again, in a process of its own, so that it can be killed.

mod daemon;
mod faults;
mod life;
mod measure;
mod process;
mod traces;
