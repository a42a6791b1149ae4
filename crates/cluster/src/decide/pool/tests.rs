use k8s_openapi::api::core::v1::{PersistentVolumeClaimStatus, PodCondition, PodStatus};
use kube::Resource as _;

use super::*;
use crate::resources::{ProjectTemplateSpec, WarmPoolSpec};

/// A sandbox of a pool of `debian:12` that can be taken, and its disk.
pub(in crate::decide) fn whole_member(settings: &Settings, name: &str) -> (Pod, PersistentVolumeClaim) {
    let mut member = render::member(&pool(1), &template("debian:12").spec.project(name), None, settings, [7; 32]);
    member.pod.metadata.uid = Some(format!("{name}-uid"));
    member.pod.metadata.resource_version = Some("1".to_owned());
    make_ready(&mut member.pod);
    member.claim.status =
        Some(PersistentVolumeClaimStatus { phase: Some("Bound".to_owned()), ..PersistentVolumeClaimStatus::default() });
    (member.pod, member.claim)
}

fn make_ready(pod: &mut Pod) {
    let ready = PodCondition { type_: READY.to_owned(), status: "True".to_owned(), ..PodCondition::default() };
    pod.status = Some(PodStatus {
        phase: Some("Running".to_owned()),
        conditions: Some(vec![ready]),
        pod_ip: Some("10.0.0.9".to_owned()),
        ..PodStatus::default()
    });
}

fn template(image: &str) -> ProjectTemplate {
    let spec: ProjectTemplateSpec = serde_json::from_value(serde_json::json!({ "image": image })).expect("a template");
    ProjectTemplate::new("small", spec)
}

fn pool(replicas: u32) -> WarmPool {
    let mut pool = WarmPool::new("warm", WarmPoolSpec { template: "small".to_owned(), replicas });
    pool.meta_mut().uid = Some("pool-uid".to_owned());
    pool.meta_mut().namespace = Some("default".to_owned());
    pool
}

/// A pool on a cluster that carries out what is decided, sooner or later.
struct World {
    pool: WarmPool,
    template: Option<ProjectTemplate>,
    members: Vec<Arc<Pod>>,
    /// Made, and not shown yet.
    unseen: Vec<Arc<Pod>>,
    made: usize,
    settings: Settings,
    now: Timestamp,
}

impl World {
    fn new(replicas: u32) -> Self {
        Self {
            pool: pool(replicas),
            template: Some(template("debian:12")),
            members: Vec::new(),
            unseen: Vec::new(),
            made: 0,
            settings: Settings {
                agent_image: "garth:test".to_owned(),
                namespace: "garth".to_owned(),
                suspend_after_seconds: None,
            },
            now: Timestamp::from_second(1_800_000_000).expect("a time"),
        }
    }

    fn step(&mut self) -> PoolDecision {
        let decision = decide_pool(&ObservedPool {
            pool: &self.pool,
            template: self.template.as_ref(),
            members: &self.members,
            coming: self.unseen.len(),
            orphans: &[],
            policy: None,
            classes: &[],
            runtime_classes: &BTreeSet::new(),
            refusal: None,
            settings: &self.settings,
            now: self.now,
        });
        for intent in &decision.intents {
            match intent {
                PoolIntent::Make(class) => {
                    let image = &self.template.as_ref().expect("a template").spec;
                    let like = image.project(&format!("warm-{}", self.made));
                    let mut pod = render::member(&self.pool, &like, class.as_deref(), &self.settings, [7; 32]).pod;
                    pod.metadata.uid = Some(format!("uid-{}", self.made));
                    self.made += 1;
                    self.unseen.push(Arc::new(pod));
                }
                PoolIntent::End { uid, .. } => self.members.retain(|pod| pod.uid().as_ref() != Some(uid)),
                PoolIntent::SetStatus(status) => self.pool.status = Some(status.clone()),
                PoolIntent::ApplyPolicy(_) | PoolIntent::DeleteClaim { .. } => {}
            }
        }
        decision
    }

    fn show(&mut self) {
        self.members.append(&mut self.unseen);
    }

    fn change(&mut self, member: usize, change: impl FnOnce(&mut Pod)) {
        change(Arc::make_mut(&mut self.members[member]));
    }

