//! The daemon's HTTP side, for the command line and whoever else may open its socket: parse, call the
//! engine, map the result.
//!
//! ```text
//! DATA_DIR/garth.sock (0660, group garth)
//!     |-- /v1/projects, /v1/images, … --> routes --> engine --> view --> JSON
//!     '-- /v1/projects/N/agent/…      --> proxy  ==bytes==> the agent in N's sandbox
//! ```
//!
//! Status codes exist only here. The server keeps no state of its own, decides nothing about a
//! project, and reads nothing of what passes through the proxy.
#![forbid(unsafe_code)]

mod engine;
mod failure;
mod input;
mod keys;
mod openapi;
mod peer;
mod router;
mod routes;
mod serve;
mod socket;
mod tls;
mod upload;
mod view;

#[cfg(test)]
mod tests;

pub use garth_cluster::EngineConfig as ClusterConfig;
pub use garth_engine::GuestConfig;
pub use openapi::openapi;
pub use routes::doctor::probe as doctor;
pub use serve::{EngineChoice, ServeConfig, ServeError, log_as_json, run};
pub use tls::{TlsError, TlsFiles};

/// The steps at which a daemon built with the feature `fault` can be killed by `GARTH_FAULT`.
pub use garth_engine::FAULT_POINTS;
