//! Whole trees in and out as tar streams, in memory that does not depend on their size: `garth cp`.

mod pack;
mod unpack;

pub use pack::{Top, pack};
pub use unpack::unpack;
