//! The init and server inside every sandbox.
#![forbid(unsafe_code)]
