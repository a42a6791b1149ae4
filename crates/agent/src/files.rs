//! Contents of single files over plain HTTP, as E2B's SDKs send and expect them: `GET` and `POST /files`.

mod download;
mod multipart;
mod upload;

use rustix::rand::{GetRandomFlags, getrandom};

pub use download::download;
pub use upload::{make_directories, upload};

/// Extended attributes that hold the metadata of an upload.
pub const METADATA: &str = "user.e2b.";

/// A name for a file that is being written; nobody else's but for a chance of 2^-64.
pub fn part_name() -> String {
    let mut bytes = [0u8; 8];
    let _ = getrandom(&mut bytes, GetRandomFlags::empty());
    format!(".garth-{:016x}", u64::from_ne_bytes(bytes))
}
