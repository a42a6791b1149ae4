use k8s_openapi::api::core::v1::{
    ContainerState, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus, PersistentVolumeClaimStatus,
    PodCondition, PodStatus,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::CustomResourceExt as _;
use proptest::prelude::*;

use super::*;
use crate::resources::{IsolationClassSpec, ProjectSpec, State};

/// A cluster of one project, on which intents are carried out at once, as the API server would.
#[derive(Debug, Clone)]
struct World {
    project: Option<Project>,
    pod: Option<Pod>,
    claim: Option<PersistentVolumeClaim>,
    /// What a pool has, and its disk.
    spare: Option<(Pod, PersistentVolumeClaim)>,
    has_secret: bool,
    policy: Option<NetworkPolicy>,
    classes: Vec<Arc<IsolationClass>>,
    runtime_classes: BTreeSet<String>,
    refusal: Option<String>,
    settings: Settings,
    now: Timestamp,
    pods_made: u32,
    told: Vec<&'static str>,
}

/// More steps than it may take to come to rest.
const STEPS: usize = 20;

impl World {
    fn new(change: impl FnOnce(&mut ProjectSpec)) -> Self {
        let mut spec: ProjectSpec = serde_json::from_value(serde_json::json!({ "image": "debian:12" })).expect("spec");
        change(&mut spec);
        let mut project = Project::new("web", spec);
        project.metadata.namespace = Some("default".to_owned());
        project.metadata.uid = Some("project-1".to_owned());
        project.metadata.generation = Some(1);
        Self {
            project: Some(project),
            pod: None,
            claim: None,
            spare: None,
            has_secret: false,
            policy: None,
            classes: Vec::new(),
            runtime_classes: BTreeSet::new(),
            refusal: None,
            settings: Settings {
                agent_image: "garth:test".to_owned(),
                namespace: "garth".to_owned(),
                suspend_after_seconds: None,
            },
            now: Timestamp::from_second(1_800_000_000).expect("a time"),
            pods_made: 0,
            told: Vec::new(),
        }
    }

    fn project(&self) -> &Project {
        self.project.as_ref().expect("a project")
    }

    fn spec(&mut self) -> &mut ProjectSpec {
        let project = self.project.as_mut().expect("a project");
        project.metadata.generation = project.metadata.generation.map(|generation| generation + 1);
        &mut project.spec
    }

    fn status(&self) -> ProjectStatus {
        self.project().status.clone().unwrap_or_default()
    }

    fn decide(&self) -> Decision {
        let wanted = self.project().spec.desired_state == DesiredState::Running;
        let spare = self.spare.as_ref().filter(|_| wanted && self.pod.is_none() && self.claim.is_none());
        decide(&Observed {
            spare: spare.map(|(pod, _)| pod),
            project: self.project(),
            pod: self.pod.as_ref(),
            claim: self.claim.as_ref(),
            policy: self.policy.as_ref(),
            classes: &self.classes,
            runtime_classes: &self.runtime_classes,
            refusal: self.refusal.as_deref(),
            heard: Heard::default(),
            settings: &self.settings,
            now: self.now,
        })
    }

    fn carry_out(&mut self, intent: Intent) {
        let project = self.project.as_mut().expect("a project");
        match intent {
            Intent::AddFinalizer => project.finalizers_mut().push(FINALIZER.to_owned()),
            Intent::RemoveFinalizer => {
                project.finalizers_mut().clear();
                if project.metadata.deletion_timestamp.is_some() {
                    // Garbage collection takes what it owned.
                    (self.project, self.pod, self.has_secret, self.policy) = (None, None, false, None);
                }
            }
            Intent::DeleteProject => {
                project.spec.disk.on_delete = OnDelete::Delete;
                project.metadata.deletion_timestamp = Some(Time(self.now));
            }
            Intent::CreateClaim(claim) => {
                assert!(self.claim.is_none(), "a disk over a disk");
                self.claim = Some(PersistentVolumeClaim {
                    status: Some(PersistentVolumeClaimStatus {
                        phase: Some("Bound".to_owned()),
                        ..PersistentVolumeClaimStatus::default()
                    }),
                    ..claim
                });
            }
            Intent::GrowClaim(claim) => self.claim.as_mut().expect("a claim").spec = claim.spec,
            Intent::TakePod(taking) => {
                assert!(self.pod.is_none(), "two sandboxes of one project");
                assert!(self.policy.is_some(), "a sandbox without the rest");
                let (pod, _) = self.spare.as_mut().expect("a sandbox that waits");
                pod.labels_mut().insert(PROJECT_LABEL.to_owned(), project.name_any());
                pod.annotations_mut().extend([taking.template.annotation()]);
                pod.metadata.owner_references = Some(vec![render::owner(project)]);
                self.pod = Some(pod.clone());
            }
            Intent::TakeClaim { claim } => {
                let (_, mut disk) = self.spare.take().expect("its disk");
                assert_eq!(disk.name_any(), claim);
                disk.labels_mut().insert(PROJECT_LABEL.to_owned(), project.name_any());
                disk.metadata.owner_references = None;
                self.claim = Some(disk);
            }
            Intent::DeleteClaim { .. } => {
                assert!(self.pod.is_none(), "a disk is deleted below a sandbox");
                self.claim = None;
            }
            Intent::CreateSecret => self.has_secret = true,
            Intent::ApplyPolicy(policy) => self.policy = Some(policy),
            Intent::ResizePod { uid, resources, .. } => {
                let pod = self.pod.as_mut().filter(|pod| pod.metadata.uid.as_ref() == Some(&uid)).expect("this Pod");
                let (key, asked) = render::resources_annotation(&resources);
                pod.annotations_mut().insert(key, asked);
                pod.spec.as_mut().expect("a spec").containers[0].resources = Some(resources);
            }
            Intent::CreatePod(mut pod) => {
                assert!(self.pod.is_none(), "two sandboxes of one project");
                assert!(self.claim.is_some() && self.has_secret && self.policy.is_some(), "a sandbox without the rest");
                self.pods_made += 1;
                pod.metadata.uid = Some(format!("pod-{}", self.pods_made));
                self.pod = Some(pod);
            }
            Intent::DeletePod { pod, uid } => {
                if self.pod.as_ref().is_some_and(|there| there.uid() == Some(uid) && there.name_any() == pod) {
                    self.pod = None;
                }
            }
            Intent::SetStatus(status) => project.status = Some(status),
            Intent::Tell(standing) => self.told.push(standing.reason.word()),
        }
    }

    /// One reconciliation.
    fn step(&mut self) -> Decision {
        let decision = self.decide();
        for intent in decision.intents.clone() {
            if self.project.is_some() {
                self.carry_out(intent);
            }
        }
        decision
    }

    /// Reconciles until nothing is left to do.
    fn settle(&mut self) -> Option<Duration> {
        for _ in 0..STEPS {
            self.project.as_ref()?;
            let decision = self.step();
            if decision.intents.is_empty() {
                return decision.again;
            }
        }
        panic!("it does not come to rest: {:#?}", self.decide().intents);
    }

    fn pod_status(&mut self, change: impl FnOnce(&mut PodStatus)) {
        change(self.pod.as_mut().expect("a pod").status.get_or_insert_default());
    }

    fn condition(&mut self, kind: &str, status: &str, reason: Option<&str>) {
        let condition = PodCondition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.map(str::to_owned),
            message: Some("0/3 nodes are available".to_owned()),
            last_transition_time: Some(Time(self.now)),
            ..PodCondition::default()
        };
        self.pod_status(|status| {
            let conditions = status.conditions.get_or_insert_default();
            conditions.retain(|there| there.type_ != condition.type_);
            conditions.push(condition);
        });
    }

    fn ready(&mut self) {
        self.condition("Ready", "True", None);
        self.pod_status(|status| status.pod_ip = Some("10.0.0.7".to_owned()));
    }

    fn fail(&mut self, exit_code: i32, reason: &str) {
        let terminated = ContainerStateTerminated {
            exit_code,
            reason: Some(reason.to_owned()),
            ..ContainerStateTerminated::default()
        };
        self.pod_status(|status| {
            status.phase = Some("Failed".to_owned());
            status.container_statuses = Some(vec![ContainerStatus {
                name: "sandbox".to_owned(),
                state: Some(ContainerState { terminated: Some(terminated), ..ContainerState::default() }),
                ..ContainerStatus::default()
            }]);
        });
    }

    /// The agent ends itself, as it does when nothing goes on.
    fn idle(&mut self) {
        self.fail(0, "Completed");
        self.pod_status(|status| status.phase = Some("Succeeded".to_owned()));
    }

    /// What the gateway does for a request.
    fn wake(&mut self) {
        let ended = self.status().ended.map(|ended| ended.uid).unwrap_or_default();
        self.project.as_mut().expect("a project").annotations_mut().insert(WAKE.to_owned(), ended);
    }

    fn reason(&self) -> String {
        condition::ready(&self.status()).expect("a condition").reason.clone()
    }

    fn later(&mut self, seconds: i64) {
        self.now = Timestamp::from_second(self.now.as_second() + seconds).expect("a time");
    }
}

