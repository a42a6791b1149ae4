use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher;

use super::*;
use crate::install::{Install, monitoring};
use crate::operator::events::Words;
use crate::resources::{Ended, EndedReason, ProjectTemplateSpec, SandboxStatus, State, WarmPool, WarmPoolSpec};

/// A line of the text that has a value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sample {
    pub(super) name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

/// Reads OpenMetrics text; panics at what is not.
pub(super) fn samples(text: &str) -> Vec<Sample> {
    let body = text.strip_suffix("# EOF\n").expect("an end");
    let mut families: Vec<(&str, &str)> = Vec::new();
    let mut samples = Vec::new();
    for line in body.lines() {
        if let Some(kind) = line.strip_prefix("# TYPE ") {
            let family = kind.split_once(' ').expect("a type");
            assert!(families.iter().all(|(name, _)| *name != family.0), "twice: {line}");
            families.push(family);
        } else if !line.starts_with("# HELP ") && !line.starts_with("# UNIT ") {
            let sample = sample(line);
            let (family, kind) = families.last().expect("a family");
            let suffixes: &[&str] = match *kind {
                "counter" => &["_total"],
                "gauge" => &[""],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                kind => panic!("{kind}"),
            };
            assert!(suffixes.iter().any(|suffix| sample.name == format!("{family}{suffix}")), "{line} of {family}");
            samples.push(sample);
        }
    }
    samples
}

fn sample(line: &str) -> Sample {
    let (series, value) = line.rsplit_once(' ').expect("a value");
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, labels.strip_suffix('}').expect("the labels' end")),
        None => (series, ""),
    };
    let labels = labels.split(',').filter(|label| !label.is_empty()).map(|label| {
        let (key, value) = label.split_once('=').expect("a label");
        let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quoted");
        (key.to_owned(), value.to_owned())
    });
    Sample { name: name.to_owned(), labels: labels.collect(), value: value.parse().expect("a number") }
}

/// The value of the only series with this name and these labels.
#[track_caller]
fn value(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let name = format!("garth_operator_{name}");
    let all = samples(&metrics.text().expect("text"));
    let mut found = all.iter().filter(|sample| sample.name == name && sample.labels == labels);
    let value = found.next().map(|sample| sample.value);
    assert!(found.next().is_none(), "{name} twice");
    value
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(Timestamp::now().as_second() + seconds).expect("a time")
}

fn project(name: &str, runtime: &str, created: Timestamp) -> Project {
    let mut project = ProjectTemplateSpec {
        image: "debian:12".to_owned(),
        runtime: runtime.to_owned(),
        limits: Default::default(),
        disk: Default::default(),
    }
    .project(name);
    project.metadata.namespace = Some("agents".to_owned());
    project.metadata.uid = Some(name.to_owned());
    project.metadata.creation_timestamp = Some(Time(created));
    project
}

fn status(state: State, reason: &str) -> ProjectStatus {
    let ready = Condition {
        type_: "Ready".to_owned(),
        status: "False".to_owned(),
        reason: reason.to_owned(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    };
    ProjectStatus { state: Some(state), conditions: vec![ready], ..ProjectStatus::default() }
}

fn sandbox(runtime: &str, secret: Option<&str>) -> SandboxStatus {
    SandboxStatus {
        uid: "1".to_owned(),
        pod: "web".to_owned(),
        secret: secret.map(str::to_owned),
        runtime: runtime.to_owned(),
        class: None,
        user_namespace: false,
        node: None,
        address: None,
        started_at: None,
        pending_since: None,
    }
}

fn with(mut project: Project, status: ProjectStatus) -> Project {
    project.status = Some(status);
    project
}

fn pool(name: &str, wanted: u32, ready: u32) -> WarmPool {
    let mut pool = WarmPool::new(name, WarmPoolSpec { template: "small".to_owned(), replicas: wanted });
    pool.metadata.namespace = Some("agents".to_owned());
    pool.status.get_or_insert_default().ready_replicas = ready;
    pool
}

fn copies<K>(objects: Vec<K>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, mut writer) = reflector::store();
    for object in objects {
        writer.apply_watcher_event(&watcher::Event::Apply(object));
    }
    store
}

