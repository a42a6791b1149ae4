use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a user asks of a project on a cluster.
#[derive(CustomResource, KubeSchema, Debug, Clone, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "garth.dev",
    version = "v1alpha1",
    kind = "Project",
    namespaced,
    status = "ProjectStatus",
    derive = "PartialEq",
    shortname = "proj",
    category = "garth",
    doc = "A persistent sandbox for the commands of one agent.",
    validation = Rule::new("self.metadata.name.size() <= 63 && self.metadata.name.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("a project's name is also its hostname: use 1 to 63 of a-z, 0-9 and '-', starting and ending with a letter or digit"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(name = "Runtime", type_ = "string", json_path = ".spec.runtime"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Node", type_ = "string", json_path = ".status.sandbox.node", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ProjectSpec {
    /// The container image of its processes: anything that the cluster's nodes can pull. The image's own program is not run.
    #[x_kube(validation = Rule::new("self.size() > 0 && self.size() <= 512 && !self.matches('\\\\s')").message("image is the name of a container image, such as debian:12"))]
    pub image: String,
    /// How it is isolated: `default`, `sysbox` or `microvm`, with a handler if that matters, such as `microvm/qemu`.
    #[serde(default = "default_runtime")]
    #[x_kube(validation = Rule::new("self in ['default', 'sysbox', 'microvm', 'sysbox/sysbox-runc', 'microvm/qemu', 'microvm/firecracker', 'microvm/cloud-hypervisor']").message("runtime is one of default, sysbox, microvm, sysbox/sysbox-runc, microvm/qemu, microvm/firecracker, microvm/cloud-hypervisor"))]
    pub runtime: String,
    /// The weakest runtime that it may ever have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self in ['default', 'sysbox', 'microvm']").message("atLeast is one of default, sysbox, microvm"))]
    pub at_least: Option<String>,
    /// Whether it is to have a sandbox.
    #[serde(default)]
    pub desired_state: DesiredState,
    /// What its sandbox may use at most.
    #[serde(default)]
    pub limits: LimitsSpec,
    /// What it can reach: `internet`, which is nothing private, or `none`.
    #[serde(default = "default_network")]
    #[x_kube(validation = Rule::new("self in ['internet', 'none']").message("network is internet or none"))]
    pub network: String,
    /// Environment of every process, over the image's own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Secrets of the same namespace whose entries are in the environment too; `env` wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env_from_secrets: Vec<String>,
    /// The directory that processes run in when none is asked for; where the disk is, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("workdir starts with '/'"))]
    pub workdir: Option<String>,
    /// Set-user-id programs gain nothing, as is always so where user 1000 runs the processes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_new_privs: bool,
    /// Its disk.
    #[serde(default)]
    pub disk: DiskSpec,
    /// What becomes of its sandbox when nothing goes on in it.
    #[serde(default, skip_serializing_if = "IdleSpec::is_unsaid")]
    pub idle: IdleSpec,
    /// Whether it goes, with its disk, once nobody holds it: what `garth run` makes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ephemeral: bool,
}

pub(super) fn default_runtime() -> String {
    "default".to_owned()
}

fn default_network() -> String {
    "internet".to_owned()
}

/// Whether a project is to have a sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum DesiredState {
    /// Always; one that is lost is made again.
    #[default]
    Running,
    /// Not until someone asks for it.
    Stopped,
}

/// What a sandbox may use at most.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LimitsSpec {
    /// Processors, such as `2` or `500m`.
    #[serde(default = "default_cpus")]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))").message("limits.cpus is a quantity above 0, such as 2 or 500m"))]
    pub cpus: String,
    /// Bytes of memory, such as `2Gi`.
    #[serde(default = "default_memory")]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).compareTo(quantity('16Mi')) >= 0").message("limits.memory is a quantity of 16Mi and above, such as 2Gi"))]
    pub memory: String,
    /// Bytes of the disk, such as `10Gi`. It can grow, where the storage class allows it, and never shrinks.
    #[serde(default = "default_disk")]
    #[x_kube(validation = Rule::new("isQuantity(self) && quantity(self).compareTo(quantity('16Mi')) >= 0").message("limits.disk is a quantity of 16Mi and above, such as 10Gi"))]
    #[x_kube(validation = Rule::new("quantity(self).compareTo(quantity(oldSelf)) >= 0").message("limits.disk cannot shrink: copy the files to a new project"))]
    pub disk: String,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        Self { cpus: default_cpus(), memory: default_memory(), disk: default_disk() }
    }
}

