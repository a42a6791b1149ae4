#![expect(clippy::duplicated_attributes, reason = "printer columns have types, each its own")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One way in which this cluster carries a runtime out.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "garth.dev",
    version = "v1alpha1",
    kind = "IsolationClass",
    derive = "PartialEq",
    shortname = "isol",
    category = "garth",
    doc = "How this cluster carries one of Garth's runtimes out.",
    printcolumn(name = "Runtime", type_ = "string", json_path = ".spec.runtime"),
    printcolumn(name = "RuntimeClass", type_ = "string", json_path = ".spec.runtimeClassName"),
    printcolumn(name = "Priority", type_ = "integer", json_path = ".spec.priority")
)]
#[x_kube(validation = Rule::new("self.user != 'Root' || self.runtime.startsWith('microvm') || (has(self.hostUsers) && !self.hostUsers)")
    .message("user Root needs a kernel of its own (a microvm runtime) or a user namespace (hostUsers: false): else it is the node's root"))]
#[x_kube(validation = Rule::new("self.runtime == 'default' || has(self.runtimeClassName)")
    .message("sysbox and microvm are carried out by a RuntimeClass: name it in runtimeClassName"))]
#[serde(rename_all = "camelCase")]
pub struct IsolationClassSpec {
    /// The runtime that it carries out: `default`, or what does it, such as `sysbox/sysbox-runc` or `microvm/qemu`.
    #[x_kube(validation = Rule::new("self in ['default', 'sysbox/sysbox-runc', 'microvm/qemu', 'microvm/firecracker', 'microvm/cloud-hypervisor']").message("runtime is one of default, sysbox/sysbox-runc, microvm/qemu, microvm/firecracker, microvm/cloud-hypervisor"))]
    pub runtime: String,
    /// The RuntimeClass of its Pods; the cluster's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime_class_name: Option<String>,
    /// `false` gives each Pod a user namespace (Kubernetes 1.33, containerd 2.0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host_users: Option<bool>,
    /// Who runs the processes.
    #[serde(default)]
    pub user: User,
    /// Of those that carry the same runtime out, the one with the highest is taken.
    #[serde(default)]
    pub priority: i32,
    /// Labels of the nodes that may be used, beyond the RuntimeClass's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of those nodes, beyond the RuntimeClass's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tolerations: Vec<Toleration>,
}

/// Who runs a sandbox's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum User {
    /// User 1000 without a capability, as the `restricted` Pod Security Standard wants it.
    #[default]
    Unprivileged,
    /// Root of the sandbox, with the capabilities that its runtime gives: for systemd, Docker and package managers.
    Root,
}

/// A taint that Pods put up with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Toleration {
    /// The taint's key.
    pub key: String,
    /// The taint's value; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The taint's effect; any when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<String>,
}
