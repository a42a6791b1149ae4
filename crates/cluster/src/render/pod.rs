use std::collections::BTreeMap;

use garth_spec::{AgentConfig, pod as inside};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EmptyDirVolumeSource, EnvFromSource, EnvVar,
    PersistentVolumeClaimVolumeSource, Pod, PodSecurityContext, PodSpec, Probe, ResourceRequirements, SeccompProfile,
    SecretEnvSource, SecretVolumeSource, SecurityContext, TCPSocketAction, Toleration, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt as _;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::claim::claim as render_claim;
use super::warm::member_secret_name;
use super::{CLASS_ANNOTATION, RUNTIME_ANNOTATION, Settings, owned, secret_name};
use crate::quantity;
use crate::resources::{IdleSpec, IsolationClass, LimitsSpec, Project, User};

/// The annotation that says from which spec a Pod was made.
const TEMPLATE_ANNOTATION: &str = "garth.dev/template";

/// Who runs processes where root is not theirs.
const UNPRIVILEGED: i64 = 1000;

/// The container of a project's processes.
pub const SANDBOX: &str = "sandbox";

/// Where the agent is in a Pod.
const BIN: &str = "/garth/bin";

/// What a sandbox may write outside its disk: the image's files, /tmp, and the agent.
const SCRATCH: &str = "4Gi";

/// How long processes have between SIGTERM and SIGKILL, in seconds.
const GRACE: i64 = 10;

/// What of a spec only a new Pod has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// What a Pod was made from.
    pub fn of(pod: &Pod) -> Option<Self> {
        pod.annotations().get(TEMPLATE_ANNOTATION).cloned().map(Self)
    }
}

/// The template that a project's next Pod has. Not of it: what a running one can be given, too ([`resources`]).
pub fn template(project: &Project, class: Option<&IsolationClass>, settings: &Settings, claim: &str) -> Template {
    let mut spec = spec(project, class, settings, claim);
    spec.containers.iter_mut().for_each(|container| container.resources = None);
    Template(digest(&spec))
}

impl Template {
    /// As a Pod's annotation has it.
    pub fn annotation(&self) -> (String, String) {
        (TEMPLATE_ANNOTATION.to_owned(), self.0.clone())
    }
}

/// What of a Pod cannot come after it: a project may take any Pod of a pool that has the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base(pub(super) String);

/// What a project's Pod and disk must have from the beginning.
pub fn base(project: &Project, class: Option<&IsolationClass>, settings: &Settings) -> Base {
    let mut like = Project::new("", project.spec.clone());
    like.spec.env.clear();
    like.spec.env_from_secrets.clear();
    like.spec.workdir = None;
    like.spec.idle = IdleSpec::default();
    like.spec.limits = plain(&like.spec.limits);
    Base(digest(&(spec(&like, class, settings, ""), render_claim(&like).spec)))
}

/// The same quantities in one spelling.
fn plain(limits: &LimitsSpec) -> LimitsSpec {
    let bytes = |text: &str| quantity::bytes(text).map_or_else(|| text.to_owned(), |size| size.bytes().to_string());
    LimitsSpec {
        cpus: quantity::cpus(&limits.cpus).map_or_else(|| limits.cpus.clone(), |cpus| format!("{}m", cpus.millis())),
        memory: bytes(&limits.memory),
        disk: bytes(&limits.disk),
    }
}