fn class(name: &str, runtime: &str, runtime_class: &str, priority: i32) -> Arc<IsolationClass> {
    let spec = serde_json::json!({ "runtime": runtime, "runtimeClassName": runtime_class, "priority": priority });
    let spec: IsolationClassSpec = serde_json::from_value(spec).expect("a class");
    Arc::new(IsolationClass::new(name, spec))
}

#[test]
fn a_project_gets_a_disk_a_token_a_policy_and_one_sandbox() {
    let mut world = World::new(|_| ());
    world.settle();
    assert_eq!((world.reason().as_str(), world.status().state), ("Starting", Some(State::Starting)));
    world.ready();
    world.settle();
    let status = world.status();
    assert_eq!((world.reason().as_str(), status.state, world.pods_made), ("Running", Some(State::Running), 1));
    let sandbox = status.sandbox.expect("a sandbox");
    assert_eq!((sandbox.address.as_deref(), sandbox.runtime.as_str()), (Some("10.0.0.7"), "default"));
    assert_eq!(world.told, ["Starting", "Running"]);
}

#[test]
fn a_sandbox_that_is_taken_away_comes_back_on_the_same_disk() {
    let mut world = World::new(|_| ());
    world.settle();
    world.ready();
    world.settle();
    let claim = world.claim.clone();
    world.pod = None;
    assert_eq!(world.settle(), None);
    assert_eq!((world.pods_made, world.claim.clone()), (2, claim));
    assert_eq!(world.status().ended.expect("an end").reason, EndedReason::Lost);
}

