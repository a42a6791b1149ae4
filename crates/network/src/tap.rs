//! A wire whose end is a virtual machine's: the namespace holds no address that answers, only the bridge between both.
//!
//! ```text
//!  guest's interface == tap0 --bridge-- eth0 ===veth=== gv<tag>-<n>  (the host's end and its rules, as for all)
//! ```
//!
//! The guest has the hardware address that the host knows for the sandbox, and `eth0` another, or the bridge would keep
//! the guest's frames. The host's rules see the guest as they see any sandbox that may send what it likes.

use std::os::fd::{BorrowedFd, OwnedFd};

use garth_kernel::netlink::Socket;
use garth_kernel::rtnl::{self, Mac};
use garth_kernel::{netns, tap};

use crate::slot::INSIDE;

const TAP: &str = "tap0";
const BRIDGE: &str = "br0";

/// What `eth0` has instead; the namespace is the only place where it is seen.
const OTHER: Mac = [0x02, 0x69, 0, 0, 0, 1];

/// Makes the tap in a sandbox's namespace.
pub(crate) fn make(netns: BorrowedFd<'_>, mtu: u32) -> std::io::Result<OwnedFd> {
    within(netns, || {
        let tap = tap::make(TAP)?;
        let mut socket = Socket::route()?;
        socket.apply(&[rtnl::add_link(BRIDGE, "bridge")])?;
        let (bridge, own, wire) = (find(&socket, BRIDGE)?, find(&socket, TAP)?, find(&socket, INSIDE)?);
        let mut requests: Vec<_> = [bridge, own].map(rtnl::without_link_local).into();
        requests.extend([rtnl::set_mac(wire, &OTHER), rtnl::set_mtu(own, mtu)]);
        requests.extend([own, wire].map(|port| rtnl::set_master(port, bridge)));
        requests.extend([bridge, own, wire].map(rtnl::set_up));
        socket.apply(&requests)?;
        Ok(tap)
    })
}

/// Opens the one that is there.
pub(crate) fn open(netns: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    within(netns, || tap::make(TAP))
}

/// Makes one that no bridge has.
pub(crate) fn alone(netns: BorrowedFd<'_>) -> std::io::Result<OwnedFd> {
    within(netns, || {
        let tap = tap::make(TAP)?;
        let mut socket = Socket::route()?;
        let own = find(&socket, TAP)?;
        socket.apply(&[rtnl::without_link_local(own), rtnl::set_up(own)])?;
        Ok(tap)
    })
}

/// In a thread of its own, so that the caller cannot be left in the wrong namespace.
fn within<T: Send>(netns: BorrowedFd<'_>, work: impl FnOnce() -> std::io::Result<T> + Send) -> std::io::Result<T> {
    let work = || netns::enter(netns).and_then(|()| work());
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("garth-netns".to_owned()).spawn_scoped(scope, work)?;
        thread.join().map_err(|_| std::io::Error::other("the thread that makes a tap panicked"))?
    })
}

fn find(socket: &Socket, name: &str) -> std::io::Result<u32> {
    rtnl::index(socket, name).ok_or_else(|| std::io::ErrorKind::NotFound.into())
}
