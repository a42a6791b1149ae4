//! The custom resources: what users write, and what the operator says about it.
//!
//! They are small on purpose: `kubectl apply` keeps a copy of what it applied in an annotation of 256 KiB at most.

mod class;
mod pool;
mod project;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;

pub use class::{IsolationClass, IsolationClassSpec, Toleration, User};
pub use pool::{ProjectTemplate, ProjectTemplateSpec, WarmPool, WarmPoolSpec, WarmPoolStatus};
pub use project::{
    Claim, DesiredState, DiskSpec, Ended, EndedReason, IdleSpec, LimitsSpec, OnDelete, Project, ProjectSpec,
    ProjectStatus, SandboxStatus, State,
};

/// The API group of all of them.
pub const GROUP: &str = "garth.dev";

/// What a `kubectl apply` makes the cluster know first.
pub fn definitions() -> [CustomResourceDefinition; 4] {
    [Project::crd(), IsolationClass::crd(), ProjectTemplate::crd(), WarmPool::crd()]
}

/// The annotation that says until when somebody keeps an ephemeral project.
pub const HELD_UNTIL: &str = "garth.dev/held-until";

/// The annotation that wakes a suspended project: the UID of the sandbox that it was suspended from. So a wish is about one
/// sleep, whatever anybody's clock says, and the spec stays its owner's alone.
pub const WAKE: &str = "garth.dev/wake";

/// The annotation in which a gateway keeps what the last look at a project's boundary came to, as JSON.
pub const VERIFIED: &str = "garth.dev/verified";