fn default_cpus() -> String {
    "2".to_owned()
}

fn default_memory() -> String {
    "2Gi".to_owned()
}

fn default_disk() -> String {
    "10Gi".to_owned()
}

/// What becomes of a sandbox in which nothing goes on: no request, and no process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IdleSpec {
    /// Seconds after which it is given up, until something asks for it again; 0 for never, the operator's setting when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == 0 || self >= 10").message("idle.suspendAfterSeconds is 0, which is never, or 10 and above"))]
    pub suspend_after_seconds: Option<u32>,
}

impl IdleSpec {
    fn is_unsaid(&self) -> bool {
        *self == Self::default()
    }
}

/// Where a project's files are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskSpec {
    /// Where the disk is in the sandbox. What lies elsewhere is the image's, and begins anew with each sandbox.
    #[serde(default = "default_path")]
    #[x_kube(validation = Rule::new("self.matches('^/[^:]+$') && !self.startsWith('/garth') && !self.contains('/../') && !self.endsWith('/..')").message("disk.path is an absolute path other than / and /garth, without .. and ':'"))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("disk.path cannot change: the files are where they are"))]
    pub path: String,
    /// The storage class of its claim; the cluster's default when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("disk.storageClassName cannot change: the files are where they are"))]
    pub storage_class_name: Option<String>,
    /// What becomes of the disk when the project is deleted.
    #[serde(default)]
    pub on_delete: OnDelete,
}

impl Default for DiskSpec {
    fn default() -> Self {
        Self { path: default_path(), storage_class_name: None, on_delete: OnDelete::default() }
    }
}

fn default_path() -> String {
    "/workspace".to_owned()
}

/// What becomes of the disk when the project is deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub enum OnDelete {
    /// It stays, and a project of the same name gets it.
    #[default]
    Keep,
    /// It goes too.
    Delete,
}

/// What the operator says of a project.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProjectStatus {
    /// The generation of the spec that the rest of this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// `Ready`: whether its agent can be reached, and if not, why and what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Its sandbox, while there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxStatus>,
    /// Its disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// How its last sandbox ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// Sandboxes in a row that ended soon after their start; the next is made later each time.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Where a project stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum State {
    /// It has a disk and no sandbox.
    Stopped,
    /// The same, since nothing went on in it: the next request gets it a new one.
    Suspended,
    /// Its sandbox is being made, or waits for a node.
    Starting,
    /// Its agent can be reached.
    Running,
    /// Its sandbox is being ended.
    Stopping,
    /// It cannot be carried out as it is.
    Failed,
    /// It is being deleted.
    Removing,
}

/// A sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStatus {
    /// The UID of its Pod.
    pub uid: String,
    /// The Pod's name.
    pub pod: String,
    /// The Secret of its token, where it is not the project's own: it came from a pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The runtime that it really has.
    pub runtime: String,
    /// The isolation class that it was made by; none for the plain `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    /// Whether its root is nobody on the node (`hostUsers: false`).
    #[serde(default)]
    pub user_namespace: bool,
    /// The node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// The Pod's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Since when its agent could be reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// Since when it waits for a node, while it does; the condition says why, and what is done about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending_since: Option<Time>,
}

/// A project's disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The PersistentVolumeClaim's name.
    pub name: String,
    /// Its phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
}

/// How a sandbox ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// The UID of its Pod.
    pub uid: String,
    /// When.
    pub at: Time,
    /// Why.
    pub reason: EndedReason,
    /// More of it, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// Why a sandbox ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EndedReason {
    /// Someone stopped it.
    Stopped,
    /// Its agent ended or was killed.
    Died,
    /// The kernel killed it for memory.
    OutOfMemory,
    /// The node had too little of something.
    Evicted,
    /// Its Pod is gone: someone deleted it, or its node.
    Lost,
    /// Nothing went on in it.
    Idle,
}
