//! What is to be done about one project: a pure function of what is seen of it.
//!
//! It is called after every change and must come to the same end from any state, whatever was lost or done twice:
//! each intent is right by itself, and what is not seen yet is decided again once it is.

mod class;
mod condition;
mod ending;
mod pending;
mod pool;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, ResourceRequirements};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::quantity;
use crate::render::{self, POOL_LABEL, PROJECT_LABEL, Settings, Template};
use crate::resources::{
    Claim, DesiredState, Ended, EndedReason, HELD_UNTIL, IsolationClass, OnDelete, Project, ProjectStatus,
    SandboxStatus, WAKE,
};

pub use class::{Unavailable, choose};
pub use condition::{Reason, Standing};
pub use pending::{Heard, Verdict, Word, usual};
pub use pool::{ObservedPool, PoolDecision, PoolIntent, decide_pool};

/// What keeps a project's object until its sandbox is gone and its disk is dealt with.
pub const FINALIZER: &str = "garth.dev/disk";

/// What the operator sees when it decides.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The project.
    pub project: &'a Project,
    /// Its Pod, or the one that has its name, whoever made it.
    pub pod: Option<&'a Pod>,
    /// Its claim, or the one that has its disk's name, whoever made it.
    pub claim: Option<&'a PersistentVolumeClaim>,
    /// A sandbox of a pool, whole and nobody's, that it may take.
    pub spare: Option<&'a Pod>,
    /// Its NetworkPolicy.
    pub policy: Option<&'a NetworkPolicy>,
    /// Every isolation class.
    pub classes: &'a [Arc<IsolationClass>],
    /// The names of every RuntimeClass.
    pub runtime_classes: &'a BTreeSet<String>,
    /// What the API server said when it last refused something of this project.
    pub refusal: Option<&'a str>,
    /// What autoscalers said of its Pod.
    pub heard: Heard<'a>,
    /// The operator's settings.
    pub settings: &'a Settings,
    /// Now.
    pub now: Timestamp,
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a handful at a time, for a moment")]
pub enum Intent {
    /// Keeps the project's object until this operator lets it go.
    AddFinalizer,
    /// Lets the project's object go.
    RemoveFinalizer,
    /// Deletes the project, whom nobody holds any more, with its disk.
    DeleteProject,
    /// Makes the disk.
    CreateClaim(PersistentVolumeClaim),
    /// Makes the disk as large as it is to be.
    GrowClaim(PersistentVolumeClaim),
    /// Takes a sandbox of a pool.
    TakePod(Taking),
    /// Takes the disk of a sandbox that came from a pool.
    TakeClaim {
        /// The claim.
        claim: String,
    },
    /// Deletes the disk with its files.
    DeleteClaim {
        /// The claim.
        claim: String,
    },
    /// Makes the token, unless it is there.
    CreateSecret,
    /// Says what reaches the sandbox and what it reaches.
    ApplyPolicy(NetworkPolicy),
    /// Makes the sandbox.
    CreatePod(Pod),
    /// Lets this sandbox and no other use more, or less.
    ResizePod {
        /// The Pod.
        pod: String,
        /// And no other of this name.
        uid: String,
        /// What its container may use.
        resources: ResourceRequirements,
    },
    /// Ends this sandbox and no other.
    DeletePod {
        /// The Pod.
        pod: String,
        /// And no other of this name.
        uid: String,
    },
    /// Says how the project is.
    SetStatus(ProjectStatus),
    /// Tells whoever looks at the project's events.
    Tell(Standing),
}

/// A sandbox of a pool that becomes a project's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taking {
    /// The Pod.
    pub pod: String,
    /// In this version: nobody has taken it since.
    pub version: String,
    /// What the project's Pods are made from now.
    pub template: Template,
}

impl Intent {
    /// Whether it can be carried out while all of these are, which stand before it. Each of them is right by itself: what
    /// became of half of them is seen, and decided again.
    pub(crate) fn goes_with(&self, others: &[Self]) -> bool {
        let is_preparation = |intent: &Self| {
            matches!(
                intent,
                Self::CreateClaim(_)
                    | Self::GrowClaim(_)
                    | Self::CreateSecret
                    | Self::ApplyPolicy(_)
                    | Self::TakePod(_)
            )
        };
        match self {
            Self::SetStatus(_) => others.iter().all(|other| matches!(other, Self::TakeClaim { .. })),
            other => is_preparation(other) && others.iter().all(is_preparation),
        }
    }
}

