//! A host and a guest over a socket pair, and each with a peer that misbehaves.

mod hosts;
mod peers;
mod streams;
mod support;
