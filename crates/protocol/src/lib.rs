//! The agent's wire protocol, for the agent and for all who talk to it: message types, service traits for servers and
//! clients, generated from `proto/` and committed (`cargo run -p garth-protocol --example regenerate` makes them anew).
//!
//! ```text
//! proto/*.proto --regenerate--> src/gen --> garth::agent::v1 (ours), process, filesystem (envd's, as the E2B SDKs speak them)
//! ```
//!
//! All of it is the Connect protocol over HTTP/1.1, JSON and binary. This crate opens no connection: a client brings a
//! `connectrpc::client::ClientTransport`. What is not Connect is plain HTTP and has no types here: `GET /health`,
//! `GET` and `POST /files`, `GET` and `PUT /garth/tar`, `GET` and `PUT /garth/move`, `GET /garth/manifest`.
#![forbid(unsafe_code)]

#[allow(missing_docs, elided_lifetimes_in_paths, clippy::all, clippy::allow_attributes, reason = "generated")]
#[rustfmt::skip]
#[path = "gen/mod.rs"]
mod generated;

pub use generated::garth;

/// Our own services and messages.
pub mod agent {
    pub use crate::generated::garth::agent::v1::__buffa::oneof;
    pub use crate::generated::garth::agent::v1::*;
}

/// envd's service for processes.
pub mod process {
    pub use crate::generated::process::__buffa::oneof;
    pub use crate::generated::process::*;
}

/// envd's service for files.
pub mod filesystem {
    pub use crate::generated::filesystem::__buffa::oneof;
    pub use crate::generated::filesystem::*;
}
