//! Garth on a cluster that grows and shrinks: the real API server, scheduler and Karpenter, with Garth's own pools and
//! classes. The machines alone are played (kwok): a node is there once Karpenter has asked for it, and its Pods run at once.
//!
//! What only EKS can show is listed in docs/eks.md.

#[path = "../support/yard.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod yard;

#[path = "../cluster/stage.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod stage;

mod burst;
mod field;
mod limits;
