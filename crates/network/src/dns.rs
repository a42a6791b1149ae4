//! The DNS forwarder: questions from sandboxes go to the host's own resolvers.
//!
//! ```text
//! sandbox --udp/tcp 53--> nft dnat --> gateway:PORT  forwarder  --new socket per question--> resolver
//! ```
//!
//! It looks at no more of a message than its header and question, caches nothing, and is bounded in
//! every direction: questions under way per sandbox and in all, connections, time, bytes. It runs in
//! a thread of its own, so that a flood of questions costs the daemon nothing but that thread.

mod forwarder;
mod limits;
mod question;
mod resolvers;
mod service;

use std::io;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};

use resolvers::Resolvers;
pub(crate) use service::Service;

use crate::{Error, ErrorKind};

/// Both listening sockets, on the same port.
#[derive(Debug)]
pub(crate) struct Sockets {
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
    pub(crate) port: u16,
}

/// How often another port is tried when the kernel's choice for UDP is taken for TCP.
const ATTEMPTS: u32 = 16;

/// Binds to the port of before, or to another when that is taken or 0, in the network namespace of
/// the calling thread.
pub(crate) fn bind(gateway: Ipv4Addr, port: u16) -> Result<Sockets, Error> {
    let ports = std::iter::once(port).chain(std::iter::repeat_n(0, ATTEMPTS as usize));
    let mut last = io::Error::from(io::ErrorKind::AddrInUse);
    for port in ports {
        match bind_both(gateway, port) {
            Ok(sockets) => return Ok(sockets),
            Err(error) => last = error,
        }
    }
    Err(Error::because(ErrorKind::Dns, format!("cannot listen for DNS on {gateway}"), last))
}

fn bind_both(gateway: Ipv4Addr, port: u16) -> io::Result<Sockets> {
    let udp = UdpSocket::bind((gateway, port))?;
    let port = udp.local_addr()?.port();
    let tcp = TcpListener::bind((gateway, port))?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok(Sockets { udp, tcp, port })
}
