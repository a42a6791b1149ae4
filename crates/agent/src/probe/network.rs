//! Connections that are tried.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with, sockopt};

/// What is blocked by a rule of the sandbox's own is refused at once; the rest would be an answer of a network.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connects, and closes; `ETIMEDOUT` after a second. By hand, for the standard library hides the error's number.
pub(super) fn connect(address: SocketAddr) -> io::Result<()> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::STREAM, flags, None)?;
    match rustix::net::connect(&socket, &address) {
        Err(Errno::INPROGRESS) => {}
        result => return Ok(result?),
    }
    let patience = PATIENCE.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    match poll(&mut [PollFd::new(&socket, PollFlags::OUT)], Some(&patience))? {
        0 => Err(Errno::TIMEDOUT.into()),
        _ => Ok(sockopt::socket_error(&socket)??),
    }
}

/// To a port of its own.
pub(super) fn loopback() -> io::Result<()> {
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::LOCALHOST), 0))?;
    connect(listener.local_addr()?)
}