fn digest(value: &impl Serialize) -> String {
    let text = serde_json::to_vec(value).expect("objects of Kubernetes have string keys only");
    Sha256::digest(text).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// The sandbox of a project that is not there yet.
pub(super) fn late(project: &Project, class: Option<&IsolationClass>, settings: &Settings, claim: &str) -> Pod {
    let mut pod = pod(project, class, settings, claim);
    let spec = pod.spec.get_or_insert_default();
    let variable = EnvVar { name: inside::LATE_VARIABLE.to_owned(), value: Some("1".to_owned()), value_from: None };
    for container in &mut spec.containers {
        container.env.get_or_insert_default().push(variable.clone());
    }
    for volume in spec.volumes.iter_mut().flatten() {
        if let Some(secret) = &mut volume.secret {
            secret.secret_name = Some(member_secret_name(&project.name_any()));
        }
    }
    pod
}

/// A project's sandbox, on the disk that this claim is.
pub fn pod(project: &Project, class: Option<&IsolationClass>, settings: &Settings, claim: &str) -> Pod {
    let mut metadata = owned(project, project.name_any());
    let Template(template) = template(project, class, settings, claim);
    // Neither autoscaler may move it away: what runs in it would end.
    let runtime = class.map_or("default", |class| class.spec.runtime.as_str());
    let annotations = [
        (RUNTIME_ANNOTATION, runtime),
        (TEMPLATE_ANNOTATION, template.as_str()),
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
        ("karpenter.sh/do-not-disrupt", "true"),
    ];
    let annotations = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let class_name = class.map(|class| (CLASS_ANNOTATION.to_owned(), class.name_any()));
    let asked = resources_annotation(&resources(project));
    metadata.annotations = Some(annotations.into_iter().chain([asked]).chain(class_name).collect());
    Pod { metadata, spec: Some(spec(project, class, settings, claim)), status: None }
}

fn spec(project: &Project, class: Option<&IsolationClass>, settings: &Settings, claim: &str) -> PodSpec {
    let user = class.map_or(User::default(), |class| class.spec.user);
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        host_users: class.and_then(|class| class.spec.host_users),
        hostname: Some(project.name_any()),
        runtime_class_name: class.and_then(|class| class.spec.runtime_class_name.clone()),
        node_selector: class.map(|class| class.spec.node_selector.clone()).filter(|labels| !labels.is_empty()),
        tolerations: class.map(tolerations).filter(|tolerations| !tolerations.is_empty()),
        // One model of a sandbox's end: its Pod ends, and the operator makes another.
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(GRACE),
        security_context: Some(PodSecurityContext {
            fs_group: Some(UNPRIVILEGED),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            ..pod_security(user)
        }),
        init_containers: Some(vec![installer(settings, user)]),
        containers: vec![sandbox(project, user, settings)],
        volumes: Some(vec![
            Volume { name: "agent".to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() },
            Volume {
                name: "token".to_owned(),
                secret: Some(SecretVolumeSource {
                    secret_name: Some(secret_name(project)),
                    default_mode: Some(0o440),
                    ..SecretVolumeSource::default()
                }),
                ..Volume::default()
            },
            Volume {
                name: "disk".to_owned(),
                persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
                    claim_name: claim.to_owned(),
                    read_only: None,
                }),
                ..Volume::default()
            },
        ]),
        ..PodSpec::default()
    }
}

/// Puts the agent beside the image's files, and makes the disk's directories.
fn installer(settings: &Settings, user: User) -> Container {
    Container {
        name: "agent".to_owned(),
        image: Some(settings.agent_image.clone()),
        command: Some(words([inside::PROGRAM, "install", BIN, inside::DISK])),
        volume_mounts: Some(vec![mount("agent", BIN, None), mount("disk", inside::DISK, None)]),
        resources: Some(ResourceRequirements {
            limits: Some(quantities([("cpu", "1"), ("memory", "64Mi")])),
            requests: Some(quantities([("cpu", "10m"), ("memory", "64Mi")])),
            claims: None,
        }),
        security_context: Some(container_security(user)),
        ..Container::default()
    }
}

/// What a project's container may use, and what is kept for it.
pub fn resources(project: &Project) -> ResourceRequirements {
    let LimitsSpec { cpus, memory, .. } = &project.spec.limits;
    // Processors are shared, memory is not: a node out of memory kills someone.
    ResourceRequirements {
        limits: Some(quantities([("cpu", &**cpus), ("memory", memory), ("ephemeral-storage", SCRATCH)])),
        requests: Some(quantities([("cpu", "50m"), ("memory", memory)])),
        claims: None,
    }
}

/// The annotation that says which resources Garth has asked for last: whoever else changes a Pod's, such as an autoscaler of
/// Pods, is not fought with.
const RESOURCES_ANNOTATION: &str = "garth.dev/resources";

/// That these were asked for, as a Pod's annotation has it.
pub fn resources_annotation(resources: &ResourceRequirements) -> (String, String) {
    (RESOURCES_ANNOTATION.to_owned(), digest(resources))
}

/// Whether these were asked for last, whatever came of it.
pub fn were_asked(pod: &Pod, wanted: &ResourceRequirements) -> bool {
    let (key, asked) = resources_annotation(wanted);
    pod.annotations().get(&key) == Some(&asked)
}

/// Whether a Pod is to have these.
pub fn has_resources(pod: &Pod, wanted: &ResourceRequirements) -> bool {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let has = containers.into_iter().find(|container| container.name == SANDBOX);
    let Some(has) = has.and_then(|container| container.resources.as_ref()) else { return false };
    let amounts = |resources: &ResourceRequirements| {
        let of =
            |map: &Option<BTreeMap<String, Quantity>>, what: &str| map.as_ref().and_then(|map| map.get(what).cloned());
        let memory = |map| of(map, "memory").and_then(|Quantity(text)| quantity::bytes(&text));
        let cpus = of(&resources.limits, "cpu").and_then(|Quantity(text)| quantity::cpus(&text));
        (cpus, memory(&resources.limits), memory(&resources.requests))
    };
    amounts(has) == amounts(wanted)
}

