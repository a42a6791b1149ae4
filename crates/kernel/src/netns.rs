//! Network namespaces: which one this thread is in, moving it to another, and making new ones.
//!
//! A thread's network namespace decides what its new sockets, its child processes and its reads of
//! `/proc/sys/net` see; a socket keeps the namespace it was made in for its whole life
//! (network_namespaces(7)).

use std::fs::File;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::netlink::Socket;
use crate::rtnl;

/// The calling thread's network namespace.
///
/// # Errors
/// Fails where `/proc` is not mounted.
pub fn current() -> io::Result<OwnedFd> {
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
}

/// Moves the calling thread, and only it, into `netns`. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// Those of setns(2): no privilege, or not a network namespace.
pub fn enter(netns: BorrowedFd<'_>) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(netns, Some(LinkNameSpaceType::Network)).map_err(io::Error::from)
}

/// Moves the calling thread, and only it, into a new network namespace. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// Those of unshare(2).
pub fn unshare() -> io::Result<()> {
    // SAFETY: the one thing that makes unshare(2) unsafe is CLONE_FILES, after which descriptors
    // no longer mean the same in every thread; only CLONE_NEWNET is passed here.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// A new network namespace with nothing in it but loopback, up. `configure` runs inside it, to set
/// sysctls.
///
/// The work happens in a thread of its own, so that the caller cannot be left in the wrong
/// namespace. Needs `CAP_SYS_ADMIN`.
///
/// # Errors
/// Those of unshare(2), of starting a thread, of netlink, and of `configure`.
pub fn with_loopback(configure: fn() -> io::Result<()>) -> io::Result<OwnedFd> {
    std::thread::Builder::new()
        .name("garth-netns".to_owned())
        .spawn(move || {
            unshare()?;
            configure()?;
            Socket::route()?.apply(&[rtnl::set_up(rtnl::LOOPBACK)])?;
            current()
        })?
        .join()
        .map_err(|_| io::Error::other("the thread that makes a network namespace panicked"))?
}
