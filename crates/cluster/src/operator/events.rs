//! What autoscalers say of the projects' Pods: the last word about each, from their events.
//!
//! Watched are the events of autoscalers about Pods and no others: the scheduler's and the kubelets' are a hundred times as
//! many, and say what the Pod's own conditions say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use k8s_openapi::jiff::Timestamp;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};

use crate::decide::{Heard, Verdict, Word};
use crate::resources::Project;

/// Who says something of use, as the source of its events.
const AUTOSCALERS: [&str; 3] = ["karpenter", "cluster-autoscaler", "eks-auto-mode/compute"];

/// The last word about each project's Pod.
#[derive(Debug, Clone, Default)]
pub(super) struct Words(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// With the UID of the Pod that it is about.
    words: HashMap<ObjectRef<Project>, (String, Word)>,
    busy: Option<Timestamp>,
}

/// What is known of one Pod, taken out of [`Words`].
pub(super) struct Known {
    word: Option<Word>,
    busy: Option<Timestamp>,
}

impl Known {
    pub(super) fn heard(&self) -> Heard<'_> {
        Heard { word: self.word.as_ref(), busy: self.busy, usual: None }
    }
}

impl Words {
    /// What is known of a project's Pod. What is of no more use, as the Pod has a node or the project goes, is forgotten.
    pub(super) fn known(&self, project: &Project, pod: Option<&Pod>) -> Known {
        let key = ObjectRef::from_obj(project);
        let mut kept = self.lock();
        let placed = pod.is_some_and(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some()));
        if placed || project.metadata.deletion_timestamp.is_some() {
            kept.words.remove(&key);
        }
        let uid = pod.and_then(|pod| pod.metadata.uid.as_deref());
        let word = kept.words.get(&key).filter(|(about, _)| Some(about.as_str()) == uid).map(|(_, word)| word.clone());
        Known { word, busy: kept.busy }
    }

    /// Keeps what an event says. Whether it was news.
    fn hear(&self, project: ObjectRef<Project>, event: &Event) -> bool {
        let (Some(word), Some(uid)) = (word(event), event.involved_object.uid.clone()) else { return false };
        let mut kept = self.lock();
        if word.verdict == Verdict::NodeComes {
            kept.busy = kept.busy.max(Some(word.at));
        }
        let known = kept.words.get(&project).filter(|(about, _)| *about == uid).map(|(_, known)| known);
        // A watch that begins anew gives them in no order.
        if known.is_some_and(|known| known.at > word.at || *known == word) {
            return false;
        }
        kept.words.insert(project, (uid, word));
        true
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins to listen. The projects of whose Pods something new was said.
pub(super) fn listen(
    client: &Client,
    projects: &Store<Project>,
) -> (Words, impl Stream<Item = ObjectRef<Project>> + Send + use<>) {
    let words = Words::default();
    let events = AUTOSCALERS.map(|source| {
        let about_pods = watcher::Config::default().fields(&format!("involvedObject.kind=Pod,source={source}"));
        watcher(Api::<Event>::all(client.clone()), about_pods).default_backoff().applied_objects().boxed()
    });
    let (kept, projects) = (words.clone(), projects.clone());
    let news = futures::stream::select_all(events).filter_map(move |event| {
        let (kept, projects) = (kept.clone(), projects.clone());
        async move {
            // Whose Pod it is, is known once the projects are.
            projects.wait_until_ready().await.ok()?;
            let event = event.inspect_err(|error| tracing::warn!(%error, "the watch of events begins anew")).ok()?;
            let about = &event.involved_object;
            let project = ObjectRef::new(about.name.as_deref()?).within(about.namespace.as_deref()?);
            projects.get(&project)?;
            kept.hear(project.clone(), &event).then_some(project)
        }
    });
    (words, news)
}

/// What an autoscaler's event comes to; None of one that says nothing of a node for the Pod.
fn word(event: &Event) -> Option<Word> {
    let source = event.source.as_ref().and_then(|source| source.component.as_deref()).filter(|it| !it.is_empty());
    let who = source.or(event.reporting_component.as_deref())?;
    let verdict = match (who, event.reason.as_deref()?) {
        ("cluster-autoscaler", "TriggeredScaleUp") => Verdict::NodeComes,
        ("cluster-autoscaler", "NotTriggerScaleUp") => Verdict::NoHelp,
        // The scheduler says "FailedScheduling" of every Pod that waits.
        ("cluster-autoscaler" | "default-scheduler", _) => return None,
        (_, "Nominated") => Verdict::NodeComes,
        (_, "FailedScheduling") => Verdict::NoHelp,
        _ => return None,
    };
    let said = event.message.as_deref().unwrap_or_default();
    let said = ["Failed to schedule pod, ", "pod didn't trigger scale-up: "]
        .iter()
        .fold(said, |said, prefix| said.strip_prefix(prefix).unwrap_or(said));
    Some(Word { who: who.to_owned(), verdict, said: said.trim().to_owned(), at: last(event)? })
}

/// When an event last happened.
fn last(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let micro = series.or(event.event_time.as_ref()).map(|MicroTime(at)| *at);
    let coarse = event.last_timestamp.as_ref().map(|Time(at)| *at);
    micro.max(coarse).or_else(|| event.creation_timestamp().map(|Time(at)| at))
}

#[cfg(test)]
mod tests;
