//! What a cluster needs for Garth to run on it, as objects for `kubectl apply`: definitions, rights, operator, gateway.

mod archive;
mod monitoring;
pub mod pools;
mod rights;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, Namespace, ObjectFieldSelector,
    PodSecurityContext, PodSpec, PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource,
    SecurityContext, Service, ServiceAccount, ServicePort, ServiceSpec, Volume, VolumeMount,
};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde_json::Value;

pub use archive::{image, needs_loader};
pub use monitoring::monitoring;
pub use rights::{Right, rights};

use crate::render::{MANAGED_BY, NAME};
use crate::resources::{GROUP, definitions};

/// What of an installation is chosen.
#[derive(Debug, Clone)]
pub struct Install {
    /// Where the operator and the gateway run.
    pub namespace: String,
    /// Where the projects are.
    pub projects: String,
    /// The image of both, and of the agents.
    pub image: String,
    /// The image of projects that name none.
    pub default_image: String,
    /// The Secret (`kubernetes.io/tls`) by which the gateway encrypts; it speaks plain HTTP when absent.
    pub tls_secret: Option<String>,
}

/// This program in the image. Not `/garth`: the agent's init container mounts what it installs below that directory.
pub const PROGRAM: &str = "/bin/garth";

/// Where a gateway listens for API clients.
pub const GATEWAY_PORT: u16 = 7070;

/// Where an operator answers Prometheus and the kubelet.
pub const METRICS_PORT: u16 = 9090;

/// That port's name.
const METRICS: &str = "metrics";

/// Where the gateway has its certificate.
const TLS: &str = "/tls";

const OPERATOR: &str = "garth-operator";

/// Every object, in the order in which they can be made.
///
/// # Errors
/// When one cannot be written as JSON, which is a mistake of ours.
pub fn objects(install: &Install) -> Result<Vec<Value>, serde_json::Error> {
    let mut objects = crds()?;
    objects.push(json("v1", "Namespace", &namespace(install))?);
    for (part, rules) in [("operator", operator_rules()), ("gateway", gateway_rules())] {
        let name = format!("garth-{part}");
        let account = ServiceAccount { metadata: named(&name, install), ..ServiceAccount::default() };
        objects.push(json("v1", "ServiceAccount", &account)?);
        let metadata = ObjectMeta { namespace: None, ..named(&name, install) };
        let role = ClusterRole { metadata: metadata.clone(), rules: Some(rules), aggregation_rule: None };
        objects.push(json("rbac.authorization.k8s.io/v1", "ClusterRole", &role)?);
        let binding = ClusterRoleBinding {
            metadata,
            role_ref: role_ref("ClusterRole", &name),
            subjects: Some(vec![subject(&name, install)]),
        };
        objects.push(json("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", &binding)?);
    }
    objects.extend(places(install)?);
    objects.push(json("apps/v1", "Deployment", &operator(install))?);
    objects.push(json("apps/v1", "Deployment", &gateway(install))?);
    objects.push(json("v1", "Service", &service(install))?);
    Ok(objects)
}

/// The definitions of Garth's resources alone.
///
/// # Errors
/// As [`objects`].
pub fn crds() -> Result<Vec<Value>, serde_json::Error> {
    definitions().iter().map(serde_json::to_value).collect()
}

fn json(version: &str, kind: &str, object: &impl Serialize) -> Result<Value, serde_json::Error> {
    let mut value = serde_json::to_value(object)?;
    value["apiVersion"] = version.into();
    value["kind"] = kind.into();
    Ok(value)
}

fn named(name: &str, install: &Install) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(install.namespace.clone()),
        labels: Some([NAME, MANAGED_BY].map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..ObjectMeta::default()
    }
}

fn namespace(install: &Install) -> Namespace {
    let mut metadata = ObjectMeta { namespace: None, ..named(&install.namespace, install) };
    let labels = metadata.labels.get_or_insert_default();
    labels.insert("pod-security.kubernetes.io/enforce".to_owned(), "restricted".to_owned());
    Namespace { metadata, ..Namespace::default() }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(words(resources)),
        verbs: words(verbs),
        ..PolicyRule::default()
    }
}

const WATCH: [&str; 3] = ["get", "list", "watch"];

