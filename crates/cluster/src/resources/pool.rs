#![expect(clippy::duplicated_attributes, reason = "printer columns have types, each its own")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::project::{DesiredState, DiskSpec, IdleSpec, LimitsSpec, Project, ProjectSpec, default_runtime};

/// What the sandboxes of a pool have in common with the projects that take them.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "garth.dev",
    version = "v1alpha1",
    kind = "ProjectTemplate",
    namespaced,
    derive = "PartialEq",
    shortname = "projtpl",
    category = "garth",
    doc = "What of a project is known before the project: image, runtime, limits, disk.",
    printcolumn(name = "Image", type_ = "string", json_path = ".spec.image"),
    printcolumn(name = "Runtime", type_ = "string", json_path = ".spec.runtime")
)]
#[serde(rename_all = "camelCase")]
pub struct ProjectTemplateSpec {
    /// As a project's.
    pub image: String,
    /// As a project's.
    #[serde(default = "default_runtime")]
    pub runtime: String,
    /// As a project's.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// As a project's.
    #[serde(default)]
    pub disk: DiskSpec,
}

impl ProjectTemplateSpec {
    /// A project that asks for this and nothing else.
    pub fn project(&self, name: &str) -> Project {
        let Self { image, runtime, limits, disk } = self.clone();
        let spec = ProjectSpec {
            image,
            runtime,
            at_least: None,
            desired_state: DesiredState::Running,
            limits,
            network: "none".to_owned(),
            env: Default::default(),
            env_from_secrets: Vec::new(),
            workdir: None,
            disk,
            idle: IdleSpec::default(),
            no_new_privs: false,
            ephemeral: false,
        };
        Project::new(name, spec)
    }
}

/// Sandboxes that wait for projects.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "garth.dev",
    version = "v1alpha1",
    kind = "WarmPool",
    namespaced,
    status = "WarmPoolStatus",
    derive = "PartialEq",
    shortname = "pool",
    category = "garth",
    doc = "Sandboxes that are there before the projects that take them.",
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("a pool's name begins the names of its Pods: use 1 to 40 of a-z, 0-9 and '-', starting and ending with a letter or digit"),
    scale(spec_replicas_path = ".spec.replicas", status_replicas_path = ".status.replicas"),
    printcolumn(name = "Template", type_ = "string", json_path = ".spec.template"),
    printcolumn(name = "Replicas", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason")
)]
#[serde(rename_all = "camelCase")]
pub struct WarmPoolSpec {
    /// The name of its ProjectTemplate, in the same namespace.
    pub template: String,
    /// How many sandboxes wait.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self <= 1000").message("replicas is 1000 at most"))]
    pub replicas: u32,
}

/// What the operator says of a pool.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WarmPoolStatus {
    /// The generation of the spec that the rest of this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Sandboxes that no project has taken.
    #[serde(default)]
    pub replicas: u32,
    /// Those of them that can be taken now.
    #[serde(default)]
    pub ready_replicas: u32,
    /// When one last ended without having been taken: the next is made later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<Time>,
    /// `Ready`: whether all that wait can be taken, and if not, why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}
