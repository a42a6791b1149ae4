use k8s_openapi::api::core::v1::PodSpec;
use serde_json::json;

use super::*;
use crate::resources::ProjectSpec;

fn event(source: &str, reason: &str, message: &str, at: &str) -> Event {
    serde_json::from_value(json!({
        "metadata": { "name": "web.1", "namespace": "agents" },
        "involvedObject": { "kind": "Pod", "namespace": "agents", "name": "web", "uid": "pod-1" },
        "source": { "component": source },
        "reason": reason,
        "message": message,
        "lastTimestamp": at,
    }))
    .expect("an event")
}

fn project() -> Project {
    let spec: ProjectSpec = serde_json::from_value(json!({ "image": "debian:12" })).expect("a spec");
    let mut project = Project::new("web", spec);
    project.metadata.namespace = Some("agents".to_owned());
    project
}

fn pod(uid: &str) -> Pod {
    let mut pod = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
    pod.metadata.uid = Some(uid.to_owned());
    pod
}

const EARLY: &str = "2026-11-26T12:00:00Z";
const LATE: &str = "2026-11-26T12:00:10Z";

#[test]
fn the_autoscalers_words_are_known_by_who_says_them() {
    for (source, reason, expected) in [
        ("cluster-autoscaler", "TriggeredScaleUp", Some(Verdict::NodeComes)),
        ("cluster-autoscaler", "NotTriggerScaleUp", Some(Verdict::NoHelp)),
        ("cluster-autoscaler", "ScaleDown", None),
        ("karpenter", "Nominated", Some(Verdict::NodeComes)),
        ("karpenter", "FailedScheduling", Some(Verdict::NoHelp)),
        ("karpenter", "Evicted", None),
        // Said of every Pod that waits, for good or ill.
        ("default-scheduler", "FailedScheduling", None),
    ] {
        let word = word(&event(source, reason, "x", EARLY));
        assert_eq!(word.map(|word| word.verdict), expected, "{source} {reason}");
    }
    let new = json!({
        "metadata": {}, "involvedObject": {}, "reportingComponent": "karpenter", "reason": "Nominated",
        "eventTime": "2026-11-26T12:00:00.000000Z",
        "series": { "count": 2, "lastObservedTime": "2026-11-26T12:00:10.000000Z" },
    });
    let word = word(&serde_json::from_value(new).expect("an event")).expect("a word");
    assert_eq!(word.at, LATE.parse().expect("a time"));
}

#[test]
fn what_is_said_is_cut_to_the_point() {
    let failed = event("karpenter", "FailedScheduling", "Failed to schedule pod, no instance type fits", EARLY);
    assert_eq!(word(&failed).expect("a word").said, "no instance type fits");
    let group =
        event("cluster-autoscaler", "NotTriggerScaleUp", "pod didn't trigger scale-up: 1 Insufficient cpu", EARLY);
    assert_eq!(word(&group).expect("a word").said, "1 Insufficient cpu");
}

#[test]
fn the_last_word_about_a_pod_is_kept_until_it_has_a_node() {
    let (words, project) = (Words::default(), project());
    let key = || ObjectRef::from_obj(&project);
    let verdict = |pod: &Pod| words.known(&project, Some(pod)).word.map(|word| word.verdict);
    let refused = event("cluster-autoscaler", "NotTriggerScaleUp", "x", EARLY);
    assert!(words.hear(key(), &refused));
    assert!(!words.hear(key(), &refused), "nothing new");
    assert_eq!(verdict(&pod("pod-1")), Some(Verdict::NoHelp));
    let begun = event("cluster-autoscaler", "TriggeredScaleUp", "x", LATE);
    assert!(words.hear(key(), &begun));
    // A watch that begins anew gives the old ones again.
    assert!(!words.hear(key(), &refused));
    assert_eq!(verdict(&pod("pod-1")), Some(Verdict::NodeComes));
    // It is about that Pod and none that came after it.
    assert_eq!(verdict(&pod("pod-2")), None);
    assert_eq!(words.known(&project, None).busy, Some(LATE.parse().expect("a time")));
    let mut placed = pod("pod-1");
    placed.spec.get_or_insert_default().node_name = Some("node-1".to_owned());
    assert_eq!(verdict(&placed), None);
    assert!(words.lock().words.is_empty());
}

#[test]
fn a_project_that_goes_leaves_no_word() {
    let (words, mut project) = (Words::default(), project());
    words.hear(ObjectRef::from_obj(&project), &event("karpenter", "Nominated", "x", EARLY));
    project.metadata.deletion_timestamp = Some(Time(Timestamp::now()));
    words.known(&project, None);
    assert!(words.lock().words.is_empty());
}
