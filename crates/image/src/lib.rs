//! Images: what a tar stream holds becomes a root filesystem in a pool, and the built-in image `host`.
//!
//! ```text
//!  tar stream (plain, gzip, zstd) --> rootfs tar | docker-archive | OCI layout --> layers --> ImageDraft's directory
//!  this machine's /etc, /usr      --> host::ensure ------------------------------------------> Image
//! ```
//!
//! Everything in a stream is hostile: this crate refuses device nodes, paths and links that leave the
//! directory, and bombs. It keeps nothing on error: the draft it fills is dropped by the caller.
#![forbid(unsafe_code)]

mod error;
pub mod host;
mod import;

pub use error::{Error, ErrorKind};
pub use import::{Format, Imported, Limits, import};