fn sight(projects: Vec<Project>, pools: Vec<WarmPool>) -> Sight {
    Sight {
        projects: copies(projects),
        pods: copies(Vec::new()),
        claims: copies(Vec::new()),
        policies: copies(Vec::new()),
        classes: copies(Vec::new()),
        runtime_classes: copies(Vec::new()),
        templates: copies(Vec::new()),
        pools: copies(pools),
        words: Words::default(),
    }
}

fn refusal() -> Refused {
    Refused::Taken { kind: "Pod".to_owned(), name: "web".to_owned() }
}

const COLD: [(&str, &str); 2] = [("runtime", "default"), ("start", "cold")];

#[test]
fn reconciliations_are_counted_by_kind_and_outcome() {
    let metrics = Metrics::new();
    let count = |kind, outcome| value(&metrics, "reconciliations_total", &[("kind", kind), ("outcome", outcome)]);
    assert_eq!(count("pool", "refused"), Some(0.0));
    metrics.reconciled(Kind::Pool, &Err::<(), _>(refusal()), Duration::from_millis(20));
    metrics.reconciled(Kind::Project, &Ok(()), Duration::from_millis(20));
    metrics.reconciled(Kind::Project, &Ok(()), Duration::from_secs(90));
    assert_eq!((count("project", "done"), count("project", "refused")), (Some(2.0), Some(0.0)));
    assert_eq!((count("pool", "done"), count("pool", "refused")), (Some(0.0), Some(1.0)));
    assert_eq!(value(&metrics, "refusals_total", &[("reason", "taken")]), Some(1.0));
    let below = |le| value(&metrics, "reconciliation_duration_seconds_bucket", &[("kind", "project"), ("le", le)]);
    assert_eq!((below("0.01"), below("0.025"), below("+Inf")), (Some(0.0), Some(1.0), Some(2.0)));
}

#[test]
fn only_the_one_that_leads_says_how_projects_are() {
    let metrics = Metrics::new();
    let running = with(project("web", "microvm", at(-60)), status(State::Running, "Running"));
    let leader = || value(&metrics, "leader", &[]);
    let projects = || value(&metrics, "projects", &[("state", "Running"), ("runtime", "microvm")]);
    assert_eq!((leader(), projects()), (Some(0.0), None));
    let leads = metrics.lead();
    assert_eq!((leader(), projects()), (Some(1.0), None));
    metrics.sees(sight(vec![running], Vec::new()));
    assert_eq!((leader(), projects()), (Some(1.0), Some(1.0)));
    drop(leads);
    assert_eq!((leader(), projects()), (Some(0.0), None));
}

#[test]
fn projects_are_counted_by_state_and_level() {
    let metrics = Metrics::new();
    let _leads = metrics.lead();
    let running = ProjectStatus { sandbox: Some(sandbox("microvm/qemu", None)), ..status(State::Running, "Running") };
    let projects = vec![
        project("new", "default", at(0)),
        with(project("a", "microvm", at(-60)), running.clone()),
        with(project("b", "microvm/qemu", at(-60)), running),
        with(project("c", "sysbox", at(-60)), status(State::Suspended, "Suspended")),
    ];
    metrics.sees(sight(projects, vec![pool("small", 5, 2)]));
    let projects = |state, runtime| value(&metrics, "projects", &[("state", state), ("runtime", runtime)]);
    assert_eq!(projects("Running", "microvm"), Some(2.0));
    assert_eq!(projects("Suspended", "sysbox"), Some(1.0));
    assert_eq!(projects("Starting", "default"), Some(1.0));
    let small = [("namespace", "agents"), ("pool", "small")];
    assert_eq!(value(&metrics, "pool_sandboxes_wanted", &small), Some(5.0));
    assert_eq!(value(&metrics, "pool_sandboxes_ready", &small), Some(2.0));
}

