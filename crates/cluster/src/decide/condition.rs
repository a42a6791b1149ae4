//! How a project is, in the words of its condition `Ready`.

use k8s_openapi::api::core::v1::{ContainerStateWaiting, Pod, PodCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::render;
use crate::resources::{Project, ProjectStatus, State};

/// The condition's type.
pub(super) const READY: &str = "Ready";

/// Why a project is as it is: the reason of its condition, and of the event that tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its agent can be reached.
    Running,
    /// The same, and its spec asks for something that only its next sandbox has.
    UpdatePending,
    /// Nobody asks for it.
    Stopped,
    /// Nothing went on in it, and nothing has asked for it since.
    Suspended,
    /// Its sandbox is being made.
    Starting,
    /// No node has room for it, or none fits.
    Unschedulable,
    /// No node has room for it, and a node is being made that will.
    NodeComing,
    /// No node that there is takes it, and none that will is to be had.
    NoNodeFits,
    /// Something of the cluster's holds it back.
    SchedulingGated,
    /// Its image cannot be had.
    ImagePull,
    /// What its spec refers to is missing.
    Config,
    /// The node cannot start it.
    StartFailed,
    /// The API server did not take what it needs.
    Refused,
    /// It ended too often.
    BackOff,
    /// Its sandbox is being ended.
    Stopping,
    /// It is being deleted.
    Removing,
    /// The cluster has nothing for its runtime.
    RuntimeUnavailable,
    /// Something else has a name that it needs.
    NameTaken,
    /// Someone deletes its disk.
    DiskBeingDeleted,
    /// Its volume is gone.
    DiskLost,
}

/// A reason, with what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Why.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl Standing {
    pub(super) fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl Reason {
    /// As the condition has it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Running => "Running",
            Self::UpdatePending => "UpdatePending",
            Self::Stopped => "Stopped",
            Self::Suspended => "Suspended",
            Self::Starting => "Starting",
            Self::Unschedulable => "Unschedulable",
            Self::NodeComing => "NodeComing",
            Self::NoNodeFits => "NoNodeFits",
            Self::SchedulingGated => "SchedulingGated",
            Self::ImagePull => "ImagePull",
            Self::Config => "Config",
            Self::StartFailed => "StartFailed",
            Self::Refused => "Refused",
            Self::BackOff => "BackOff",
            Self::Stopping => "Stopping",
            Self::Removing => "Removing",
            Self::RuntimeUnavailable => "RuntimeUnavailable",
            Self::NameTaken => "NameTaken",
            Self::DiskBeingDeleted => "DiskBeingDeleted",
            Self::DiskLost => "DiskLost",
        }
    }

    /// The state of a project that stands so.
    pub fn state(self) -> State {
        match self {
            Self::Running | Self::UpdatePending => State::Running,
            Self::Stopped => State::Stopped,
            Self::Suspended => State::Suspended,
            Self::Starting | Self::NodeComing | Self::Unschedulable | Self::NoNodeFits => State::Starting,
            Self::SchedulingGated | Self::BackOff => State::Starting,
            Self::ImagePull | Self::Config | Self::StartFailed | Self::Refused => State::Starting,
            Self::Stopping => State::Stopping,
            Self::Removing => State::Removing,
            Self::RuntimeUnavailable | Self::NameTaken | Self::DiskBeingDeleted | Self::DiskLost => State::Failed,
        }
    }

    /// Whether someone has to do something about it.
    pub fn is_trouble(self) -> bool {
        match self {
            Self::Running | Self::UpdatePending | Self::Stopped | Self::Suspended => false,
            Self::Starting | Self::NodeComing | Self::Stopping | Self::Removing => false,
            Self::Unschedulable
            | Self::NoNodeFits
            | Self::SchedulingGated
            | Self::ImagePull
            | Self::Config
            | Self::StartFailed => true,
            Self::Refused | Self::BackOff | Self::RuntimeUnavailable | Self::NameTaken => true,
            Self::DiskBeingDeleted | Self::DiskLost => true,
        }
    }
}

/// Reasons why a container waits that time alone does not mend (kubelet, `pkg/kubelet/images` and `kuberuntime`).
const IMAGE: [&str; 5] =
    ["ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"];
const START: [&str; 5] =
    ["CreateContainerError", "RunContainerError", "PreCreateHookError", "PostStartHookError", "CrashLoopBackOff"];

