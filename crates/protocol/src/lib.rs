//! The agent protocol: wire types and services, generated.
#![forbid(unsafe_code)]
