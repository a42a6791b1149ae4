//! Images: import, unpack, the built-in host image.
#![forbid(unsafe_code)]