#[test]
fn what_waits_is_counted_by_reason_from_its_wish_on() {
    let metrics = Metrics::new();
    let _leads = metrics.lead();
    let first = with(project("first", "default", at(-1000)), status(State::Starting, "ImagePull"));
    let mut again = first.clone();
    again.metadata.name = Some("again".to_owned());
    again.metadata.uid = Some("again".to_owned());
    let ended = Ended { uid: "0".to_owned(), at: Time(at(-900)), reason: EndedReason::Stopped, detail: None };
    again.status.get_or_insert_default().ended = Some(ended);
    let mut unplaced = status(State::Starting, "NoNodeFits");
    unplaced.sandbox = Some(SandboxStatus { pending_since: Some(Time(at(-300))), ..sandbox("default", None) });
    let unplaced = with(project("unplaced", "default", at(-5000)), unplaced);
    let mut stopping = with(project("stopping", "default", at(-60)), status(State::Stopping, "Stopping"));
    stopping.spec.desired_state = crate::resources::DesiredState::Stopped;
    let failed = with(project("failed", "default", at(-60)), status(State::Failed, "DiskLost"));
    metrics.sees(sight(vec![first, again, unplaced, stopping, failed], Vec::new()));
    let pending = |reason| value(&metrics, "pending_projects", &[("reason", reason)]);
    let longest = |reason| value(&metrics, "longest_pending_seconds", &[("reason", reason)]).expect(reason);
    assert_eq!((pending("ImagePull"), pending("NoNodeFits")), (Some(2.0), Some(1.0)));
    assert_eq!((pending("Stopping"), pending("DiskLost")), (None, None));
    // Nobody knows since when the one that had run before is to run again: this operator has only begun.
    assert!((999.0..1100.0).contains(&longest("ImagePull")), "{}", longest("ImagePull"));
    assert!((299.0..400.0).contains(&longest("NoNodeFits")), "{}", longest("NoNodeFits"));
}

#[test]
fn a_start_is_timed_once_from_the_wish() {
    let metrics = Metrics::new();
    let _leads = metrics.lead();
    let starts = || value(&metrics, "start_duration_seconds_count", &COLD);
    let took = || value(&metrics, "start_duration_seconds_sum", &COLD).expect("a sum");
    let running = ProjectStatus { sandbox: Some(sandbox("default", None)), ..status(State::Running, "Running") };
    let new = project("web", "default", at(-40));
    metrics.told(&new, &status(State::Starting, "Starting"));
    assert_eq!(starts(), None);
    metrics.told(&new, &running);
    assert_eq!(starts(), Some(1.0));
    assert!((40.0..100.0).contains(&took()), "{}", took());
    // The copy of the project lags behind.
    metrics.told(&new, &running);
    assert_eq!(starts(), Some(1.0));

    // Another wish, of now: whatever was before.
    let known = with(new, running.clone());
    metrics.told(&known, &status(State::Stopped, "Stopped"));
    metrics.told(&known, &status(State::Starting, "Starting"));
    metrics.told(&known, &running);
    assert_eq!(starts(), Some(2.0));
    assert!((40.0..100.0).contains(&took()), "{}", took());
}

#[test]
fn a_start_from_a_pool_is_warm() {
    let metrics = Metrics::new();
    let _leads = metrics.lead();
    let taken = ProjectStatus { sandbox: Some(sandbox("sysbox/sysbox-runc", Some("x"))), ..status(State::Running, "") };
    metrics.told(&project("web", "sysbox", at(-1)), &taken);
    let warm = [("runtime", "sysbox"), ("start", "warm")];
    assert_eq!(value(&metrics, "start_duration_seconds_count", &warm), Some(1.0));
}

#[test]
fn a_start_whose_wish_another_operator_saw_is_not_timed() {
    let metrics = Metrics::new();
    let _leads = metrics.lead();
    let known = with(project("web", "default", at(-4000)), status(State::Starting, "Starting"));
    metrics.told(&known, &status(State::Running, "Running"));
    assert_eq!(value(&metrics, "start_duration_seconds_count", &COLD), None);
}

/// All that an operator may ever say.
fn everything() -> Vec<Sample> {
    let metrics = Metrics::new();
    let _leads = metrics.lead();
    metrics.reconciled(Kind::Project, &Ok(()), Duration::ZERO);
    metrics.told(&project("web", "default", at(-1)), &status(State::Running, "Running"));
    let failed = with(project("a", "default", at(-60)), status(State::Failed, "DiskLost"));
    let waits = with(project("b", "default", at(-60)), status(State::Starting, "ImagePull"));
    metrics.sees(sight(vec![failed, waits], vec![pool("small", 1, 0)]));
    samples(&metrics.text().expect("text"))
}

