//! The whole server on a host made of numbers, over its socket, with the client that others use.

mod agent;
mod bad_input;
mod contract;
mod keys;
mod scene;
mod setup;