#[test]
fn a_sandbox_that_fails_at_once_is_made_again_later_and_later() {
    let mut world = World::new(|_| ());
    world.settle();
    let mut waits = Vec::new();
    for _ in 0..9 {
        world.ready();
        world.settle();
        world.fail(137, "OOMKilled");
        if let Some(wait) = world.settle() {
            assert_eq!(world.reason(), "BackOff");
            assert!(world.pod.is_none());
            waits.push(wait.as_secs());
            world.later(i64::try_from(wait.as_secs()).expect("seconds"));
            world.settle();
        }
        assert!(world.pod.is_some(), "not made again after {waits:?}");
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(world.status().ended.expect("an end").reason, EndedReason::OutOfMemory);
    // One that has lasted counts as none before it.
    world.ready();
    world.settle();
    world.later(61);
    world.fail(1, "Error");
    assert_eq!(world.settle(), None);
    assert_eq!(world.status().failures, 1);
}

#[test]
fn a_stopped_project_keeps_its_disk_and_no_sandbox() {
    let mut world = World::new(|_| ());
    world.settle();
    world.spec().desired_state = DesiredState::Stopped;
    world.settle();
    assert!(world.pod.is_none() && world.claim.is_some());
    assert_eq!(world.reason(), "Stopped");
    assert_eq!(world.status().ended.expect("an end").reason, EndedReason::Stopped);
    world.spec().desired_state = DesiredState::Running;
    world.settle();
    assert_eq!(world.pods_made, 2);
}

#[test]
fn what_can_be_done_at_once_is_and_what_has_to_wait_does() {
    let mut world = World::new(|_| ());
    world.spare = Some(pool::tests::whole_member(&world.settings, "warm-abc"));
    let mut groups: Vec<Vec<&str>> = Vec::new();
    let mut before: Vec<Intent> = Vec::new();
    for intent in world.decide().intents {
        let word = match &intent {
            Intent::AddFinalizer => "keep",
            Intent::ApplyPolicy(_) => "policy",
            Intent::TakePod(_) => "pod",
            Intent::TakeClaim { .. } => "claim",
            Intent::SetStatus(_) => "status",
            _ => "other",
        };
        if before.is_empty() || !intent.goes_with(&before) {
            groups.push(Vec::new());
            before.clear();
        }
        groups.last_mut().expect("a group").push(word);
        before.push(intent);
    }
    // Nothing is made of a project that could go without it, and nothing is told before it is so.
    assert_eq!(groups, [vec!["keep"], vec!["policy", "pod"], vec!["claim", "status"], vec!["other"]]);
}

#[test]
fn a_new_project_takes_a_whole_sandbox_of_a_pool_with_its_disk() {
    let mut world = World::new(|_| ());
    let spare = pool::tests::whole_member(&world.settings, "warm-abc");
    world.spare = Some(spare.clone());
    // In two steps, with a crash in between: the disk is taken later.
    let mut intents = world.decide().intents;
    intents.retain(|intent| !matches!(intent, Intent::TakeClaim { .. } | Intent::SetStatus(_)));
    intents.into_iter().for_each(|intent| world.carry_out(intent));
    assert!(world.claim.is_none());
    let mut crashed = world.clone();
    crashed.claim = Some(spare.1);
    crashed.settle();
    assert_eq!(crashed.reason(), "Running");
    // In one.
    world.pod = None;
    world.settle();
    let status = world.status();
    assert_eq!((world.reason().as_str(), world.pods_made), ("Running", 0));
    assert_eq!(status.claim.expect("a disk").name, "warm-abc-disk");
    let sandbox = status.sandbox.expect("a sandbox");
    assert_eq!((sandbox.pod.as_str(), sandbox.secret.as_deref()), ("warm-abc", Some("warm-abc-key")));
    // Its next one is its own, on the same disk.
    world.pod = None;
    world.settle();
    let pod = world.pod.clone().expect("a pod");
    assert_eq!((pod.name_any().as_str(), render::claim_of(&pod)), ("web", Some("warm-abc-disk")));
    assert_eq!(world.status().sandbox.and_then(|sandbox| sandbox.secret), None);
}

#[test]
fn a_project_with_a_disk_takes_no_other() {
    let mut world = World::new(|_| ());
    world.claim = Some(render::claim(world.project()));
    world.spare = Some(pool::tests::whole_member(&world.settings, "warm-abc"));
    world.settle();
    assert_eq!(world.pods_made, 1);
    assert!(world.spare.is_some());
}

#[test]
fn an_idle_sandbox_is_given_up_until_something_asks_for_it() {
    let mut world = World::new(|_| ());
    world.settle();
    world.ready();
    world.settle();
    for round in 1..4 {
        world.idle();
        assert_eq!(world.settle(), None);
        assert_eq!((world.reason().as_str(), world.status().state), ("Suspended", Some(State::Suspended)));
        assert!(world.pod.is_none() && world.claim.is_some());
        // What else changes wakes nobody.
        world.spec().env.insert("A".to_owned(), round.to_string());
        world.settle();
        assert_eq!((world.reason().as_str(), world.pods_made), ("Suspended", round));
        world.wake();
        world.settle();
        world.ready();
        world.settle();
        assert_eq!((world.reason().as_str(), world.pods_made), ("Running", round + 1));
    }
    // A person who stops it and starts it again wants it to run.
    world.idle();
    world.settle();
    world.spec().desired_state = DesiredState::Stopped;
    world.settle();
    assert_eq!(world.reason(), "Stopped");
    world.spec().desired_state = DesiredState::Running;
    world.settle();
    assert!(world.pod.is_some());
}

#[test]
fn what_the_agent_is_told_of_idleness_is_the_project_s_word_before_the_operator_s() {
    for (project, operator, told) in
        [(None, None, None), (None, Some(600), Some(600)), (Some(20), Some(600), Some(20)), (Some(0), Some(600), None)]
    {
        let mut world = World::new(|spec| spec.idle.suspend_after_seconds = project);
        world.settings.suspend_after_seconds = operator;
        world.settle();
        let spec = world.pod.and_then(|pod| pod.spec).expect("a spec");
        let config = spec.containers[0].env.as_ref().expect("env")[0].value.clone().expect("a value");
        let config: garth_spec::AgentConfig = serde_json::from_str(&config).expect("a configuration");
        assert_eq!(config.suspend_after_seconds, told);
    }
}

#[test]
fn nothing_weaker_than_asked_is_ever_started() {
    for (runtime, at_least, reason) in [
        ("sysbox", None, "RuntimeUnavailable"),
        ("microvm/firecracker", None, "RuntimeUnavailable"),
        ("default", Some("sysbox"), "RuntimeUnavailable"),
        ("sysbox", Some("microvm"), "RuntimeUnavailable"),
    ] {
        let mut world = World::new(|spec| {
            spec.runtime = runtime.to_owned();
            spec.at_least = at_least.map(str::to_owned);
        });
        world.classes = vec![class("plain", "default", "runc", 0), class("kata", "microvm/qemu", "kata-qemu", 0)];
        world.runtime_classes = ["runc".to_owned()].into();
        world.settle();
        assert_eq!((world.reason().as_str(), world.pods_made), (reason, 0), "{runtime} {at_least:?}");
        assert_eq!(world.status().state, Some(State::Failed));
    }
}

#[test]
fn the_class_of_the_highest_priority_whose_runtime_class_is_there_is_taken() {
    let mut world = World::new(|spec| spec.runtime = "microvm".to_owned());
    world.classes =
        vec![class("fc", "microvm/firecracker", "kata-fc", 9), class("qemu", "microvm/qemu", "kata-qemu", 1)];
    world.runtime_classes = ["kata-qemu".to_owned()].into();
    world.settle();
    let pod = world.pod.clone().expect("a pod");
    assert_eq!(pod.spec.expect("a spec").runtime_class_name.as_deref(), Some("kata-qemu"));
    // What becomes of the classes ends no sandbox that runs; the next one is another matter.
    world.runtime_classes = ["kata-fc".to_owned()].into();
    world.ready();
    world.settle();
    assert_eq!((world.reason().as_str(), world.pods_made), ("UpdatePending", 1));
    world.runtime_classes.clear();
    world.settle();
    assert_eq!(world.pods_made, 1);
    world.pod = None;
    world.settle();
    assert_eq!((world.reason().as_str(), world.pods_made), ("RuntimeUnavailable", 1));
    // But one that is weaker than what is asked for now is ended at once.
    let mut world = World::new(|_| ());
    world.settle();
    world.spec().at_least = Some("sysbox".to_owned());
    world.settle();
    assert!(world.pod.is_none());
    assert_eq!(world.reason(), "RuntimeUnavailable");
}

#[test]
fn another_runtime_gets_a_new_sandbox_on_the_same_disk() {
    let mut world = World::new(|_| ());
    world.classes = vec![class("box", "sysbox/sysbox-runc", "sysbox-runc", 0)];
    world.runtime_classes = ["sysbox-runc".to_owned()].into();
    world.settle();
    let claim = world.claim.clone();
    world.spec().runtime = "sysbox".to_owned();
    world.settle();
    let pod = world.pod.clone().expect("a pod");
    assert_eq!(pod.spec.expect("a spec").runtime_class_name.as_deref(), Some("sysbox-runc"));
    assert_eq!((world.pods_made, world.claim.clone()), (2, claim));
}

#[test]
fn other_limits_are_given_to_the_sandbox_that_runs() {
    let mut world = World::new(|_| ());
    world.settle();
    world.ready();
    world.settle();
    let pod = world.pod.clone();
    // The same, spelled otherwise: nothing is to be done.
    world.spec().limits.memory = "2048Mi".to_owned();
    world.settle();
    assert_eq!(world.pod, pod);
    world.spec().limits.memory = "3Gi".to_owned();
    world.spec().limits.cpus = "500m".to_owned();
    world.settle();
    assert_eq!((world.reason().as_str(), world.pods_made), ("Running", 1));
    let limits = |pod: &Pod| {
        let resources = pod.spec.as_ref()?.containers[0].resources.clone()?;
        let of = |map: Option<std::collections::BTreeMap<String, Quantity>>, what: &str| Some(map?.get(what)?.clone());
        Some((of(resources.limits.clone(), "cpu")?, of(resources.limits, "memory")?, of(resources.requests, "memory")?))
    };
    let has = world.pod.as_ref().and_then(limits).expect("limits");
    let words: Vec<String> = [has.0, has.1, has.2].map(|Quantity(text)| text).to_vec();
    assert_eq!(words, ["500m", "3Gi", "3Gi"]);
    // Its node has no room for that now.
    let said = PodCondition {
        type_: "PodResizePending".to_owned(),
        status: "True".to_owned(),
        reason: Some("Deferred".to_owned()),
        message: Some("Node didn't have enough resource: memory".to_owned()),
        ..PodCondition::default()
    };
    let pod = world.pod.as_mut().and_then(|pod| pod.status.as_mut()).expect("a status");
    pod.conditions.get_or_insert_default().push(said);
    world.settle();
    let ready = condition::ready(&world.status()).cloned().expect("a condition");
    assert_eq!((ready.reason.as_str(), world.status().state), ("UpdatePending", Some(State::Running)));
    assert!(ready.message.contains("Deferred: Node didn't have enough resource"), "{}", ready.message);
}

#[test]
fn whoever_changes_a_sandboxs_limits_is_not_fought_with() {
    let mut world = World::new(|_| ());
    world.settle();
    world.ready();
    world.settle();
    let resources =
        |world: &World| world.pod.as_ref().and_then(|pod| pod.spec.as_ref()?.containers[0].resources.clone());
    let mut others = resources(&world).expect("resources");
    others.limits.as_mut().expect("limits").insert("memory".to_owned(), Quantity("1Gi".to_owned()));
    world.pod.as_mut().and_then(|pod| pod.spec.as_mut()).expect("a spec").containers[0].resources =
        Some(others.clone());
    world.settle();
    assert_eq!((resources(&world), world.reason().as_str()), (Some(others), "UpdatePending"));
    // What its owner asks for next is asked for.
    world.spec().limits.memory = "3Gi".to_owned();
    world.settle();
    let memory = resources(&world).and_then(|resources| resources.limits?.get("memory").cloned());
    assert_eq!((memory, world.reason().as_str()), (Some(Quantity("3Gi".to_owned())), "Running"));
}

#[test]
fn a_change_that_needs_a_new_sandbox_waits_for_one_and_says_so() {
    let mut world = World::new(|_| ());
    world.settle();
    world.ready();
    world.settle();
    world.spec().env.insert("A".to_owned(), "b".to_owned());
    world.settle();
    assert_eq!((world.reason().as_str(), world.pods_made), ("UpdatePending", 1));
    assert_eq!(world.status().state, Some(State::Running));
    world.pod = None;
    world.settle();
    world.ready();
    world.settle();
    assert_eq!((world.reason().as_str(), world.pods_made), ("Running", 2));
}

#[test]
fn a_deleted_project_leaves_its_disk_unless_it_is_told_not_to() {
    for (on_delete, stays) in [(OnDelete::Keep, true), (OnDelete::Delete, false)] {
        let mut world = World::new(|spec| spec.disk.on_delete = on_delete);
        world.settle();
        world.project.as_mut().expect("a project").metadata.deletion_timestamp = Some(Time(world.now));
        world.settle();
        assert!(world.project.is_none() && world.pod.is_none());
        assert_eq!(world.claim.is_some(), stays, "{on_delete:?}");
    }
}

#[test]
fn a_new_project_of_the_same_name_gets_the_disk_that_was_kept() {
    let mut world = World::new(|_| ());
    world.settle();
    let mut next = World::new(|_| ());
    next.claim = world.claim.clone();
    next.settle();
    assert!(next.pod.is_some());
    assert_eq!(next.claim, world.claim);
}

#[test]
fn a_disk_that_was_lost_is_not_replaced_by_an_empty_one() {
    let mut world = World::new(|_| ());
    world.settle();
    (world.claim, world.pod) = (None, None);
    world.settle();
    assert!(world.claim.is_none() && world.pod.is_none());
    assert_eq!(world.reason(), "DiskLost");
    // Restored, it goes on.
    world.claim = Some(render::claim(world.project()));
    world.settle();
    assert!(world.pod.is_some());
}

#[test]
fn what_others_own_is_left_alone() {
    let mut world = World::new(|_| ());
    world.pod = Some(Pod {
        metadata: kube::api::ObjectMeta {
            uid: Some("other".to_owned()),
            owner_references: Some(vec![OwnerReference {
                uid: "deployment".to_owned(),
                controller: Some(true),
                ..OwnerReference::default()
            }]),
            ..Default::default()
        },
        ..Pod::default()
    });
    let pod = world.pod.clone();
    world.settle();
    assert_eq!((world.reason().as_str(), world.pod.clone()), ("NameTaken", pod));
    let mut world = World::new(|_| ());
    world.claim = Some(PersistentVolumeClaim::default());
    world.settle();
    assert_eq!((world.reason().as_str(), world.pods_made), ("NameTaken", 0));
    assert_eq!(world.claim, Some(PersistentVolumeClaim::default()));
}

#[test]
fn an_ephemeral_project_goes_with_its_disk_when_nobody_holds_it() {
    let mut world = World::new(|spec| spec.ephemeral = true);
    let until = Timestamp::from_second(world.now.as_second() + 90).expect("a time");
    world.project.as_mut().expect("a project").annotations_mut().insert(HELD_UNTIL.to_owned(), until.to_string());
    assert_eq!(world.settle(), Some(Duration::from_secs(90)));
    world.later(90);
    world.settle();
    assert!(world.project.is_none() && world.claim.is_none() && world.pod.is_none());
}

#[test]
fn each_trouble_has_its_reason() {
    let waiting = |reason: &'static str| {
        move |world: &mut World| {
            let waiting = ContainerStateWaiting { reason: Some(reason.to_owned()), message: Some("x".to_owned()) };
            world.pod_status(|status| {
                status.container_statuses = Some(vec![ContainerStatus {
                    state: Some(ContainerState { waiting: Some(waiting), ..ContainerState::default() }),
                    ..ContainerStatus::default()
                }]);
            });
        }
    };
    type Trouble = Box<dyn Fn(&mut World)>;
    let troubles: [(&str, Trouble); 6] = [
        ("Unschedulable", Box::new(|world| world.condition("PodScheduled", "False", Some("Unschedulable")))),
        ("SchedulingGated", Box::new(|world| world.condition("PodScheduled", "False", Some("SchedulingGated")))),
        ("ImagePull", Box::new(waiting("ErrImagePull"))),
        ("ImagePull", Box::new(waiting("InvalidImageName"))),
        ("Config", Box::new(waiting("CreateContainerConfigError"))),
        ("StartFailed", Box::new(waiting("RunContainerError"))),
    ];
    for (reason, trouble) in troubles {
        let mut world = World::new(|_| ());
        world.settle();
        trouble(&mut world);
        world.settle();
        assert_eq!((world.reason().as_str(), world.status().state), (reason, Some(State::Starting)));
        assert!(world.pod.is_some());
    }
    let mut world = World::new(|_| ());
    world.refusal = Some("exceeded quota: small".to_owned());
    world.settle();
    assert_eq!(world.reason(), "Refused");
    assert!(condition::ready(&world.status()).expect("a condition").message.contains("exceeded quota"));
}

