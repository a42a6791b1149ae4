//! What a project is made of on the cluster, as the API server takes it. Pure: a spec in, objects out.

mod claim;
mod pod;
mod policy;
mod secret;
mod warm;

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};

use crate::resources::{GROUP, Project};

pub use claim::claim;
pub use pod::{
    Base, SANDBOX, Template, base, has_resources, pod, resources, resources_annotation, template, were_asked,
};
pub use policy::policy;
pub use secret::{TOKEN, secret};
pub use warm::{Member, POOL_LABEL, base_of, claim_of, member, member_secret_name, pool_policy, pool_policy_name};

/// The label that leads from an object to its project.
pub const PROJECT_LABEL: &str = "garth.dev/project";

/// The annotation that says which runtime a Pod has.
pub const RUNTIME_ANNOTATION: &str = "garth.dev/runtime";

/// The annotation that says by which class a Pod was made; none for the plain default.
pub const CLASS_ANNOTATION: &str = "garth.dev/isolation-class";

/// The label of all that the operator made.
pub const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "garth");

/// The label of Garth's own Pods, from which agents take requests.
pub const NAME: (&str, &str) = ("app.kubernetes.io/name", "garth");

/// What the operator is told about the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The image that holds `/garth-agent`.
    pub agent_image: String,
    /// The namespace in which the gateway and the operator run.
    pub namespace: String,
    /// Seconds without request and process after which a sandbox is given up, of projects that say nothing of it.
    pub suspend_after_seconds: Option<u32>,
}

/// The name of a project's PersistentVolumeClaim.
pub fn claim_name(project: &str) -> String {
    format!("{project}-disk")
}

/// The name of a project's Secret: no other project has it, not even a later one of the same name. So who makes it need
/// not look whose it is, and needs no right to read Secrets.
pub fn secret_name(project: &Project) -> String {
    let uid: String = project.uid().unwrap_or_default().chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    format!("{}-key-{uid}", project.name_any())
}

/// The name of a project's NetworkPolicy.
pub fn policy_name(project: &str) -> String {
    format!("{project}-sandbox")
}

fn labels(project: &str) -> BTreeMap<String, String> {
    [(PROJECT_LABEL, project), MANAGED_BY].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

pub(crate) fn owner(project: &Project) -> OwnerReference {
    OwnerReference {
        api_version: format!("{GROUP}/v1alpha1"),
        kind: Project::kind(&()).into_owned(),
        name: project.name_any(),
        uid: project.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Of what goes with the project.
fn owned(project: &Project, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: project.namespace(),
        labels: Some(labels(&project.name_any())),
        owner_references: Some(vec![owner(project)]),
        ..ObjectMeta::default()
    }
}
