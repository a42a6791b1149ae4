//! What to make of what was seen. Pure.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::node::v1::RuntimeClass;
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;

use super::{Finding, Leader, PodSecurity, Section, Seen, Sight, User, Where};
use crate::resources::{self, IsolationClass, definitions};

/// The newest version that the tests run on.
const TRIED: (u32, u32) = (1, 36);

/// From which version on a Pod can have a user namespace without a feature gate.
const USER_NAMESPACES: (u32, u32) = (1, 33);

/// A lease that is not renewed for so long is anyone's, in seconds.
const LEASE: i64 = 15;

/// What works, what does not, and what mends it.
pub fn judge(seen: &Seen, asked: &Where, now: &Time) -> Vec<Section> {
    let section = |subject, findings| Section { subject, findings };
    vec![
        section("API server", api_server(seen)),
        section("definitions", of(&seen.definitions, "definitions", |there| definitions_are_ours(there))),
        section("runtimes", runtimes(seen)),
        section("storage", of(&seen.storage_classes, "storage classes", |there| vec![default_storage(there)])),
        section("operator", operator(seen, asked, now)),
        section("gateway", vec![replicas("gateway", &seen.gateways, asked)]),
        section("projects", projects(seen, asked)),
        section("rights", of(&seen.user, "user", rights)),
    ]
}

fn ok(name: impl Into<String>, detail: impl Into<String>) -> Finding {
    Finding { name: name.into(), ok: true, detail: detail.into(), fix: None }
}

fn no(name: impl Into<String>, detail: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { name: name.into(), ok: false, detail: detail.into(), fix: Some(fix.into()) }
}

/// The findings about something, or that it could not be looked at.
fn of<T>(sight: &Sight<T>, name: &str, findings: impl FnOnce(&T) -> Vec<Finding>) -> Vec<Finding> {
    match sight {
        Ok(seen) => findings(seen),
        Err(why) => vec![no(name, format!("cannot be looked at: {why}"), "ask as a user who may read it")],
    }
}

fn api_server(seen: &Seen) -> Vec<Finding> {
    let (major, minor, name) = &seen.version;
    let version = (*major, *minor);
    let tried = match version >= TRIED {
        true => name.clone(),
        false => format!("{name}; Garth is tried with {}.{} and may work with older ones", TRIED.0, TRIED.1),
    };
    let namespaces = "user namespaces";
    let mapped = match version >= USER_NAMESPACES {
        true => ok(namespaces, "classes with hostUsers: false can be carried out, where the nodes' runtime has them"),
        false => no(
            namespaces,
            format!("{name} has none"),
            "use Kubernetes 1.33 or newer, or no class with hostUsers: false",
        ),
    };
    vec![ok("version", tried), mapped]
}

fn definitions_are_ours(there: &[CustomResourceDefinition]) -> Vec<Finding> {
    let fix = "garth cluster crds | kubectl apply -f -";
    let finding = |ours: &CustomResourceDefinition| {
        let name = ours.name_any();
        match there.iter().find(|one| one.name_any() == name) {
            None => no(name, "is not there", fix),
            Some(one) if !is_served(one) => no(name, "is there and not served", "kubectl describe crd"),
            Some(one) if !says_the_same(one, ours) => no(name, "is of another version of Garth", fix),
            Some(_) => ok(name, "is there, and of this version"),
        }
    };
    definitions().iter().map(finding).collect()
}

fn is_served(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Established" && one.status == "True"))
}

/// Whether both say the same of the resource; the API server adds to the rest.
fn says_the_same(one: &CustomResourceDefinition, other: &CustomResourceDefinition) -> bool {
    let schemas = |definition: &CustomResourceDefinition| {
        let versions = definition.spec.versions.iter();
        versions.map(|version| (version.name.clone(), version.schema.clone())).collect::<Vec<_>>()
    };
    schemas(one) == schemas(other)
}

fn runtimes(seen: &Seen) -> Vec<Finding> {
    let (classes, runtime_classes, nodes) = match (&seen.classes, &seen.runtime_classes, &seen.nodes) {
        (Ok(classes), Ok(runtime_classes), Ok(nodes)) => (classes, runtime_classes, nodes),
        (Err(why), ..) | (_, Err(why), _) | (.., Err(why)) => {
            return of(&Err::<(), _>(why.clone()), "classes and nodes", |()| vec![]);
        }
    };
    let plain = match classes.iter().any(|class| class.spec.runtime == "default") {
        true => None,
        false => Some(on_nodes("default", "the cluster's own runtime", &BTreeMap::new(), nodes)),
    };
    plain.into_iter().chain(classes.iter().map(|class| by_class(class, runtime_classes, nodes))).collect()
}

fn by_class(class: &IsolationClass, runtime_classes: &[RuntimeClass], nodes: &[Node]) -> Finding {
    let name = format!("{} by the class {}", class.spec.runtime, class.name_any());
    let mut labels = class.spec.node_selector.clone();
    let Some(wanted) = &class.spec.runtime_class_name else {
        return on_nodes(&name, "the cluster's own runtime", &labels, nodes);
    };
    let Some(there) = runtime_classes.iter().find(|one| one.name_any() == *wanted) else {
        let fix = format!("install what makes the RuntimeClass {wanted}, or change the class");
        return no(name, format!("the RuntimeClass {wanted} is not there"), fix);
    };
    let scheduling = there.scheduling.as_ref().and_then(|scheduling| scheduling.node_selector.clone());
    labels.extend(scheduling.unwrap_or_default());
    on_nodes(&name, &format!("RuntimeClass {wanted}"), &labels, nodes)
}

