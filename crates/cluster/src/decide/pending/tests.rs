use k8s_openapi::api::core::v1::{PodCondition, PodSpec, PodStatus};

use super::*;

const BEGAN: i64 = 1_800_000_000;

fn second(seconds: i64) -> Timestamp {
    Timestamp::from_second(BEGAN + seconds).expect("a time")
}

fn pod(message: &str) -> Pod {
    let condition = PodCondition {
        type_: "PodScheduled".to_owned(),
        status: "False".to_owned(),
        reason: Some("Unschedulable".to_owned()),
        message: Some(message.to_owned()),
        last_transition_time: Some(Time(second(0))),
        ..PodCondition::default()
    };
    let labels = [("garth.dev/runtime", "sysbox"), ("sysbox-runtime", "running")];
    Pod {
        spec: Some(PodSpec {
            node_selector: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..PodSpec::default()
        }),
        status: Some(PodStatus { conditions: Some(vec![condition]), ..PodStatus::default() }),
        ..Pod::default()
    }
}

fn word(who: &str, verdict: Verdict, said: &str) -> Word {
    Word { who: who.to_owned(), verdict, said: said.to_owned(), at: second(5) }
}

const FULL: &str = "0/2 nodes are available: 2 Insufficient cpu. preemption: 0/2 nodes are available: 2 No preemption victims \
                    found for incoming pod.";
const UNLIKE: &str = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector. preemption: 0/3 nodes are \
                      available: 3 Preemption is not helpful for scheduling.";

/// Reason and message at a second, and when it is looked at again.
fn stands(message: &str, heard: Heard<'_>, at: i64) -> (&'static str, String, Option<u64>) {
    let (standing, again) = of(&pod(message), heard, second(at)).expect("it waits");
    (standing.reason.word(), standing.message, again.map(|again| again.as_secs()))
}

#[test]
fn the_schedulers_message_is_put_in_plain_words() {
    for (message, expected) in [
        (FULL, "no node fits: all have too little free cpu"),
        (UNLIKE, "no node fits: all lack the labels garth.dev/runtime=sysbox, sysbox-runtime=running"),
        (
            "0/4 nodes are available: 1 Insufficient memory, 1 Too many pods, 2 node(s) were unschedulable. preemption: x",
            "no node fits: some are cordoned, some have as many Pods as they may, some have too little free memory",
        ),
        (
            "0/1 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }.",
            "no node fits: all have a taint that it does not tolerate (node-role.kubernetes.io/control-plane)",
        ),
        (
            "0/1 nodes are available: 1 node(s) had untolerated taint(s).",
            "no node fits: all have a taint that it does not tolerate",
        ),
        (
            "0/3 nodes are available: 3 node(s) didn't match PersistentVolume's node affinity. preemption: x",
            "no node fits: all are not where its disk is",
        ),
        ("no nodes available to schedule pods", "the cluster has no node"),
        (
            "0/3 nodes are available: persistentvolumeclaim \"web-disk\" not found. preemption: x",
            "0/3 nodes are available: persistentvolumeclaim \"web-disk\" not found. preemption: x",
        ),
        (
            "0/1 nodes are available: 1 node(s) had the moon in the wrong phase.",
            "no node fits: all are refused by the scheduler (node(s) had the moon in the wrong phase)",
        ),
        ("something new", "something new"),
    ] {
        assert_eq!(stands(message, Heard::default(), 1), ("Unschedulable", expected.to_owned(), Some(59)), "{message}");
    }
}

#[test]
fn the_counts_of_nodes_change_nothing() {
    let more = FULL.replace('2', "17");
    assert_eq!(stands(FULL, Heard::default(), 1), stands(&more, Heard::default(), 1));
}

#[test]
fn a_node_that_is_being_made_is_waited_for_and_not_for_ever() {
    for (who, said) in [
        ("cluster-autoscaler", "pod triggered scale-up: [{garth-sysbox-a 0->1 (max: 10)}]"),
        ("karpenter", "Pod should schedule on: nodeclaim/garth-sysbox-x7k2p"),
    ] {
        let word = word(who, Verdict::NodeComes, said);
        let heard = Heard { word: Some(&word), busy: Some(word.at), usual: None };
        let (reason, message, again) = stands(UNLIKE, heard, 6);
        assert_eq!((reason, again), ("NodeComing", Some(899)));
        assert!(message.contains(who) && message.contains(said), "{message}");
        let (reason, message, again) = stands(UNLIKE, heard, 905);
        assert_eq!((reason, again), ("Unschedulable", None));
        assert!(message.contains("none has joined"), "{message}");
    }
}

