//! The agent as an ordinary process, spoken to over its socket.

mod envd;
mod files;
mod http;
mod init;
mod kvm;
mod moves;
mod probe;
mod processes;
mod running;
mod support;
