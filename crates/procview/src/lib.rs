//! The files of /proc and /sys that show one sandbox of the `sysbox` runtime its own memory, processors and age
//! instead of the host's, for the runtime, which binds them over the real ones and owns the loop that serves them.
//!
//! ```text
//!  process in the sandbox --read /proc/meminfo--> kernel --request--> fuse fd
//!                                                                       | the caller polls it, then
//!                                                       Server::serve --+--> Session (bytes in, bytes out)
//!                                                                               | a handle's first read
//!                        host's /proc, the sandbox's cgroups --> View::render --+
//! ```
//!
//! The server lives in a small process of its own for each sandbox, so it is one thread, holds little, and does
//! nothing while nobody reads: there is no timer, load averages are brought up to date when they are asked for.
//! Only kernel files are read, the cgroups' again for every snapshot, so a limit that changes shows at once.
//!
//! It does not mount, bind, fork, poll or answer system calls: the caller does, with [`NODES`], [`DIRECTORIES`] and
//! [`View::sysinfo`]. Pressure cannot be waited for (that takes writing to the files). It keeps nothing over a restart; the numbers go on from the cgroup's. What it says is advice for
//! programs that size themselves, the limits are the cgroup's.
#![forbid(unsafe_code)]

mod activity;
mod cpuinfo;
mod disk;
mod error;
mod memory;
mod processors;
mod reader;
mod server;
mod session;
mod snapshots;
mod tree;
mod view;
mod wire;

pub use error::Error;
pub use reader::{Cgroup, Sources};
pub use server::{Served, Server};
pub use session::Owner;
pub use tree::{DIRECTORIES, NODES, Node, Place};
pub use view::{Started, Sysinfo, View};
