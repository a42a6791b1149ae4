//! What a guest boots from: a kernel, and a first root filesystem that holds the agent and the kernel's modules.
//!
//! ```text
//!  apt: linux-image-*-cloud-amd64 --> .deb --\                     /-- vmlinux
//!  --kernel FILE, --modules DIR -------------+--> kernel, modules -+-- initrd.img <-- garth-agent as /init
//!                                                                  \-- manifest.json: where from, sizes, digests
//! ```
//!
//! All three stand in one directory `DATA_DIR/guest/KEY`, made whole or not at all. The key is the digest of what they
//! were made of, so a directory never changes, and guests of an older one go on. `DATA_DIR/guest/current` leads to the
//! one to use. Old ones are not removed here: only the engine knows what still needs them.

mod artifacts;
mod compression;
pub(crate) mod digest;
mod error;
mod initramfs;
mod kernel;
mod manifest;
mod modules;
mod package;
mod setup;
mod unpack;

pub use artifacts::Artifacts;
pub use error::{Error, ErrorKind};
pub use initramfs::{Entry, Kind, archive, entries};
pub use manifest::{Manifest, Recorded, Source};
pub use modules::Module;
pub use setup::{KernelSource, Options, Progress, Step, setup};
