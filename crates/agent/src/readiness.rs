//! Descriptors that the event loop watches.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use garth_kernel::signalfd::SignalFd;
use garth_kernel::supervise::Supervisor;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Types whose raw descriptor is theirs and stays the same until they are dropped.
pub trait Steady: AsRawFd {}

impl Steady for OwnedFd {}
impl Steady for SignalFd {}
impl Steady for Supervisor {}

/// Watches a non-blocking descriptor.
#[expect(
    deprecated,
    reason = "unsound only for types whose descriptor may change; its successor is an unsafe function"
)]
pub fn watch<T: Steady>(fd: T, interest: Interest) -> io::Result<AsyncFd<T>> {
    AsyncFd::with_interest(fd, interest)
}
