//! The network against a world of network namespaces: nothing leaves them, and the real host's
//! interfaces, rules and sysctls are not touched.

mod leases;
mod world;
