//! Real sandboxes, started as root from a small disk with this machine's /usr over it.
mod containers;
mod escapes;
mod files;
mod filter;
mod jail;
mod lifecycle;
mod limits;
mod support;
