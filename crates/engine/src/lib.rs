//! Lifecycle, store, queue, reconcile.
#![forbid(unsafe_code)]