/// Whether nodes have all of these labels.
fn on_nodes(name: &str, by: &str, labels: &BTreeMap<String, String>, nodes: &[Node]) -> Finding {
    let fits = |node: &&Node| labels.iter().all(|(key, value)| node.labels().get(key) == Some(value));
    let count = nodes.iter().filter(|node| is_ready(node)).filter(fits).count();
    let chosen: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let chosen = if chosen.is_empty() { String::new() } else { format!(" with {}", chosen.join(",")) };
    let detail = format!("{by}, {count} of {} nodes are ready{chosen}", nodes.len());
    match count {
        0 => {
            no(name, detail, "make a node ready that has it; where nodes are made on demand, the first start makes one")
        }
        _ => ok(name, detail),
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_ref());
    let ready = conditions.is_some_and(|all| all.iter().any(|one| one.type_ == "Ready" && one.status == "True"));
    ready && node.spec.as_ref().and_then(|spec| spec.unschedulable) != Some(true)
}

const DEFAULT_STORAGE: &str = "storageclass.kubernetes.io/is-default-class";

fn default_storage(there: &[StorageClass]) -> Finding {
    let name = "default StorageClass";
    let is_default =
        |class: &&StorageClass| class.annotations().get(DEFAULT_STORAGE).is_some_and(|word| word == "true");
    let Some(class) = there.iter().find(is_default) else {
        let fix =
            format!("annotate one with {DEFAULT_STORAGE}=true, or say spec.disk.storageClassName in each project");
        return no(name, format!("none of the {} there", there.len()), fix);
    };
    match class.volume_binding_mode.as_deref() {
        Some("WaitForFirstConsumer") => ok(name, format!("{}, WaitForFirstConsumer", class.name_any())),
        mode => no(
            name,
            format!(
                "{} binds {}: a disk may be where no node of its runtime is",
                class.name_any(),
                mode.unwrap_or("Immediate")
            ),
            "make a class with volumeBindingMode: WaitForFirstConsumer the default",
        ),
    }
}

fn operator(seen: &Seen, asked: &Where, now: &Time) -> Vec<Finding> {
    let mut findings = of(&seen.leader, "leader", |leader| vec![leads(leader.as_ref(), asked, now)]);
    findings.push(replicas("operator", &seen.operators, asked));
    findings
}

fn leads(leader: Option<&Leader>, asked: &Where, now: &Time) -> Finding {
    let fix = format!("kubectl -n {} logs deploy/garth-operator", asked.namespace);
    let Some(leader) = leader else { return no("leader", "no operator has ever led", fix) };
    let age = leader.renewed.as_ref().map(|renewed| now.0.duration_since(renewed.0).as_secs());
    match age {
        Some(age) if age <= LEASE => ok("leader", format!("{} said so {} s ago", leader.name, age.max(0))),
        Some(age) => no("leader", format!("{} said so {age} s ago, and nobody since", leader.name), fix),
        None => no("leader", format!("{} never said when", leader.name), fix),
    }
}

fn replicas(part: &str, seen: &Sight<Option<(i32, i32)>>, asked: &Where) -> Finding {
    let (name, deployment) = ("replicas", format!("Deployment garth-{part}"));
    match seen {
        Ok(Some((0, wanted))) => no(
            name,
            format!("none of {wanted} of the {deployment} is ready"),
            format!("kubectl -n {} describe deploy,pods", asked.namespace),
        ),
        Ok(Some((ready, wanted))) => ok(name, format!("{ready} of {wanted} are ready")),
        Ok(None) => no(
            name,
            format!("there is no {deployment} in the namespace {}", asked.namespace),
            "garth cluster manifests | kubectl apply -f -, or name its namespace with --namespace",
        ),
        Err(why) => no(name, format!("cannot be looked at: {why}"), "ask as a user who may read it"),
    }
}

fn projects(seen: &Seen, asked: &Where) -> Vec<Finding> {
    let name = format!("namespace {}", asked.projects);
    let wants_root =
        seen.classes.as_ref().is_ok_and(|classes| classes.iter().any(|class| class.spec.user == resources::User::Root));
    let finding = |there: &Option<PodSecurity>| match there.as_ref().map(|there| there.enforced.as_deref()) {
        None => no(&name, "is not there", format!("kubectl create namespace {}", asked.projects)),
        Some(Some("restricted")) if wants_root => no(
            &name,
            "enforces the Pod Security Standard restricted, which refuses the classes with user: Root",
            format!(
                "kubectl label --overwrite namespace {} pod-security.kubernetes.io/enforce=baseline",
                asked.projects
            ),
        ),
        Some(Some(level)) => ok(&name, format!("enforces the Pod Security Standard {level}")),
        Some(None) => ok(&name, "enforces no Pod Security Standard of its own"),
    };
    of(&seen.projects, &name, |there| vec![finding(there)])
}

fn rights(user: &User) -> Vec<Finding> {
    let finding = |(part, lacks): &(&str, Vec<String>)| {
        let name = format!("of the {part}");
        match lacks.is_empty() {
            true => ok(name, format!("{} may do all that it needs", user.name)),
            false => no(
                name,
                format!("{} may not {}", user.name, lacks.join(", ")),
                "garth cluster manifests | kubectl apply -f -, which gives them to its accounts",
            ),
        }
    };
    user.lacks.iter().map(finding).collect()
}

#[cfg(test)]
mod tests;
