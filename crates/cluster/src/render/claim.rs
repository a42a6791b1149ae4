use k8s_openapi::api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use super::{claim_name, labels};
use crate::resources::Project;

/// A project's disk. Nothing owns it: what deletes the project, or the operator, leaves the files.
pub fn claim(project: &Project) -> PersistentVolumeClaim {
    let name = project.name_any();
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some(claim_name(&name)),
            namespace: project.namespace(),
            labels: Some(labels(&name)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            resources: Some(VolumeResourceRequirements {
                requests: Some([("storage".to_owned(), Quantity(project.spec.limits.disk.clone()))].into()),
                limits: None,
            }),
            storage_class_name: project.spec.disk.storage_class_name.clone(),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