#[test]
fn pods_are_what_the_restricted_standard_wants() {
    let mut world = World::new(|spec| drop(spec.env.insert("PRICE".to_owned(), "$(HOME) $1".to_owned())));
    world.settle();
    let spec = world.pod.clone().and_then(|pod| pod.spec).expect("a spec");
    assert_eq!(spec.automount_service_account_token, Some(false));
    let security = spec.security_context.expect("a security context");
    assert_eq!(security.run_as_non_root, Some(true));
    assert_eq!(security.seccomp_profile.expect("a profile").type_, "RuntimeDefault");
    for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
        let security = container.security_context.as_ref().expect("a security context");
        assert_eq!(security.allow_privilege_escalation, Some(false));
        assert_eq!(security.capabilities.as_ref().and_then(|it| it.drop.clone()), Some(vec!["ALL".to_owned()]));
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref()).expect("limits");
        assert!(limits.contains_key("memory") && limits.contains_key("cpu"));
    }
    let env = spec.containers[0].env.as_ref().expect("env");
    assert!(env[0].value.as_ref().expect("a value").contains("$$(HOME) $$1"), "{env:?}");
}

#[test]
fn the_definitions_stay_small_enough_for_kubectl_apply() {
    for definition in crate::resources::definitions() {
        let size = serde_json::to_vec(&definition).expect("JSON").len();
        assert!(size < 64 << 10, "{size} bytes");
    }
    assert_eq!(Project::crd().spec.names.plural, "projects");
}