#[test]
fn what_no_autoscaler_can_help_names_what_does() {
    for (who, said, remedy) in [
        ("cluster-autoscaler", "2 max node group size reached, 1 node(s) had untolerated taint(s)", "at its limit"),
        ("cluster-autoscaler", "1 in backoff after failed scale-up", "no machine"),
        ("cluster-autoscaler", "3 node(s) didn't match Pod's node affinity/selector", "No pool makes such nodes"),
        ("cluster-autoscaler", "2 node(s) had volume node affinity conflict", "ties it to a zone"),
        ("cluster-autoscaler", "1 Insufficient memory", "large enough"),
        ("cluster-autoscaler", "", "Its log"),
        (
            "karpenter",
            "did not tolerate taint (NodePool=garth-default, taint=garth.dev/runtime=default:NoSchedule); all available \
             instance types exceed limits for nodepool (NodePool=garth-sysbox)",
            "at its limit",
        ),
        (
            "karpenter",
            "incompatible requirements, label \"sysbox-runtime\" does not have known values",
            "No pool makes",
        ),
    ] {
        let word = word(who, Verdict::NoHelp, said);
        let (reason, message, again) = stands(UNLIKE, Heard { word: Some(&word), ..Heard::default() }, 6);
        assert_eq!((reason, again), ("NoNodeFits", None), "{said}");
        assert!(message.contains(who) && message.contains(remedy), "{said}: {message}");
        assert!(message.contains("sysbox-runtime=running"), "{message}");
    }
}

#[test]
fn silence_is_said_after_a_minute() {
    assert_eq!(stands(UNLIKE, Heard::default(), 59).0, "Unschedulable");
    let (reason, message, again) = stands(UNLIKE, Heard::default(), 60);
    assert_eq!((reason, again), ("NoNodeFits", None));
    assert!(message.contains("No autoscaler reacted within 60 s"), "{message}");
    // Room may become free by itself.
    let (reason, message, _) = stands(FULL, Heard::default(), 60);
    assert_eq!(reason, "Unschedulable");
    assert!(message.contains("No autoscaler reacted within 60 s"), "{message}");
    // An autoscaler that is at work is not called silent: it names few of many.
    let heard = Heard { busy: Some(second(20)), ..Heard::default() };
    let (reason, message, again) = stands(UNLIKE, heard, 60);
    assert_eq!((reason, again), ("Unschedulable", Some(860)));
    assert!(message.contains("for others"), "{message}");
}

#[test]
fn a_clock_that_is_ahead_breaks_nothing() {
    assert_eq!(stands(FULL, Heard::default(), -30).2, Some(60));
}

#[test]
fn only_a_pod_without_a_node_waits_for_one() {
    assert_eq!(since(&pod(FULL)), Some(Time(second(0))));
    let mut placed = pod(FULL);
    placed.status = None;
    let heard = word("karpenter", Verdict::NoHelp, "x");
    assert!(
        of(&placed, Heard { word: Some(&heard), ..Heard::default() }, second(1)).is_none() && since(&placed).is_none()
    );
}

/// A Pod of a class that was made at a second and got its node so many later.
fn placed(class: &str, made: i64, waited: i64) -> Pod {
    let mut pod = pod(FULL);
    pod.metadata.creation_timestamp = Some(Time(second(made)));
    pod.annotations_mut().insert(CLASS_ANNOTATION.to_owned(), class.to_owned());
    let conditions = pod.status.as_mut().and_then(|status| status.conditions.as_mut()).expect("conditions");
    conditions[0].status = "True".to_owned();
    conditions[0].last_transition_time = Some(Time(second(made + waited)));
    pod
}

#[test]
fn who_waits_for_a_node_is_told_how_long_that_takes() {
    let usual = |pods: &[Pod]| usual(pods.iter(), &placed("kata", 0, 0)).map(|usual| usual.as_secs());
    assert_eq!(usual(&[]), None);
    // A node was there; another class's are other machines; this one still waits.
    assert_eq!(usual(&[placed("kata", 0, 2), placed("sysbox", 0, 70), pod(FULL)]), None);
    assert_eq!(usual(&[placed("kata", 0, 33)]), Some(40));
    let mixed = [placed("kata", 0, 61), placed("kata", 10, 900), placed("kata", 20, 71), placed("kata", 30, 1)];
    assert_eq!(usual(&mixed), Some(90));
    // What was usual long ago says nothing.
    let slower: Vec<Pod> = (0..20).map(|at| placed("kata", 1000 * at, if at < 11 { 30 } else { 180 })).collect();
    assert_eq!(usual(&slower), Some(180));

    let word = word("karpenter", Verdict::NodeComes, "Pod should schedule on: nodeclaim/kata-x7");
    let heard = Heard { word: Some(&word), busy: None, usual: Some(Duration::from_secs(90)) };
    let (reason, message, _) = stands(UNLIKE, heard, 6);
    assert_eq!(reason, "NodeComing");
    assert!(message.contains("nodeclaim/kata-x7), which took about 1 min 30 s lately; until then"), "{message}");
    assert_eq!([20, 60, 90].map(|seconds| words(Duration::from_secs(seconds))), ["20 s", "1 min", "1 min 30 s"]);
}