/// What to do, in this order, and when to look again if nothing happens.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decision {
    /// In this order; one that fails ends the rest.
    pub intents: Vec<Intent>,
    /// When to look again.
    pub again: Option<Duration>,
}

/// Decides.
pub fn decide(observed: &Observed<'_>) -> Decision {
    let project = observed.project;
    if project.metadata.deletion_timestamp.is_some() {
        return remove(observed);
    }
    let held = project.spec.ephemeral.then(|| held_until(project).unwrap_or(observed.now));
    if held.is_some_and(|until| until <= observed.now) {
        return Decision { intents: vec![Intent::DeleteProject], again: None };
    }
    let mut intents = Vec::new();
    if !project.finalizers().iter().any(|name| name == FINALIZER) {
        intents.push(Intent::AddFinalizer);
    }
    let mut status = project.status.clone().unwrap_or_default();
    let class = choose(project, observed.classes, observed.runtime_classes);
    let disk = disk(observed, &mut intents);
    if disk.is_ok() {
        accompany(observed, &mut intents);
    }
    let foreign = observed.pod.is_some_and(|pod| !is_ours(pod, project));
    let (standing, again) = match (disk, class) {
        (Err(standing), _) => (standing, None),
        _ if foreign => (Standing::new(Reason::NameTaken, condition::pod_taken(project)), None),
        (Ok(()), class) => sandbox(observed, class, &mut status, &mut intents),
    };
    if let Some(claim) = observed.claim {
        let phase = claim.status.as_ref().and_then(|status| status.phase.clone());
        status.claim = Some(Claim { name: claim.name_any(), phase });
    }
    let standing = match observed.refusal {
        Some(refusal) if !standing.reason.is_trouble() => Standing::new(Reason::Refused, condition::refused(refusal)),
        _ => standing,
    };
    say(observed, status, standing, &mut intents);
    let let_go = held.map(|until| until.duration_since(observed.now).unsigned_abs());
    Decision { intents, again: again.into_iter().chain(let_go).min() }
}

fn held_until(project: &Project) -> Option<Timestamp> {
    project.annotations().get(HELD_UNTIL)?.parse().ok()
}

/// Ends the sandbox first: a disk is never deleted, nor a project forgotten, while something may write to it.
fn remove(observed: &Observed<'_>) -> Decision {
    let project = observed.project;
    let mut intents = Vec::new();
    let pod = observed.pod.filter(|pod| is_ours(pod, project));
    let claim = observed.claim.filter(|claim| belongs(claim, project));
    if !project.finalizers().iter().any(|name| name == FINALIZER) {
        return Decision::default();
    }
    if let Some(pod) = pod {
        end(pod, &mut intents);
        say_removing(observed, &mut intents);
    } else if let Some(claim) = claim.filter(|_| project.spec.disk.on_delete == OnDelete::Delete) {
        if claim.metadata.deletion_timestamp.is_none() {
            intents.push(Intent::DeleteClaim { claim: claim.name_any() });
        }
        say_removing(observed, &mut intents);
    } else {
        intents.push(Intent::RemoveFinalizer);
    }
    Decision { intents, again: None }
}

fn say_removing(observed: &Observed<'_>, intents: &mut Vec<Intent>) {
    let status = observed.project.status.clone().unwrap_or_default();
    say(observed, status, Standing::new(Reason::Removing, "it is being deleted"), intents);
}

/// Has the disk there, or says why it cannot be.
fn disk(observed: &Observed<'_>, intents: &mut Vec<Intent>) -> Result<(), Standing> {
    let project = observed.project;
    let Some(claim) = observed.claim else {
        // A new one would be empty: whoever lost the old one is told, instead of working on as if there had been no files.
        let had = project.status.as_ref().and_then(|status| status.claim.as_ref()?.phase.as_deref());
        if had == Some("Bound") {
            return Err(Standing::new(Reason::DiskLost, condition::claim_lost(project)));
        }
        // It has no files before its first sandbox, which may bring a disk.
        if project.spec.desired_state == DesiredState::Running && observed.spare.is_none() {
            intents.push(Intent::CreateClaim(render::claim(project)));
        }
        return Ok(());
    };
    if came_with(claim, observed) {
        intents.push(Intent::TakeClaim { claim: claim.name_any() });
    } else if !belongs(claim, project) {
        return Err(Standing::new(Reason::NameTaken, condition::claim_taken(project)));
    }
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(Standing::new(Reason::DiskBeingDeleted, condition::claim_going(project)));
    }
    if claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Lost") {
        return Err(Standing::new(Reason::DiskLost, condition::volume_lost(project)));
    }
    let rendered = render::claim(project);
    // The API server writes quantities its own way.
    let size = |claim: &PersistentVolumeClaim| {
        quantity::bytes(&claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage")?.0)
    };
    if size(claim).is_some_and(|has| size(&rendered).is_some_and(|asked| has < asked)) {
        let metadata = ObjectMeta { name: claim.metadata.name.clone(), ..rendered.metadata };
        intents.push(Intent::GrowClaim(PersistentVolumeClaim { metadata, ..rendered }));
    }
    Ok(())
}

