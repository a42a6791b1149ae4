//! Many streams over the one byte pipe between a host and its guest: a virtio-serial port or a vsock connection.
//!
//! ```text
//!  Stream (AsyncRead + AsyncWrite)         frame: bytes in, frames out, never waits
//!    | write: a frame into `out`             ^
//!    v                                       |
//!  mux: streams, credit, what a peer may do (sans-IO, behind one lock)
//!    |                                       ^
//!    v  all that waits, in one write         |
//!  driver: one task for a pipe, below it `greeting`, which finds the start of a session in whatever is there
//! ```
//!
//! A serial port has no beginning and no end: bytes of a host that died in the middle of a frame wait in it for the
//! next one. So the host begins with [`frame::PREAMBLE`] zero bytes, which complete whatever frame was cut off (its end
//! mark is then wrong, so nothing of it is delivered) and otherwise mean nothing, then a hello with a nonce. The guest
//! throws the old session away and answers with that nonce; the host drops all until it sees it.
//!
//! Only the host opens streams. What a peer says is bounded and checked: at most [`MOST_STREAMS`] streams, [`WINDOW`]
//! bytes of each unread, and nothing is allocated for a length that a peer merely states. It knows neither HTTP nor
//! virtual machines, and authenticates nobody: who holds the pipe is the peer.
//!
//! Where what is between the two is a network of others, [`sealed`] makes a stream that only they can read.
#![forbid(unsafe_code)]

mod driver;
mod error;
pub mod frame;
mod greeting;
mod guest;
mod host;
mod mux;
mod pipe;
pub mod sealed;
mod session;
mod stream;

pub use error::{ConnectError, End, OpenError, SealError, Violation};
pub use guest::Guest;
pub use host::Host;
pub use stream::Stream;

/// How much of a stream may be unread at its receiver.
pub const WINDOW: usize = 256 << 10;
/// How many streams may be open at once.
pub const MOST_STREAMS: usize = 256;
/// What both sides must speak.
pub const VERSION: u32 = 1;
