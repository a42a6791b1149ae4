//! Addresses, the bridge, and what a sandbox may reach.
#![forbid(unsafe_code)]