/// What a sandbox needs beside its disk.
fn accompany(observed: &Observed<'_>, intents: &mut Vec<Intent>) {
    let policy = render::policy(observed.project, observed.settings);
    if observed.policy.is_none_or(|there| there.spec != policy.spec) {
        intents.push(Intent::ApplyPolicy(policy));
    }
}

type Chosen<'a> = Result<Option<&'a IsolationClass>, Unavailable>;

fn sandbox(
    observed: &Observed<'_>,
    class: Chosen<'_>,
    status: &mut ProjectStatus,
    intents: &mut Vec<Intent>,
) -> (Standing, Option<Duration>) {
    let project = observed.project;
    let wanted = project.spec.desired_state == DesiredState::Running;
    let claim = observed.claim.map_or_else(|| render::claim_name(&project.name_any()), |claim| claim.name_any());
    note_end(observed, wanted, status);
    match (observed.pod, class) {
        (Some(pod), _) if pod.metadata.deletion_timestamp.is_some() => {
            describe(pod, status);
            (Standing::new(Reason::Stopping, "its sandbox is being ended"), None)
        }
        (Some(pod), _) if ending::of(pod).is_some() => {
            end(pod, intents);
            (Standing::new(Reason::Stopping, "its sandbox has ended; what is left of it is removed"), None)
        }
        (Some(pod), _) if !wanted => {
            stop(observed, pod, status, intents);
            (Standing::new(Reason::Stopping, "its sandbox is being ended"), None)
        }
        (Some(pod), _) if !has_what_is_asked(pod, project) => {
            stop(observed, pod, status, intents);
            (Standing::new(Reason::Stopping, "it gets another runtime"), None)
        }
        // Whatever has become of its class meanwhile: a sandbox that runs is not ended for that.
        (Some(pod), class) => {
            describe(pod, status);
            if let Some(waits) = pending::of(pod, observed.heard, observed.now) {
                return waits;
            }
            if let Some(resized) = resize(pod, project, intents) {
                return (resized, None);
            }
            let next = class.ok().map(|class| render::template(project, class, observed.settings, &claim));
            (condition::of_pod(pod, Template::of(pod) == next), None)
        }
        (None, _) if wanted && sleeps(project, status) => {
            status.sandbox = None;
            (Standing::new(Reason::Suspended, condition::suspended(status)), None)
        }
        (None, Err(unavailable)) => {
            status.sandbox = None;
            (Standing::new(Reason::RuntimeUnavailable, unavailable.to_string()), None)
        }
        (None, Ok(_)) if !wanted => {
            status.sandbox = None;
            status.failures = 0;
            // Whoever asks for it after this wants it awake.
            if let Some(ended) = status.ended.as_mut().filter(|ended| ended.reason == EndedReason::Idle) {
                ended.reason = EndedReason::Stopped;
            }
            (Standing::new(Reason::Stopped, "nobody asks for it: set spec.desiredState to Running"), None)
        }
        (None, Ok(class)) => {
            status.sandbox = None;
            if let Some(wait) = back_off(status, observed.now) {
                let last = status.ended.as_ref().and_then(|ended| ended.detail.clone()).unwrap_or_default();
                let message = format!(
                    "its sandbox ended {} times in a row soon after its start; the next is made in {} s. {last}",
                    status.failures,
                    wait.as_secs() + 1,
                );
                return (Standing::new(Reason::BackOff, message), Some(wait));
            }
            if let Some((spare, disk)) = observed.spare.and_then(|spare| Some((spare, render::claim_of(spare)?))) {
                return (take(observed, class, spare, disk, status, intents), None);
            }
            intents.push(Intent::CreateSecret);
            intents.push(Intent::CreatePod(render::pod(project, class, observed.settings, &claim)));
            (Standing::new(Reason::Starting, "its sandbox is being made"), None)
        }
    }
}

