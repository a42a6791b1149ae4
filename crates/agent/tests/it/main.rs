//! The agent as an ordinary process, spoken to over its socket.

mod envd;
mod files;
mod init;
mod kvm;
mod probe;
mod processes;
mod running;
mod support;
