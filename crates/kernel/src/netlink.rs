//! Netlink, spoken directly: requests as byte buffers, and a socket that sends a batch of them in
//! one system call and checks every answer.
//!
//! ```text
//! rtnl::add_veth(…) --Message--> Socket::apply --sendto--> kernel --one ack each--> Ok or Refused
//! ```
//!
//! Written by hand because a batch of about ten requests is the start of every sandbox's network,
//! and because the socket must be synchronous: it is used by a thread that moves between network
//! namespaces. It knows no meaning of messages; that is [`crate::rtnl`]'s.

mod message;
mod socket;

pub use message::{Attributes, Message, attributes};
pub use socket::{Error, Event, Socket};