/// Takes a sandbox that is whole, with its disk: nothing of it has to be waited for.
fn take(
    observed: &Observed<'_>,
    class: Option<&IsolationClass>,
    spare: &Pod,
    disk: &str,
    status: &mut ProjectStatus,
    intents: &mut Vec<Intent>,
) -> Standing {
    let template = render::template(observed.project, class, observed.settings, disk);
    let version = spare.resource_version().unwrap_or_default();
    intents.push(Intent::TakePod(Taking { pod: spare.name_any(), version, template }));
    intents.push(Intent::TakeClaim { claim: disk.to_owned() });
    describe(spare, status);
    status.claim = Some(Claim { name: disk.to_owned(), phase: Some("Bound".to_owned()) });
    condition::of_pod(spare, true)
}

/// Has a sandbox that runs use what it may now; how that goes on, until it is done. A cluster that cannot do it (before
/// Kubernetes 1.33) leaves it to the next sandbox.
fn resize(pod: &Pod, project: &Project, intents: &mut Vec<Intent>) -> Option<Standing> {
    let resources = render::resources(project);
    let has = render::has_resources(pod, &resources);
    let asked = has || render::were_asked(pod, &resources);
    if let Some(uid) = pod.uid().filter(|_| !asked) {
        intents.push(Intent::ResizePod { pod: pod.name_any(), uid, resources });
    }
    condition::ready_since(pod)?;
    condition::resizing(pod).or_else(|| (!has).then(|| condition::of_pod(pod, false)))
}

/// Whether a claim came with the sandbox that the project took from a pool, and nobody has said so of it yet.
fn came_with(claim: &PersistentVolumeClaim, observed: &Observed<'_>) -> bool {
    let taken = observed.pod.filter(|pod| is_ours(pod, observed.project) && pod.labels().contains_key(POOL_LABEL));
    !claim.labels().contains_key(PROJECT_LABEL)
        && claim.labels().contains_key(POOL_LABEL)
        && taken.is_some_and(|pod| render::claim_of(pod) == Some(&claim.name_any()))
}

/// Whether it was given up for being idle, and nothing has asked for it since.
fn sleeps(project: &Project, status: &ProjectStatus) -> bool {
    let since = status.ended.as_ref().filter(|ended| ended.reason == EndedReason::Idle);
    since.is_some_and(|since| project.annotations().get(WAKE) != Some(&since.uid))
}

/// Whether a Pod's runtime is one that the project asks for now.
fn has_what_is_asked(pod: &Pod, project: &Project) -> bool {
    let has = pod.annotations().get(render::RUNTIME_ANNOTATION);
    has.is_some_and(|has| class::satisfies(has, project))
}

/// Notes how a sandbox ended that nobody here has ended, once for each.
fn note_end(observed: &Observed<'_>, wanted: bool, status: &mut ProjectStatus) {
    let pod = observed.pod;
    let gone = status.sandbox.as_ref().filter(|sandbox| pod.is_none_or(|pod| pod.uid().as_ref() != Some(&sandbox.uid)));
    let taken_away = if wanted { EndedReason::Lost } else { EndedReason::Stopped };
    match (pod.and_then(|pod| Some((pod, pod.uid()?, ending::of(pod)?))), gone) {
        // Someone deleted it, and so it ended.
        (Some((pod, uid, _)), _) if pod.metadata.deletion_timestamp.is_some() => {
            note(status, uid, taken_away, None, observed.now);
        }
        (Some((_, uid, ending)), _) => note(status, uid, ending.reason, Some(ending.detail), observed.now),
        (None, Some(sandbox)) => {
            let uid = sandbox.uid.clone();
            note(status, uid, taken_away, None, observed.now);
        }
        (None, None) => {}
    }
}