    fn reason(&self) -> &str {
        &self.pool.status.as_ref().expect("a status").conditions[0].reason
    }

    fn numbers(&self) -> (u32, u32) {
        let status = self.pool.status.as_ref().expect("a status");
        (status.replicas, status.ready_replicas)
    }
}

#[test]
fn a_pool_is_filled_and_never_above() {
    let mut world = World::new(3);
    for _ in 0..5 {
        // However often it is decided before the copies show what was made.
        world.step();
    }
    assert_eq!(world.made, 3);
    world.show();
    world.step();
    assert_eq!((world.made, world.reason(), world.numbers()), (3, "Filling", (3, 0)));
    (0..3).for_each(|member| world.change(member, make_ready));
    world.step();
    assert_eq!((world.made, world.reason(), world.numbers()), (3, "Filled", (3, 3)));
    // A project takes one.
    world.members.remove(1);
    world.step();
    world.step();
    assert_eq!(world.made, 4);
}

#[test]
fn what_is_too_much_goes_and_what_is_ready_stays() {
    let mut world = World::new(3);
    world.step();
    world.show();
    world.change(1, make_ready);
    world.pool.spec.replicas = 1;
    world.step();
    assert_eq!(world.members.iter().map(|pod| pod.name_any()).collect::<Vec<_>>(), ["warm-1"]);
    world.pool.spec.replicas = 0;
    world.step();
    assert!(world.members.is_empty());
}

#[test]
fn another_template_replaces_what_was_made_by_the_one_before() {
    let mut world = World::new(2);
    world.step();
    world.show();
    world.template = Some(template("debian:13"));
    world.step();
    world.show();
    let images: BTreeSet<_> =
        world.members.iter().filter_map(|pod| pod.spec.as_ref()?.containers.first()?.image.clone()).collect();
    assert_eq!((images, world.members.len()), (["debian:13".to_owned()].into(), 2));
}

#[test]
fn a_sandbox_that_ends_by_itself_is_replaced_later() {
    let mut world = World::new(1);
    world.step();
    world.show();
    world.change(0, |pod| pod.status.get_or_insert_default().phase = Some("Failed".to_owned()));
    assert_eq!(world.step().again, Some(AFTER_FAILURE));
    assert_eq!((world.made, world.members.len(), world.reason()), (1, 0, "BackOff"));
    world.now = Timestamp::from_second(world.now.as_second() + 30).expect("a time");
    world.step();
    assert_eq!(world.made, 2);
}

#[test]
fn a_pool_without_its_template_says_so_and_keeps_what_it_has() {
    let mut world = World::new(1);
    world.step();
    world.show();
    world.template = None;
    world.step();
    assert_eq!((world.reason(), world.members.len()), ("TemplateMissing", 1));
}

#[test]
fn a_sandbox_may_be_taken_by_what_asks_for_the_same_in_whatever_words() {
    let world = World::new(1);
    let base = |change: &dyn Fn(&mut crate::resources::ProjectSpec)| {
        let mut project = template("debian:12").spec.project("web");
        change(&mut project.spec);
        render::base(&project, None, &world.settings)
    };
    let same = base(&|_| ());
    let (pod, _) = whole_member(&world.settings, "warm-abc");
    assert_eq!(render::base_of(&pod).as_ref(), Some(&same));
    assert_eq!(same, base(&|spec| spec.limits.memory = (2u64 << 30).to_string()));
    assert_eq!(same, base(&|spec| spec.limits.cpus = "2000m".to_owned()));
    assert_eq!(same, base(&|spec| drop(spec.env.insert("A".to_owned(), "b".to_owned()))));
    assert_eq!(same, base(&|spec| spec.network = "internet".to_owned()));
    for other in [
        base(&|spec| spec.image = "debian:13".to_owned()),
        base(&|spec| spec.limits.memory = "1Gi".to_owned()),
        base(&|spec| spec.limits.disk = "11Gi".to_owned()),
        base(&|spec| spec.disk.path = "/data".to_owned()),
        base(&|spec| spec.disk.storage_class_name = Some("fast".to_owned())),
    ] {
        assert_ne!(same, other);
    }
}
