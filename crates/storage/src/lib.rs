//! Disks and quotas: the pool.
#![forbid(unsafe_code)]
