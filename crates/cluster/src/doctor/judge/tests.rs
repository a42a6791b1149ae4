use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("an object")
}

fn now() -> Time {
    object(json!("2026-01-01T00:01:00Z"))
}

fn asked() -> Where {
    Where { namespace: "garth".into(), projects: "agents".into() }
}

/// A cluster on which all works.
fn whole() -> Seen {
    let definitions = definitions().map(|mut definition| {
        let established = json!({ "conditions": [{ "type": "Established", "status": "True" }] });
        definition.status = Some(object(established));
        definition
    });
    let node = json!({
        "metadata": { "name": "n", "labels": { "sysbox": "running" } },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    });
    let class = json!({
        "metadata": { "name": "sysbox" },
        "spec": { "runtime": "sysbox/sysbox-runc", "runtimeClassName": "sysbox-runc", "hostUsers": false, "user": "Root" },
    });
    let runtime_class = json!({
        "metadata": { "name": "sysbox-runc" },
        "handler": "sysbox-runc",
        "scheduling": { "nodeSelector": { "sysbox": "running" } },
    });
    let storage = json!({
        "metadata": { "name": "fast", "annotations": { DEFAULT_STORAGE: "true" } },
        "provisioner": "x",
        "volumeBindingMode": "WaitForFirstConsumer",
    });
    Seen {
        version: (1, 36, "v1.36.1".into()),
        definitions: Ok(definitions.into()),
        classes: Ok(vec![object(class)]),
        runtime_classes: Ok(vec![object(runtime_class)]),
        nodes: Ok(vec![object(node)]),
        storage_classes: Ok(vec![object(storage)]),
        leader: Ok(Some(Leader { name: "one".into(), renewed: Some(object(json!("2026-01-01T00:00:57Z"))) })),
        operators: Ok(Some((2, 2))),
        gateways: Ok(Some((1, 2))),
        projects: Ok(Some(PodSecurity { enforced: Some("baseline".into()) })),
        user: Ok(User { name: "ann".into(), lacks: vec![("gateway", vec![])] }),
    }
}

/// What is wrong once this was changed: the names and details, in one text.
fn wrong(change: impl FnOnce(&mut Seen)) -> String {
    let mut seen = whole();
    change(&mut seen);
    let sections = judge(&seen, &asked(), &now());
    let wrong = sections.iter().flat_map(|section| &section.findings).filter(|finding| !finding.ok);
    let lines: Vec<String> = wrong
        .map(|finding| {
            assert!(finding.fix.as_ref().is_some_and(|fix| !fix.is_empty()), "{finding:?}");
            format!("{}: {}", finding.name, finding.detail)
        })
        .collect();
    lines.join("\n")
}

#[test]
fn a_whole_cluster_has_nothing_wrong() {
    assert_eq!(wrong(|_| {}), "");
    let sections = judge(&whole(), &asked(), &now());
    assert!(sections.iter().all(Section::is_ok));
    let leader = &sections.iter().find(|section| section.subject == "operator").expect("the operator").findings[0];
    assert_eq!(leader.detail, "one said so 3 s ago");
}

#[test]
fn definitions_that_are_missing_or_others_are_said() {
    assert!(wrong(|seen| seen.definitions = Ok(vec![])).contains("projects.garth.dev: is not there"));
    let other = |seen: &mut Seen| {
        let there = seen.definitions.as_mut().expect("there");
        there[0].spec.versions[0].schema = None;
    };
    assert_eq!(wrong(other), "projects.garth.dev: is of another version of Garth");
    let unserved = |seen: &mut Seen| seen.definitions.as_mut().expect("there")[1].status = None;
    assert_eq!(wrong(unserved), "isolationclasses.garth.dev: is there and not served");
}

#[test]
fn a_runtime_needs_its_class_and_a_node() {
    let gone = wrong(|seen| seen.runtime_classes = Ok(vec![]));
    assert_eq!(gone, "sysbox/sysbox-runc by the class sysbox: the RuntimeClass sysbox-runc is not there");
    let unlabelled = wrong(|seen| seen.nodes.as_mut().expect("there")[0].metadata.labels = None);
    assert!(unlabelled.ends_with("0 of 1 nodes are ready with sysbox=running"), "{unlabelled}");
    let cordoned = |seen: &mut Seen| {
        seen.nodes.as_mut().expect("there")[0].spec = Some(object(json!({ "unschedulable": true })));
    };
    assert!(wrong(cordoned).contains("default: the cluster's own runtime, 0 of 1 nodes are ready"));
}

#[test]
fn disks_need_a_default_class_that_waits() {
    assert_eq!(wrong(|seen| seen.storage_classes = Ok(vec![])), "default StorageClass: none of the 0 there");
    let eager = |seen: &mut Seen| seen.storage_classes.as_mut().expect("there")[0].volume_binding_mode = None;
    assert!(wrong(eager).contains("fast binds Immediate"));
}

#[test]
fn an_operator_has_to_lead_now() {
    assert_eq!(wrong(|seen| seen.leader = Ok(None)), "leader: no operator has ever led");
    let stale = |seen: &mut Seen| {
        seen.leader = Ok(Some(Leader { name: "one".into(), renewed: Some(object(json!("2026-01-01T00:00:00Z"))) }));
    };
    assert_eq!(wrong(stale), "leader: one said so 60 s ago, and nobody since");
    assert!(wrong(|seen| seen.gateways = Ok(Some((0, 2)))).contains("none of 2 of the Deployment garth-gateway"));
    assert!(wrong(|seen| seen.operators = Ok(None)).contains("there is no Deployment garth-operator"));
}

#[test]
fn root_in_projects_needs_a_namespace_that_lets_it_be() {
    let strict = wrong(|seen| seen.projects = Ok(Some(PodSecurity { enforced: Some("restricted".into()) })));
    assert!(strict.contains("refuses the classes with user: Root"), "{strict}");
    assert_eq!(wrong(|seen| seen.projects = Ok(None)), "namespace agents: is not there");
}

#[test]
fn rights_that_lack_and_what_may_not_be_seen_are_named() {
    let lacks = |seen: &mut Seen| {
        seen.user = Ok(User { name: "ann".into(), lacks: vec![("operator", vec!["create pods".into()])] });
    };
    assert_eq!(wrong(lacks), "of the operator: ann may not create pods");
    assert_eq!(wrong(|seen| seen.nodes = Err("no".into())), "classes and nodes: cannot be looked at: no");
    let old = wrong(|seen| seen.version = (1, 30, "v1.30.0".into()));
    assert_eq!(old, "user namespaces: v1.30.0 has none");
}