/// How a project is whose Pod is there, has a node and has not ended.
pub(super) fn of_pod(pod: &Pod, is_current: bool) -> Standing {
    if ready_since(pod).is_some() {
        return match is_current {
            true => Standing::new(Reason::Running, "its agent can be reached"),
            false => Standing::new(
                Reason::UpdatePending,
                "its agent can be reached; what was changed of its spec its next sandbox has (stop it, or delete its Pod)",
            ),
        };
    }
    for ContainerStateWaiting { reason, message } in waiting(pod) {
        let reason = reason.as_deref().unwrap_or_default();
        let message = || format!("{reason}: {}", message.as_deref().unwrap_or("the node says no more"));
        if IMAGE.contains(&reason) {
            return Standing::new(Reason::ImagePull, message());
        }
        if reason == "CreateContainerConfigError" {
            return Standing::new(Reason::Config, message());
        }
        if START.contains(&reason) {
            return Standing::new(Reason::StartFailed, message());
        }
    }
    Standing::new(Reason::Starting, "its sandbox is being made")
}

/// What its node says of limits that were changed, and are not in force yet (Kubernetes 1.33, KEP-1287).
pub(super) fn resizing(pod: &Pod) -> Option<Standing> {
    let is = |kind| pod_condition(pod, kind).filter(|condition| condition.status == "True");
    let condition = is("PodResizePending").or_else(|| is("PodResizeInProgress").filter(|it| it.reason.is_some()))?;
    let said = [&condition.reason, &condition.message].map(|text| text.clone().unwrap_or_default()).join(": ");
    let message = format!("its agent can be reached; its new limits wait for its node ({said}), or its next sandbox");
    Some(Standing::new(Reason::UpdatePending, message))
}

fn waiting(pod: &Pod) -> impl Iterator<Item = &ContainerStateWaiting> {
    let status = pod.status.iter();
    let containers = status.flat_map(|status| status.init_container_statuses.iter().chain(&status.container_statuses));
    containers.flatten().filter_map(|container| container.state.as_ref()?.waiting.as_ref())
}

pub(super) fn pod_condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == kind)
}

/// Since when a Pod's agent can be reached.
pub(super) fn ready_since(pod: &Pod) -> Option<Time> {
    let ready = pod_condition(pod, READY).filter(|condition| condition.status == "True")?;
    // An address, too: without one nobody reaches it.
    pod.status.as_ref()?.pod_ip.as_ref()?;
    Some(ready.last_transition_time.clone().unwrap_or(Time(Timestamp::UNIX_EPOCH)))
}

/// The condition as it is now.
pub(super) fn ready(status: &ProjectStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == READY)
}

/// Puts the standing into a status; its time is that of the last change between true and false.
pub(super) fn set(status: &mut ProjectStatus, standing: &Standing, generation: Option<i64>, now: Timestamp) {
    let truth = if standing.reason.state() == State::Running { "True" } else { "False" };
    let since = ready(status).filter(|before| before.status == truth).map(|before| before.last_transition_time.clone());
    let condition = Condition {
        type_: READY.to_owned(),
        status: truth.to_owned(),
        reason: standing.reason.word().to_owned(),
        message: standing.message.clone(),
        observed_generation: generation,
        last_transition_time: since.unwrap_or(Time(now)),
    };
    status.conditions.retain(|condition| condition.type_ != READY);
    status.conditions.push(condition);
}

pub(super) fn suspended(status: &ProjectStatus) -> String {
    let uid = status.ended.as_ref().map(|ended| ended.uid.as_str()).unwrap_or_default();
    let wake = crate::resources::WAKE;
    format!("nothing went on in it; a request wakes it, and so does the annotation {wake}={uid}")
}

pub(super) fn pod_taken(project: &Project) -> String {
    let name = project.name_any();
    format!("a Pod {name} that is not this project's is there: delete it, or give the project another name")
}

pub(super) fn claim_taken(project: &Project) -> String {
    let (name, label) = (render::claim_name(&project.name_any()), render::PROJECT_LABEL);
    let project = project.name_any();
    format!(
        "a PersistentVolumeClaim {name} that no project made is there: give it the label {label}={project}, or give the project another name"
    )
}

pub(super) fn claim_going(project: &Project) -> String {
    let name = render::claim_name(&project.name_any());
    format!("someone deletes the PersistentVolumeClaim {name}; make another project for an empty disk")
}

pub(super) fn volume_lost(project: &Project) -> String {
    let name = render::claim_name(&project.name_any());
    format!(
        "the volume of the PersistentVolumeClaim {name} is gone: restore it, or delete the project and make it again for an empty disk"
    )
}

pub(super) fn claim_lost(project: &Project) -> String {
    let name = render::claim_name(&project.name_any());
    format!(
        "the PersistentVolumeClaim {name}, which held its files, is gone: restore it, or delete the project and make it again for an empty disk"
    )
}

pub(super) fn refused(refusal: &str) -> String {
    format!("the cluster refuses what it needs, and is asked again: {refusal}")
}
