//! The engine on a host made of numbers: what must hold whatever comes in which order, and whenever
//! the daemon dies.

mod at_least;
mod crash;
mod order;
mod reboot;
mod scene;