/// What others may do between two reconciliations.
#[derive(Debug, Clone)]
enum Happens {
    Ready,
    Fails,
    Idle,
    Wakes,
    PodDeleted,
    Stopped,
    Started,
    Env(u8),
    Runtime(bool),
    Later(u16),
    StatusLost,
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        Just(Happens::Ready),
        Just(Happens::Fails),
        Just(Happens::Idle),
        Just(Happens::Wakes),
        Just(Happens::PodDeleted),
        Just(Happens::Stopped),
        Just(Happens::Started),
        any::<u8>().prop_map(Happens::Env),
        any::<bool>().prop_map(Happens::Runtime),
        (0u16..400).prop_map(Happens::Later),
        Just(Happens::StatusLost),
    ]
}

proptest! {
    /// Whatever happens in whatever order, with reconciliations in between or not: the disk stays, there is one sandbox at
    /// most, it comes to rest, and in the end it is as the spec says.
    #[test]
    fn it_always_comes_to_what_is_asked(events in prop::collection::vec((happens(), 0usize..3), 0..30)) {
        let mut world = World::new(|_| ());
        world.classes = vec![class("box", "sysbox/sysbox-runc", "sysbox-runc", 0)];
        world.runtime_classes = ["sysbox-runc".to_owned()].into();
        world.settle();
        let disk = world.claim.clone();
        for (event, steps) in events {
            match event {
                Happens::Ready if world.pod.is_some() => world.ready(),
                Happens::Fails if world.pod.is_some() => world.fail(1, "Error"),
                Happens::Idle if world.pod.is_some() => world.idle(),
                Happens::Wakes => world.wake(),
                Happens::PodDeleted => world.pod = None,
                Happens::Stopped => world.spec().desired_state = DesiredState::Stopped,
                Happens::Started => world.spec().desired_state = DesiredState::Running,
                Happens::Env(value) => drop(world.spec().env.insert("V".to_owned(), value.to_string())),
                Happens::Runtime(sysbox) => {
                    world.spec().runtime = if sysbox { "sysbox" } else { "default" }.to_owned();
                }
                Happens::Later(seconds) => world.later(i64::from(seconds)),
                Happens::StatusLost => world.project.as_mut().expect("a project").status = None,
                Happens::Ready | Happens::Fails | Happens::Idle => {}
            }
            for _ in 0..steps {
                world.step();
            }
        }
        while let Some(wait) = world.settle() {
            world.later(i64::try_from(wait.as_secs()).expect("seconds") + 1);
        }
        prop_assert_eq!(&world.claim, &disk);
        let wanted = world.project().spec.desired_state == DesiredState::Running;
        prop_assert_eq!(world.pod.is_some(), wanted && world.reason() != "Suspended");
        world.wake();
        world.settle();
        prop_assert_eq!(world.pod.is_some(), wanted);
        if let Some(pod) = &world.pod {
            let sysbox = pod.spec.as_ref().and_then(|spec| spec.runtime_class_name.as_deref()) == Some("sysbox-runc");
            prop_assert_eq!(sysbox, world.project().spec.runtime == "sysbox");
        }
    }
}

#[test]
fn a_policy_comes_back_from_the_api_server_as_it_was_asked_for() {
    let mut world = World::new(|_| ());
    for network in ["internet", "none"] {
        world.spec().network = network.to_owned();
        let policy = render::policy(world.project.as_ref().expect("a project"), &world.settings);
        let text = serde_json::to_string(&policy.spec).expect("JSON");
        // It keeps no empty list (`omitempty`), and the next look would find another policy.
        assert!(!text.contains("[]") && text.contains(r#""policyTypes":["Ingress","Egress"]"#), "{text}");
    }
}
