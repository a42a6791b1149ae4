//! The agent as an ordinary process, spoken to over its socket.

mod processes;
mod running;
mod support;
