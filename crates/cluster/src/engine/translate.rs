//! Between the words of Garth's API and those of the cluster's resources.

use std::collections::BTreeMap;

use garth_spec::{ByteSize, ImageName, Limits, ProjectId, ProjectSpec, RuntimeChoice, SandboxId};
use kube::ResourceExt as _;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::EngineConfig;
use super::error::{Error, ErrorKind};
use crate::quantity;
use crate::resources::{self, LimitsSpec, Project};

/// The annotation with the labels of Garth's API: they take any text, unlike Kubernetes' own.
const LABELS: &str = "garth.dev/labels";

/// What a spec asks of the cluster.
///
/// # Errors
/// For what a cluster cannot do: it is never left out in silence.
pub(super) fn asked(spec: &ProjectSpec, config: &EngineConfig) -> Result<resources::ProjectSpec, Error> {
    spec.check()?;
    check_supported(spec)?;
    let runtime = spec.runtime;
    if let Some(at_least) = spec.at_least.filter(|least| runtime.runtime() < *least) {
        return Err(ErrorKind::RuntimeTooWeak { runtime: runtime.runtime(), at_least }.into());
    }
    let limits = &spec.limits;
    Ok(resources::ProjectSpec {
        image: match &spec.image {
            image if *image == ImageName::host() => config.default_image.clone(),
            image => image.to_string(),
        },
        runtime: match runtime {
            // Kubernetes carries it out by the node's own runtime.
            RuntimeChoice::Only(handler) if handler.runtime() == garth_spec::Runtime::Default => "default".to_owned(),
            runtime => runtime.to_string(),
        },
        at_least: spec.at_least.map(|least| least.to_string()),
        desired_state: resources::DesiredState::Stopped,
        limits: LimitsSpec {
            cpus: format!("{}m", limits.cpus.millis()),
            memory: limits.memory.bytes().to_string(),
            disk: limits.disk.bytes().to_string(),
        },
        network: spec.network.to_string(),
        env: spec.env.clone(),
        env_from_secrets: Vec::new(),
        workdir: spec.workdir.clone(),
        no_new_privs: spec.no_new_privs,
        disk: resources::DiskSpec::default(),
        idle: resources::IdleSpec::default(),
        ephemeral: false,
    })
}

fn check_supported(spec: &ProjectSpec) -> Result<(), Error> {
    let unsupported = |what, instead| Err(ErrorKind::Unsupported { what, instead }.into());
    if spec.limits.pids != Limits::default().pids {
        return unsupported("a limit of processes", "the kubelet's podPidsLimit holds for every Pod of a node");
    }
    let rates = |limits: &Limits| (limits.disk_rate, limits.disk_iops, limits.network_rate);
    if rates(&spec.limits) != rates(&Limits::default()) {
        return unsupported(
            "a rate of disk or network",
            "its storage class and its network plugin have rates, where they can",
        );
    }
    if spec.init.is_some() {
        return unsupported("an init of the image's own", "start it as a process");
    }
    if !spec.volumes.is_empty() {
        return unsupported("a directory of the host", "files belong on the project's disk");
    }
    if spec.read_only {
        return unsupported("a read-only root", "leave the option out: what is outside the disk goes with the sandbox");
    }
    if spec.user.is_some() {
        return unsupported("a user of one's choice", "the isolation class says who runs the processes");
    }
    if spec.capabilities != garth_spec::Capabilities::default() {
        return unsupported("a choice of capabilities", "the isolation class says which there are");
    }
    Ok(())
}

/// What the API cannot say stays as it was; so does what means the same.
pub(super) fn keep(asked: &mut resources::ProjectSpec, before: &resources::ProjectSpec) {
    asked.desired_state = before.desired_state;
    asked.env_from_secrets.clone_from(&before.env_from_secrets);
    asked.disk = before.disk.clone();
    asked.idle = before.idle.clone();
    asked.ephemeral = before.ephemeral;
    let same = |left: &str, right: &str| quantity::bytes(left) == quantity::bytes(right);
    let limits = &mut asked.limits;
    if same(&limits.memory, &before.limits.memory) {
        limits.memory.clone_from(&before.limits.memory);
    }
    if same(&limits.disk, &before.limits.disk) {
        limits.disk.clone_from(&before.limits.disk);
    }
    if quantity::cpus(&limits.cpus) == quantity::cpus(&before.limits.cpus) {
        limits.cpus.clone_from(&before.limits.cpus);
    }
}

