//! What a stranger in the network of a Pod gets: of its agent, and of what others say to that.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::thread::{self, JoinHandle};

use garth_spec::pod::PORT;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, eth, recv, socket_with, sockopt};

/// Sent in clear at the end, and heard if all before it was.
const END: &[u8] = b"this is the end of what was listened to, and it is in clear";

/// What the agent of a Pod answers to this.
pub fn answer(pod: &str, said: &str) -> String {
    let mut agent = TcpStream::connect((pod, PORT)).expect("the agent listens");
    // It may hang up before it has read all.
    let _ = agent.write_all(said.as_bytes()).and_then(|()| agent.shutdown(Shutdown::Write));
    let mut answer = Vec::new();
    let _ = agent.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// A listener on all interfaces of the node.
pub struct Wiretap {
    pod: Ipv4Addr,
    listener: JoinHandle<Vec<u8>>,
}

impl Wiretap {
    /// Begins to listen to the agent of a Pod (packet(7)).
    pub fn open(pod: &str) -> Self {
        let pod: Ipv4Addr = pod.parse().expect("a Pod has an address");
        let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::CLOEXEC, Some(eth::ALL));
        let socket = socket.expect("a packet socket");
        sockopt::set_socket_recv_buffer_size_force(&socket, 64 << 20).expect("room");
        Self { pod, listener: thread::spawn(move || listen(&socket, pod)) }
    }

    /// Whether all that was said until now has been heard.
    pub fn is_done(&self) -> bool {
        // A stranger, who is hung up on.
        let _ = TcpStream::connect((self.pod, PORT)).and_then(|mut stranger| stranger.write_all(END));
        self.listener.is_finished()
    }

    /// All bytes to and from the agent.
    pub fn heard(self) -> Vec<u8> {
        self.listener.join().expect("the listener")
    }
}

fn listen(socket: &OwnedFd, pod: Ipv4Addr) -> Vec<u8> {
    let (mut heard, mut packet) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        let (length, _) = recv(socket, packet.as_mut_slice(), RecvFlags::empty()).expect("a packet");
        let Some(said) = said(&packet[..length], pod) else { continue };
        heard.extend_from_slice(said);
        if said.windows(END.len()).any(|window| window == END) {
            return heard;
        }
    }
}

/// What a packet of TCP over IPv4 carries, if it goes to or comes from the agent (RFC 791, RFC 9293).
fn said(packet: &[u8], pod: Ipv4Addr) -> Option<&[u8]> {
    let is_tcp = packet.first()? >> 4 == 4 && *packet.get(9)? == 6;
    let segment = packet.get(usize::from(packet[0] & 15) * 4..)?;
    let port = |at: usize| Some(u16::from_be_bytes(segment.get(at..at + 2)?.try_into().ok()?));
    let from = packet.get(12..16)? == pod.octets() && port(0)? == PORT;
    let to = packet.get(16..20)? == pod.octets() && port(2)? == PORT;
    (is_tcp && (from || to)).then(|| segment.get(usize::from(segment[12] >> 4) * 4..)).flatten()
}
