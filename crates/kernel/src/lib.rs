//! Every unsafe block and raw system call of Garth, behind safe types.
pub mod allocator;
pub mod btrfs;
pub mod conntrack;
pub mod descriptors;
pub mod devices;
pub mod floor;
pub mod keyring;
pub mod loopdev;
pub mod memfd;
pub mod namespace;
pub mod netlink;
pub mod netns;
pub mod rtnl;
pub mod seccomp;
pub mod signal;
pub mod signalfd;
pub mod supervise;
