//! Projects on a Kubernetes cluster: the resources that describe them, the operator that makes sandboxes of them, and the
//! engine that the gateway serves.
//!
//! ```text
//! kubectl, GitOps ----------------------> Project objects <---------- engine (the gateway's) <-- server
//!                                            |       ^                   |
//!                        observe             v       | status            | HTTP, with the project's token
//!                  Observed --> decide --> Intents --+                   v
//!                                            '--> PVC, Secret, NetworkPolicy, Pod: the agent is process 1
//! ```
//!
//! The API server is the store; there is no other. `decide` does no I/O; the operator does nothing that it did not decide.
//! Nothing here names a status code of Garth's API, reads what passes to an agent, or deletes a project's disk
//! unless its `spec.disk.onDelete` says so.
#![forbid(unsafe_code)]

pub mod decide;
pub mod doctor;
pub mod engine;
pub mod install;
pub mod operator;
mod quantity;
pub mod render;
pub mod resources;
mod verify;

pub use engine::{Engine, EngineConfig, connect};

pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
pub use kube::Client;
pub use operator::OperatorConfig;
pub use render::Settings;
