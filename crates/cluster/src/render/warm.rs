use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Secret};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};

use super::{MANAGED_BY, Settings, policy};
use crate::render::{self, Base, pod};
use crate::resources::{GROUP, IsolationClass, Project, WarmPool};

/// The label of what a pool made. It stays on a Pod that a project has taken: the pool's policy, which lets nothing out,
/// holds until the project's own is there too, and adds nothing to it (NetworkPolicies are a union).
pub const POOL_LABEL: &str = "garth.dev/pool";

/// The annotation that says which projects may take a Pod.
const BASE_ANNOTATION: &str = "garth.dev/base";

/// What is made for one sandbox of a pool, in this order.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its disk.
    pub claim: PersistentVolumeClaim,
    /// Its token; of the disk, whose life it has.
    pub secret: Secret,
    /// The sandbox.
    pub pod: Pod,
}

/// The name of a pool's NetworkPolicy.
pub fn pool_policy_name(pool: &str) -> String {
    format!("{pool}-pool")
}

/// What reaches the sandboxes of a pool: Garth. They reach nothing.
pub fn pool_policy(pool: &WarmPool, settings: &Settings) -> NetworkPolicy {
    policy::closed(metadata(pool, pool_policy_name(&pool.name_any())), (POOL_LABEL, &pool.name_any()), settings)
}

/// One sandbox of a pool. `like` is a project of the pool's template with this sandbox's name.
pub fn member(
    pool: &WarmPool,
    like: &Project,
    class: Option<&IsolationClass>,
    settings: &Settings,
    random: [u8; 32],
) -> Member {
    let name = like.name_any();
    let claim_name = render::claim_name(&name);
    let mut claim = render::claim(like);
    claim.metadata = metadata(pool, claim_name.clone());
    let mut secret = render::secret(like, random);
    secret.metadata = metadata(pool, member_secret_name(&name));
    secret.metadata.owner_references = None;
    let mut pod = pod::late(like, class, settings, &claim_name);
    let annotations = pod.metadata.annotations.take();
    pod.metadata = metadata(pool, name);
    pod.metadata.annotations = annotations;
    let Base(base) = render::base(like, class, settings);
    pod.annotations_mut().insert(BASE_ANNOTATION.to_owned(), base);
    Member { claim, secret, pod }
}

/// The name of the Secret of a pool's sandbox.
pub fn member_secret_name(pod: &str) -> String {
    format!("{pod}-key")
}

/// Which projects may take a Pod of a pool.
pub fn base_of(pod: &Pod) -> Option<Base> {
    pod.annotations().get(BASE_ANNOTATION).cloned().map(Base)
}

/// The claim that a Pod has its disk from.
pub fn claim_of(pod: &Pod) -> Option<&str> {
    let volumes = pod.spec.as_ref()?.volumes.as_ref()?;
    volumes.iter().find_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.as_str()))
}

fn metadata(pool: &WarmPool, name: String) -> ObjectMeta {
    let labels = [(POOL_LABEL, pool.name_any()), (MANAGED_BY.0, MANAGED_BY.1.to_owned())];
    ObjectMeta {
        name: Some(name),
        namespace: pool.namespace(),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value)).into()),
        owner_references: Some(vec![OwnerReference {
            api_version: format!("{GROUP}/v1alpha1"),
            kind: WarmPool::kind(&()).into_owned(),
            name: pool.name_any(),
            uid: pool.uid().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(true),
        }]),
        ..ObjectMeta::default()
    }
}
