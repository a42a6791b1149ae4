//! Makes sandboxes: plan, then apply.
#![forbid(unsafe_code)]