/// The metrics of an expression, with the labels that it selects.
fn selected(expression: &str) -> Vec<(&str, Vec<(&str, &str)>)> {
    let starts = expression.match_indices("garth_operator_").map(|(from, _)| &expression[from..]);
    let split = starts.map(|rest| {
        let name = rest.find(|c: char| !c.is_ascii_lowercase() && c != '_').map_or(rest, |end| &rest[..end]);
        let braces = rest[name.len()..].strip_prefix('{').and_then(|labels| labels.split_once('}'));
        let labels = braces.iter().flat_map(|(labels, _)| labels.split(','));
        let labels = labels.map(|label| {
            let (key, value) = label.split_once('=').expect("a label");
            (key, value.trim_matches('"'))
        });
        (name, labels.collect())
    });
    split.collect()
}

#[test]
fn what_a_rule_asks_for_is_there() {
    let all = everything();
    let install = Install {
        namespace: "garth".to_owned(),
        projects: "agents".to_owned(),
        image: "garth:latest".to_owned(),
        default_image: "debian:12".to_owned(),
        tls_secret: None,
    };
    let [_, rules] = monitoring(&install);
    let rules = rules["spec"]["groups"][0]["rules"].as_array().expect("rules").clone();
    assert!(!rules.is_empty());
    for rule in rules {
        let expression = rule["expr"].as_str().expect("an expression");
        let selected = selected(expression);
        assert!(!selected.is_empty(), "{expression}");
        for (name, labels) in selected {
            let has = |sample: &&Sample| {
                sample.name == name
                    && labels.iter().all(|(key, value)| sample.labels.get(*key).is_some_and(|has| has == value))
            };
            let found = all.iter().find(has).unwrap_or_else(|| panic!("{name} {labels:?} is nowhere: {expression}"));
            let by = expression.split("by (").skip(1).filter_map(|rest| rest.split_once(')'));
            for label in by.flat_map(|(labels, _)| labels.split(", ")) {
                assert!(found.labels.contains_key(label), "{name} has no {label}: {expression}");
            }
        }
        for text in ["summary", "description"] {
            assert!(rule["annotations"][text].as_str().is_some_and(|text| !text.is_empty()), "{rule}");
        }
    }
}

#[test]
fn what_is_documented_is_there_and_the_reverse() {
    let docs = include_str!("../../../../../docs/kubernetes.md");
    let section = docs.split("\n## ").find(|section| section.starts_with("Metrics\n")).expect("a section");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `garth_operator_")?.split('`').next());
    let mut documented: Vec<String> = rows.map(|row| format!("garth_operator_{row}")).collect();
    let stem = |name: &str| {
        ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name).to_owned()
    };
    let mut said: Vec<String> = everything()
        .iter()
        .map(|sample| {
            let labels = sample.labels.keys().filter(|label| *label != "le").cloned().collect::<Vec<_>>().join(",");
            let name = stem(&sample.name);
            if labels.is_empty() { name } else { format!("{name}{{{labels}}}") }
        })
        .collect();
    said.sort();
    said.dedup();
    documented.sort();
    assert_eq!(documented, said);
}

#[test]
fn requests_are_counted_by_their_methods() {
    let metrics = Metrics::new();
    for (method, path) in [
        ("GET", "/api/v1/pods?limit=500"),
        ("GET", "/api/v1/pods?watch=true&timeoutSeconds=290"),
        ("PATCH", "/api/v1/namespaces/a/pods/web"),
        ("OPTIONS", "/"),
        ("PATCH", "/api/v1/namespaces/a/pods/watch=true"),
    ] {
        metrics.asks(&http::Request::builder().method(method).uri(path).body(()).expect("a request"));
    }
    let asked = |method: &str| value(&metrics, "requests_total", &[("method", method)]);
    assert_eq!(["GET", "WATCH", "PATCH", "other", "DELETE"].map(asked), [1.0, 1.0, 2.0, 1.0, 0.0].map(Some));
}