/// Notes an end; the first word about a sandbox is the one that counts.
fn note(status: &mut ProjectStatus, uid: String, reason: EndedReason, detail: Option<String>, now: Timestamp) {
    if status.ended.as_ref().is_some_and(|ended| ended.uid == uid) {
        return;
    }
    let started = status.sandbox.as_ref().filter(|sandbox| sandbox.uid == uid).and_then(|it| it.started_at.clone());
    let lasted = started.is_some_and(|Time(started)| now.duration_since(started).unsigned_abs() >= LASTING);
    status.failures = match reason {
        // Someone took it away: that says nothing about the next.
        EndedReason::Stopped | EndedReason::Lost | EndedReason::Idle => 0,
        _ if lasted => 1,
        _ => status.failures.saturating_add(1),
    };
    status.ended = Some(Ended { uid, at: Time(now), reason, detail });
}

/// A sandbox that lived this long did not fail by its start.
const LASTING: Duration = Duration::from_secs(60);

/// The longest wait between a sandbox's end and the next.
const LONGEST_WAIT: Duration = Duration::from_secs(300);

/// How long the next sandbox has to wait, if it does.
fn back_off(status: &ProjectStatus, now: Timestamp) -> Option<Duration> {
    // The first is made again at once.
    let doublings = status.failures.checked_sub(2)?;
    let wait = Duration::from_secs(10).saturating_mul(1 << doublings.min(6)).min(LONGEST_WAIT);
    let Time(ended) = &status.ended.as_ref()?.at;
    let since = now.duration_since(*ended).unsigned_abs();
    wait.checked_sub(since).filter(|left| !left.is_zero())
}

/// What the status says of a Pod.
fn describe(pod: &Pod, status: &mut ProjectStatus) {
    let uid = pod.uid().unwrap_or_default();
    let seen = pod.status.as_ref();
    let was = status.sandbox.take().filter(|sandbox| sandbox.uid == uid);
    let ready = condition::ready_since(pod);
    status.sandbox = Some(SandboxStatus {
        uid,
        pod: pod.name_any(),
        secret: pod.labels().contains_key(POOL_LABEL).then(|| render::member_secret_name(&pod.name_any())),
        runtime: pod.annotations().get(render::RUNTIME_ANNOTATION).cloned().unwrap_or_default(),
        class: pod.annotations().get(render::CLASS_ANNOTATION).cloned(),
        user_namespace: pod.spec.as_ref().and_then(|spec| spec.host_users) == Some(false),
        node: pod.spec.as_ref().and_then(|spec| spec.node_name.clone()),
        address: seen.and_then(|status| status.pod_ip.clone()),
        started_at: was.and_then(|was| was.started_at).or(ready),
        pending_since: pending::since(pod),
    });
}

/// Ends a sandbox that is as it should be, only not wanted as it is.
fn stop(observed: &Observed<'_>, pod: &Pod, status: &mut ProjectStatus, intents: &mut Vec<Intent>) {
    note(status, pod.uid().unwrap_or_default(), EndedReason::Stopped, None, observed.now);
    end(pod, intents);
}

/// Ends a Pod, unless that is under way.
fn end(pod: &Pod, intents: &mut Vec<Intent>) {
    if let Some(uid) = pod.uid().filter(|_| pod.metadata.deletion_timestamp.is_none()) {
        intents.push(Intent::DeletePod { pod: pod.name_any(), uid });
    }
}

/// Whether a sandbox's agent can be reached, and nothing ends it.
pub(crate) fn is_whole(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && ending::of(pod).is_none() && condition::ready_since(pod).is_some()
}

/// Whether this very project made the Pod; one of a project of the same name that is gone is not it.
pub(crate) fn is_ours(pod: &Pod, project: &Project) -> bool {
    pod.owner_references()
        .iter()
        .any(|owner| owner.controller == Some(true) && Some(&owner.uid) == project.uid().as_ref())
}

/// Whether a claim is the disk of a project of this name.
pub(crate) fn belongs(claim: &PersistentVolumeClaim, project: &Project) -> bool {
    claim.labels().get(PROJECT_LABEL) == Some(&project.name_any())
}

/// Puts the standing into the status, and tells of it when it is news.
fn say(observed: &Observed<'_>, mut status: ProjectStatus, standing: Standing, intents: &mut Vec<Intent>) {
    let project = observed.project;
    status.observed_generation = project.metadata.generation;
    status.state = Some(standing.reason.state());
    let before = condition::ready(&status).map(|ready| ready.reason.clone());
    condition::set(&mut status, &standing, project.metadata.generation, observed.now);
    if project.status.as_ref() != Some(&status) {
        intents.push(Intent::SetStatus(status));
    }
    if before.as_deref() != Some(standing.reason.word()) {
        intents.push(Intent::Tell(standing));
    }
}