fn sandbox(project: &Project, user: User, settings: &Settings) -> Container {
    let spec = &project.spec;
    let secret = |name: &String| EnvFromSource {
        secret_ref: Some(SecretEnvSource { name: name.clone(), optional: None }),
        ..EnvFromSource::default()
    };
    Container {
        name: SANDBOX.to_owned(),
        image: Some(spec.image.clone()),
        command: Some(words([inside::INSTALLED, "pod"])),
        env: Some(vec![EnvVar {
            name: inside::CONFIG_VARIABLE.to_owned(),
            value: Some(literal(&config(project, user, settings))),
            value_from: None,
        }]),
        env_from: Some(spec.env_from_secrets.iter().map(secret).collect::<Vec<_>>()).filter(|list| !list.is_empty()),
        ports: Some(vec![ContainerPort {
            name: Some("agent".to_owned()),
            container_port: inside::PORT.into(),
            ..ContainerPort::default()
        }]),
        readiness_probe: Some(Probe {
            // The kubelet has no key: it sees that the agent listens, not that it answers.
            tcp_socket: Some(TCPSocketAction { port: IntOrString::Int(inside::PORT.into()), host: None }),
            period_seconds: Some(1),
            failure_threshold: Some(5),
            ..Probe::default()
        }),
        resources: Some(resources(project)),
        volume_mounts: Some(vec![
            VolumeMount { read_only: Some(true), ..mount("agent", BIN, None) },
            VolumeMount { read_only: Some(true), ..mount("token", "/garth/token", None) },
            mount("disk", inside::STATE_DIR, Some(inside::STATE)),
            mount("disk", &spec.disk.path, Some(inside::FILES)),
        ]),
        working_dir: Some("/".to_owned()),
        security_context: Some(container_security(user)),
        ..Container::default()
    }
}

/// What the agent is told.
fn config(project: &Project, user: User, settings: &Settings) -> String {
    let spec = &project.spec;
    let suspend_after = spec.idle.suspend_after_seconds.or(settings.suspend_after_seconds);
    let home = ("HOME".to_owned(), spec.disk.path.clone());
    let env = spec.env.iter().map(|(name, value)| (name.clone(), value.clone()));
    let config = AgentConfig {
        env: [home].into_iter().filter(|_| user == User::Unprivileged).chain(env).collect(),
        user: match user {
            User::Unprivileged => format!("{UNPRIVILEGED}:{UNPRIVILEGED}"),
            User::Root => "root".to_owned(),
        },
        workdir: Some(spec.workdir.clone().unwrap_or_else(|| spec.disk.path.clone())),
        no_new_privs: spec.no_new_privs || user == User::Unprivileged,
        suspend_after_seconds: suspend_after.filter(|seconds| *seconds > 0),
        ..AgentConfig::default()
    };
    serde_json::to_string(&config).expect("a configuration is text and numbers")
}

fn pod_security(user: User) -> PodSecurityContext {
    match user {
        User::Unprivileged => PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(UNPRIVILEGED),
            run_as_group: Some(UNPRIVILEGED),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
            ..PodSecurityContext::default()
        },
        // Its runtime's own filter, or its own kernel, is the boundary; the node's filter would take mount(2) away.
        User::Root => {
            PodSecurityContext { run_as_user: Some(0), run_as_group: Some(0), ..PodSecurityContext::default() }
        }
    }
}

fn container_security(user: User) -> SecurityContext {
    match user {
        User::Unprivileged => SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            ..SecurityContext::default()
        },
        User::Root => SecurityContext { privileged: Some(false), ..SecurityContext::default() },
    }
}

fn tolerations(class: &IsolationClass) -> Vec<Toleration> {
    let toleration = |taint: &crate::resources::Toleration| Toleration {
        key: Some(taint.key.clone()),
        operator: Some(if taint.value.is_some() { "Equal" } else { "Exists" }.to_owned()),
        value: taint.value.clone(),
        effect: taint.effect.clone(),
        toleration_seconds: None,
    };
    class.spec.tolerations.iter().map(toleration).collect()
}

fn mount(volume: &str, path: &str, sub_path: Option<&str>) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        sub_path: sub_path.map(str::to_owned),
        ..VolumeMount::default()
    }
}

fn quantities<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, Quantity> {
    pairs.map(|(name, quantity)| (name.to_owned(), Quantity(quantity.to_owned()))).into()
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).into()
}

/// The kubelet expands `$(NAME)` in a variable's value and makes `$$` of it one `$`
/// (kubernetes.io, Define Dependent Environment Variables).
fn literal(value: &str) -> String {
    value.replace('$', "$$")
}
