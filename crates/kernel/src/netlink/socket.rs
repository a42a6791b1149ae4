use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::message::{Message, Received, attributes, messages, u32_at};

/// A request that the kernel refused, or a socket that failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel's answer to one request of a batch.
    #[error("the kernel refused to {request}{}", .detail.as_deref().map(|d| format!(" ({d})")).unwrap_or_default())]
    Refused {
        /// What was asked.
        request: &'static str,
        /// The kernel's own words, where it gave some (`NETLINK_EXT_ACK`).
        detail: Option<String>,
        /// The error number as an I/O error.
        #[source]
        source: io::Error,
    },
    /// Sending or receiving failed.
    #[error("talking to the kernel over netlink")]
    Socket(#[from] io::Error),
}

impl Error {
    /// The error number, where there is one.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } | Self::Socket(source) => source.raw_os_error(),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Refused { source, .. } | Error::Socket(source) => source.kind(),
        };
        Self::new(kind, error)
    }
}

/// A notification from a multicast group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// `RTM_…`, or `NFNL_SUBSYS_… << 8 | message`.
    pub kind: u16,
    /// Everything after the header.
    pub payload: Vec<u8>,
}

/// A netlink socket, bound to the network namespace of the thread that made it.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// Large enough for any dump part: the kernel fills at most 32 KiB at a time (netlink(7)).
const BUFFER: usize = 64 << 10;

/// Requests sent in one system call; each answer with an error text is below 1 KiB, so the default
/// receive buffer of 208 KiB cannot overflow.
const BATCH: usize = 32;

/// `NETLINK_ROUTE` is protocol 0, which is what no protocol means.
const ROUTE: Option<Protocol> = None;