fn operator_rules() -> Vec<PolicyRule> {
    vec![
        rule(GROUP, &["projects"], &["get", "list", "watch", "patch", "delete"]),
        rule(GROUP, &["projects/status"], &["get", "patch"]),
        rule(GROUP, &["isolationclasses", "projecttemplates", "warmpools"], &WATCH),
        rule(GROUP, &["warmpools/status"], &["get", "patch"]),
        rule("node.k8s.io", &["runtimeclasses"], &WATCH),
        // Patched when a project takes one of a pool.
        rule("", &["pods"], &["get", "list", "watch", "create", "patch", "delete"]),
        rule("", &["pods/resize"], &["patch"]),
        rule("", &["persistentvolumeclaims"], &["get", "list", "watch", "create", "patch", "delete"]),
        // Made, and never read.
        rule("", &["secrets"], &["create"]),
        rule("networking.k8s.io", &["networkpolicies"], &["get", "list", "watch", "create", "patch"]),
        rule("events.k8s.io", &["events"], &["create", "patch"]),
        // What autoscalers say of the Pods.
        rule("", &["events"], &["list", "watch"]),
        rule("coordination.k8s.io", &["leases"], &["get", "create", "update"]),
    ]
}

fn gateway_rules() -> Vec<PolicyRule> {
    vec![
        rule(GROUP, &["projects"], &["get", "list", "watch", "create", "patch", "delete"]),
        rule(GROUP, &["isolationclasses"], &WATCH),
        rule("node.k8s.io", &["runtimeclasses"], &WATCH),
        // Whether a kernel is another than its node's, and whether that can be reached.
        rule("", &["nodes"], &["get"]),
    ]
}

/// What the gateway may do in one namespace only: look at the projects' Pods and read their tokens, and keep its own keys.
fn gateway_places<'a>(namespace: &'a str, projects: &'a str) -> [(&'static str, &'a str, Vec<PolicyRule>); 2] {
    let tokens = vec![rule("", &["secrets"], &["get"]), rule("", &["pods"], &["get"])];
    let keys = vec![rule("", &["secrets"], &["get", "create", "update"])];
    [("garth-gateway-tokens", projects, tokens), ("garth-gateway-keys", namespace, keys)]
}

fn places(install: &Install) -> Result<Vec<Value>, serde_json::Error> {
    let mut objects = Vec::new();
    for (name, namespace, rules) in gateway_places(&install.namespace, &install.projects) {
        let metadata = ObjectMeta { namespace: Some(namespace.to_owned()), ..named(name, install) };
        let role = Role { metadata: metadata.clone(), rules: Some(rules) };
        objects.push(json("rbac.authorization.k8s.io/v1", "Role", &role)?);
        let role_ref = role_ref("Role", name);
        let subjects = Some(vec![subject("garth-gateway", install)]);
        let binding = RoleBinding { metadata, role_ref, subjects };
        objects.push(json("rbac.authorization.k8s.io/v1", "RoleBinding", &binding)?);
    }
    Ok(objects)
}

fn role_ref(kind: &str, name: &str) -> RoleRef {
    RoleRef { api_group: "rbac.authorization.k8s.io".to_owned(), kind: kind.to_owned(), name: name.to_owned() }
}

fn subject(name: &str, install: &Install) -> Subject {
    Subject {
        kind: "ServiceAccount".to_owned(),
        name: name.to_owned(),
        namespace: Some(install.namespace.clone()),
        api_group: None,
    }
}

fn operator(install: &Install) -> Deployment {
    let listen = format!("0.0.0.0:{METRICS_PORT}");
    let arguments = ["operator", "--agent-image", &install.image, "--metrics", &listen];
    let fields = [("POD_NAME", "metadata.name"), ("POD_NAMESPACE", "metadata.namespace")];
    let env = fields.map(|(name, path)| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { field_path: path.to_owned(), api_version: None }),
            ..EnvVarSource::default()
        }),
    });
    let container = Container {
        env: Some(env.into()),
        ports: Some(vec![ContainerPort {
            name: Some(METRICS.to_owned()),
            container_port: METRICS_PORT.into(),
            ..ContainerPort::default()
        }]),
        liveness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/healthz".to_owned()),
                port: IntOrString::String(METRICS.to_owned()),
                ..HTTPGetAction::default()
            }),
            timeout_seconds: Some(5),
            ..Probe::default()
        }),
        ..container(install, &arguments)
    };
    deployment(OPERATOR, install, container)
}

