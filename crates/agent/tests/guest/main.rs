//! The agent as process 1 of a virtual machine, from its first call to its power-off. QEMU without KVM runs it anywhere;
//! the kernel is the distribution's.

mod disks;
mod kernel;
mod life;
mod machine;
#[path = "../it/support.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod support;
