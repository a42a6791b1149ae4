//! Every unsafe block and raw system call of Garth, behind safe types.
pub mod signalfd;
pub mod supervise;