fn gateway(install: &Install) -> Deployment {
    let listen = format!("0.0.0.0:{GATEWAY_PORT}");
    let mut arguments = vec![
        "serve",
        "--engine",
        "kubernetes",
        "--data-dir",
        "/tmp/garth",
        "--listen",
        &listen,
        "--namespace",
        &install.projects,
        "--default-image",
        &install.default_image,
    ];
    let encrypted = install.tls_secret.is_some();
    let (certificate, key) = (format!("{TLS}/tls.crt"), format!("{TLS}/tls.key"));
    if encrypted {
        arguments.extend(["--tls-cert", &certificate, "--tls-key", &key]);
    }
    let mount = VolumeMount {
        name: "tls".to_owned(),
        mount_path: TLS.to_owned(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    let volume = |secret: &String| Volume {
        name: "tls".to_owned(),
        secret: Some(SecretVolumeSource { secret_name: Some(secret.clone()), ..SecretVolumeSource::default() }),
        ..Volume::default()
    };
    let container = Container {
        ports: Some(vec![ContainerPort { container_port: GATEWAY_PORT.into(), ..ContainerPort::default() }]),
        volume_mounts: encrypted.then(|| vec![mount]),
        readiness_probe: Some(Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/health".to_owned()),
                port: IntOrString::Int(GATEWAY_PORT.into()),
                scheme: encrypted.then(|| "HTTPS".to_owned()),
                ..HTTPGetAction::default()
            }),
            ..Probe::default()
        }),
        ..container(install, &arguments)
    };
    let mut deployment = deployment("garth-gateway", install, container);
    let pod = deployment.spec.as_mut().and_then(|spec| spec.template.spec.as_mut());
    if let Some(pod) = pod {
        pod.volumes = install.tls_secret.as_ref().map(|secret| vec![volume(secret)]);
    }
    deployment
}

fn container(install: &Install, arguments: &[&str]) -> Container {
    let quantities = |pairs: [(&str, &str); 2]| {
        Some(pairs.map(|(name, quantity)| (name.to_owned(), Quantity(quantity.to_owned()))).into())
    };
    Container {
        name: "garth".to_owned(),
        image: Some(install.image.clone()),
        command: Some(vec![PROGRAM.to_owned()]),
        args: Some(arguments.iter().map(|&argument| argument.to_owned()).collect()),
        resources: Some(ResourceRequirements {
            requests: quantities([("cpu", "50m"), ("memory", "64Mi")]),
            limits: quantities([("cpu", "2"), ("memory", "512Mi")]),
            claims: None,
        }),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

fn deployment(name: &str, install: &Install, container: Container) -> Deployment {
    let selector = [("app.kubernetes.io/component".to_owned(), name.to_owned())];
    let mut metadata = named(name, install);
    let labels = metadata.labels.get_or_insert_default();
    labels.extend(selector.clone());
    let pod = ObjectMeta { labels: Some(labels.clone()), ..ObjectMeta::default() };
    Deployment {
        metadata,
        spec: Some(DeploymentSpec {
            // One that leads or serves, and one that takes over.
            replicas: Some(2),
            selector: LabelSelector { match_labels: Some(selector.into()), match_expressions: None },
            template: PodTemplateSpec {
                metadata: Some(pod),
                spec: Some(PodSpec {
                    service_account_name: Some(name.to_owned()),
                    security_context: Some(PodSecurityContext {
                        run_as_non_root: Some(true),
                        run_as_user: Some(65532),
                        seccomp_profile: Some(SeccompProfile {
                            type_: "RuntimeDefault".to_owned(),
                            localhost_profile: None,
                        }),
                        ..PodSecurityContext::default()
                    }),
                    containers: vec![container],
                    ..PodSpec::default()
                }),
            },
            ..DeploymentSpec::default()
        }),
        status: None,
    }
}

fn service(install: &Install) -> Service {
    Service {
        metadata: named("garth", install),
        spec: Some(ServiceSpec {
            selector: Some([("app.kubernetes.io/component".to_owned(), "garth-gateway".to_owned())].into()),
            ports: Some(vec![ServicePort { port: GATEWAY_PORT.into(), ..ServicePort::default() }]),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}
