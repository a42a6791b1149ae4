//! Imports of images as people have them, and as attackers make them. Needs root: owners are set.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops")]

mod formats;
mod host;
mod hostile;
mod layers;
mod support;