impl Socket {
    /// A socket for links, addresses, routes and neighbours. Changing them needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn route() -> io::Result<Self> {
        Self::open(ROUTE, 0, SocketFlags::CLOEXEC)
    }

    /// A socket for netfilter's requests. Needs `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn netfilter() -> io::Result<Self> {
        Self::open(Some(NETFILTER), 0, SocketFlags::CLOEXEC)
    }

    /// A non-blocking socket that hears what happens to routes (each group a bit: group n is
    /// `1 << (n - 1)`).
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn route_events(groups: u32) -> io::Result<Self> {
        Self::open(ROUTE, groups, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }

    /// As [`Socket::route_events`], for netfilter's groups.
    ///
    /// # Errors
    /// Those of socket(2) and bind(2).
    pub fn netfilter_events(groups: u32) -> io::Result<Self> {
        Self::open(Some(NETFILTER), groups, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
    }

    fn open(protocol: Option<Protocol>, groups: u32, flags: SocketFlags) -> io::Result<Self> {
        let fd = rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            switch_on(fd.as_fd(), option)?;
        }
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, groups))?;
        Ok(Self { fd, sequence: 0, buffer: vec![0; BUFFER] })
    }

    /// Sends requests in as few system calls as possible and waits for every answer.
    ///
    /// The kernel goes on after a request that it refuses, so later ones may have been applied.
    ///
    /// # Errors
    /// The first refusal, or the socket's own failure.
    pub fn apply(&mut self, requests: &[Message]) -> Result<(), Error> {
        let mut first = Ok(());
        for batch in requests.chunks(BATCH) {
            let start = self.sequence.wrapping_add(1);
            let mut bytes = Vec::with_capacity(batch.len() * 96);
            for request in batch {
                self.sequence = self.sequence.wrapping_add(1);
                bytes.extend_from_slice(&request.encode(self.sequence, libc::NLM_F_ACK as u16));
            }
            self.send(&bytes)?;
            let outcome = self.acknowledgements(batch, start)?;
            if first.is_ok() {
                first = outcome;
            }
        }
        first
    }

    /// Sends one request whose answer is a list; `each` gets kind and payload of every part.
    ///
    /// # Errors
    /// The kernel's refusal, or the socket's own failure.
    pub fn dump(&mut self, request: &Message, each: impl FnMut(u16, &[u8])) -> Result<(), Error> {
        self.query(request, libc::NLM_F_DUMP, each)
    }

    /// Sends one request whose answer is one message.
    ///
    /// # Errors
    /// The kernel's refusal, or the socket's own failure.
    pub fn get(&mut self, request: &Message, each: impl FnMut(u16, &[u8])) -> Result<(), Error> {
        self.query(request, libc::NLM_F_ACK, each)
    }

    fn query(&mut self, request: &Message, flags: i32, mut each: impl FnMut(u16, &[u8])) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let sequence = self.sequence;
        self.send(&request.encode(sequence, flags as u16))?;
        loop {
            let length = self.receive()?;
            for message in messages(&self.buffer[..length]).filter(|m| m.sequence == sequence) {
                match i32::from(message.kind) {
                    libc::NLMSG_DONE => return Ok(()),
                    libc::NLMSG_ERROR => return refusal(&message, request.label()).map_or(Ok(()), Err),
                    _ => each(message.kind, message.payload),
                }
            }
        }
    }

    /// The notifications that are waiting; none when there are none. `None` instead of a list means
    /// that some were lost (`ENOBUFS`), and everything should be looked at again.
    ///
    /// # Errors
    /// The socket's own failure.
    pub fn events(&mut self) -> io::Result<Option<Vec<Event>>> {
        let mut events = Vec::new();
        loop {
            match self.receive() {
                Ok(length) => events.extend(
                    messages(&self.buffer[..length]).map(|m| Event { kind: m.kind, payload: m.payload.to_vec() }),
                ),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Some(events)),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }

    fn acknowledgements(&mut self, batch: &[Message], start: u32) -> Result<Result<(), Error>, Error> {
        let mut outcome = Ok(());
        let mut missing = batch.len();
        while missing > 0 {
            let length = self.receive()?;
            for message in messages(&self.buffer[..length]) {
                let index = message.sequence.wrapping_sub(start) as usize;
                let Some(request) = batch.get(index) else { continue };
                if i32::from(message.kind) != libc::NLMSG_ERROR {
                    continue;
                }
                missing -= 1;
                if let (Some(error), true) = (refusal(&message, request.label()), outcome.is_ok()) {
                    outcome = Err(error);
                }
            }
        }
        Ok(outcome)
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.fd, bytes, SendFlags::empty())?;
        Ok(())
    }

    fn receive(&mut self) -> io::Result<usize> {
        loop {
            match rustix::net::recv(&self.fd, &mut self.buffer[..], RecvFlags::empty()) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
                Ok((length, _)) => return Ok(length),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `None` for an acknowledgement; the error in an `NLMSG_ERROR` else.
fn refusal(message: &Received<'_>, request: &'static str) -> Option<Error> {
    /// `NLM_F_ACK_TLVS` and `NLMSGERR_ATTR_MSG` of linux/netlink.h.
    const HAS_ATTRIBUTES: u16 = 0x200;
    const TEXT: u16 = 1;
    let errno = u32_at(message.payload, 0).map_or(libc::EPROTO, |code| (code as i32).wrapping_neg());
    if errno == 0 {
        return None;
    }
    // With NETLINK_CAP_ACK only the header of the refused request comes back: 4 + 16 bytes.
    let extra = message.payload.get(20..).filter(|_| message.flags & HAS_ATTRIBUTES != 0).unwrap_or_default();
    let detail = attributes(extra)
        .find(|(kind, _)| *kind == TEXT)
        .map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
    Some(Error::Refused { request, detail, source: io::Error::from_raw_os_error(errno) })
}

fn switch_on(fd: BorrowedFd<'_>, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the kernel reads `size_of_val(&on)` bytes at `&on` during the call and keeps nothing;
    // `fd` is borrowed, so open.
    let status = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            (&raw const on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