/// What a project asks for, in the words of the API; what these lack is the default.
pub fn spec(project: &Project, default_image: &str) -> ProjectSpec {
    let spec = &project.spec;
    let usual = Limits::default();
    ProjectSpec {
        image: image_name(&spec.image, default_image),
        runtime: spec.runtime.parse().unwrap_or_default(),
        at_least: spec.at_least.as_ref().and_then(|least| least.parse().ok()),
        limits: Limits {
            memory: quantity::bytes(&spec.limits.memory).unwrap_or(usual.memory),
            cpus: quantity::cpus(&spec.limits.cpus).unwrap_or(usual.cpus),
            disk: quantity::bytes(&spec.limits.disk).unwrap_or(usual.disk),
            ..usual
        },
        network: spec.network.parse().unwrap_or_default(),
        env: spec.env.clone(),
        workdir: spec.workdir.clone(),
        no_new_privs: spec.no_new_privs,
        labels: labels(project),
        ..ProjectSpec::default()
    }
}

/// The name of a project's image; `host` stands for the default one.
pub fn image_name(image: &str, default_image: &str) -> ImageName {
    if image == default_image {
        return ImageName::host();
    }
    image.parse().unwrap_or_else(|_| ImageName::host())
}

/// The labels of the API.
pub fn labels(project: &Project) -> BTreeMap<String, String> {
    project.annotations().get(LABELS).and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

pub(super) fn set_labels(project: &mut Project, labels: &BTreeMap<String, String>) {
    if labels.is_empty() {
        project.annotations_mut().remove(LABELS);
        return;
    }
    project.annotations_mut().insert(LABELS.to_owned(), json!(labels).to_string());
}

/// The disk's size.
pub fn disk_limit(project: &Project) -> Option<ByteSize> {
    quantity::bytes(&project.spec.limits.disk)
}

/// 64 bits of a UID's digest: the API's ids are shorter than Kubernetes'.
fn bits(uid: &str) -> u64 {
    let digest = Sha256::digest(uid);
    digest.iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

/// The project's id.
pub fn id(project: &Project) -> ProjectId {
    ProjectId::from_bits(bits(&project.uid().unwrap_or_default()))
}

/// The id of its sandbox.
pub fn sandbox_id(project: &Project) -> Option<SandboxId> {
    let sandbox = project.status.as_ref()?.sandbox.as_ref()?;
    Some(SandboxId::from_bits(bits(&sandbox.uid)))
}

/// The merge patch (RFC 7396) that makes one of the other, and applies to no other version than the first.
pub(super) fn merge_patch(from: &impl Serialize, to: &impl Serialize) -> Result<Value, Error> {
    let value = |of: Result<Value, serde_json::Error>| of.map_err(|error| Error::because(ErrorKind::Api, error));
    let (from, to) = (value(serde_json::to_value(from))?, value(serde_json::to_value(to))?);
    let mut patch = difference(&from, &to).unwrap_or_else(|| json!({}));
    patch["metadata"]["resourceVersion"] = from["metadata"]["resourceVersion"].clone();
    Ok(patch)
}

fn difference(from: &Value, to: &Value) -> Option<Value> {
    let (Value::Object(old), Value::Object(new)) = (from, to) else {
        return (from != to).then(|| to.clone());
    };
    let gone = old.keys().filter(|key| !new.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let changed = new.iter().filter_map(|(key, value)| match old.get(key) {
        Some(before) => Some((key.clone(), difference(before, value)?)),
        None => Some((key.clone(), value.clone())),
    });
    let patch: Map<_, _> = gone.chain(changed).collect();
    (!patch.is_empty()).then_some(Value::Object(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_merge_patch_says_what_changed_and_what_is_gone() {
        let from = json!({ "a": 1, "b": { "c": 2, "d": 3 }, "e": [1] });
        let to = json!({ "a": 1, "b": { "c": 4 }, "e": [1, 2], "f": {} });
        assert_eq!(difference(&from, &to), Some(json!({ "b": { "c": 4, "d": null }, "e": [1, 2], "f": {} })));
        assert_eq!(difference(&from, &from), None);
    }

    #[test]
    fn what_a_cluster_cannot_do_is_refused() {
        let config = EngineConfig {
            namespace: "x".to_owned(),
            own_namespace: "y".to_owned(),
            default_image: "debian:12".to_owned(),
            start_within: std::time::Duration::ZERO,
        };
        let plain = ProjectSpec::default();
        assert_eq!(asked(&plain, &config).expect("plain").image, "debian:12");
        for odd in [
            ProjectSpec { read_only: true, ..plain.clone() },
            ProjectSpec { user: Some("root".to_owned()), ..plain.clone() },
            ProjectSpec { limits: Limits { pids: 10, ..plain.limits }, ..plain.clone() },
        ] {
            assert!(matches!(asked(&odd, &config).expect_err("refused").kind(), ErrorKind::Unsupported { .. }));
        }
    }
}
