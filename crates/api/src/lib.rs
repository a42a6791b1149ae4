//! The HTTP contract: types and a client.
#![forbid(unsafe_code)]
