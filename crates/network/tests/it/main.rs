//! The network against a world of network namespaces: nothing leaves them, and the real host's
//! interfaces, rules and sysctls are not touched.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]

mod advertisements;
mod attacks;
mod firewalls;
mod frames;
mod given;
mod leases;
mod names;
mod owned;
mod rooted;
mod world;
