//! The gateway's copy of the projects, and waiting for the operator to bring one where it is to be.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use garth_spec::ProjectName;
use kube::runtime::reflector::Store;
use kube::runtime::{WatchStreamExt as _, reflector, watcher};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::{Error, ErrorKind};
use crate::resources::{Project, ProjectStatus, State, WAKE};

/// The copy.
#[derive(Debug)]
pub(super) struct Projects {
    store: Store<Project>,
    /// Changes with every change of a project.
    changed: watch::Receiver<u64>,
    watching: tokio::task::JoinHandle<()>,
}

/// How long a trouble that may pass by itself may last: an image that cannot be pulled, a Pod that is refused.
const PATIENCE: Duration = Duration::from_secs(10);

/// How a wait for a sandbox ended.
pub(super) enum Started {
    /// Its agent can be reached.
    Awake(Arc<Project>),
    /// It was given up for being idle, and nobody has woken it from that.
    Asleep(Arc<Project>),
}

impl Drop for Projects {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Projects {
    pub(super) async fn watch(api: Api<Project>) -> Result<Self, Error> {
        let (store, writer) = reflector::store();
        let (sender, changed) = watch::channel(0);
        let lean = |project: &mut Project| project.metadata.managed_fields = None;
        let events = watcher(api, watcher::Config::default()).default_backoff().modify(lean);
        let mut seen = Box::pin(reflector(writer, events));
        let watching = tokio::spawn(async move {
            while let Some(event) = seen.next().await {
                match event {
                    Ok(_) => sender.send_modify(|count| *count += 1),
                    Err(error) => tracing::warn!(%error, "the watch of the projects begins anew"),
                }
            }
        });
        let projects = Self { store, changed, watching };
        projects.store.wait_until_ready().await.map_err(|error| Error::because(ErrorKind::Api, error))?;
        Ok(projects)
    }

    pub(super) fn all(&self) -> Vec<Arc<Project>> {
        self.store.state()
    }

    pub(super) fn find(&self, name: &ProjectName) -> Result<Arc<Project>, Error> {
        let found = self.store.find(|project| project.metadata.name.as_deref() == Some(name.as_str()));
        found.ok_or_else(|| ErrorKind::NoProject(name.clone()).into())
    }

    /// Waits until the operator has seen this version of a project.
    pub(super) async fn settled(&self, project: &Project, within: Duration) -> Result<Arc<Project>, Error> {
        self.until(project, within, |_, status| status.state.is_some()).await
    }

    /// Waits until the copy has another version of a project than this, which is a later one.
    pub(super) async fn later(&self, project: &Project, within: Duration) -> Result<Arc<Project>, Error> {
        self.shows(project, within, |there| there.resource_version() != project.resource_version()).await
    }

    /// Waits until the copy of a project is so.
    pub(super) async fn shows(
        &self,
        project: &Project,
        within: Duration,
        is_so: impl Fn(&Project) -> bool,
    ) -> Result<Arc<Project>, Error> {
        let mut changed = self.changed.clone();
        let deadline = Instant::now() + within;
        loop {
            let there = self.store.find(|other| other.uid() == project.uid());
            let there = there.ok_or_else(|| ErrorKind::BeingRemoved(project.name_any()))?;
            if is_so(&there) {
                return Ok(there);
            }
            match tokio::time::timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(ErrorKind::Api.into()),
                Err(_) => return Err(self.late(project)),
            }
        }
    }

    /// Waits until the project has no sandbox.
    pub(super) async fn stopped(&self, project: &Project, within: Duration) -> Result<Arc<Project>, Error> {
        let rests = |_: &Project, status: &ProjectStatus| {
            matches!(status.state, Some(State::Stopped | State::Failed)) && status.sandbox.is_none()
        };
        self.until(project, within, rests).await
    }

    /// Waits until the operator has noticed that the sandbox of this version is no more.
    pub(super) async fn moved_on(&self, project: &Project, within: Duration) -> Result<(), Error> {
        let uid = |status: &ProjectStatus| status.sandbox.as_ref().map(|sandbox| sandbox.uid.clone());
        let before = project.status.as_ref().and_then(uid);
        let other = |_: &Project, status: &ProjectStatus| status.state != Some(State::Running) || uid(status) != before;
        self.until(project, within, other).await.map(drop)
    }

    /// Waits until a project is gone.
    pub(super) async fn gone(&self, project: &Project, within: Duration) -> Result<(), Error> {
        let mut changed = self.changed.clone();
        let uid = project.uid();
        let is_there = || self.store.find(|other| other.uid() == uid).is_some();
        let deadline = Instant::now() + within;
        while is_there() {
            let change = tokio::time::timeout_at(deadline, changed.changed()).await;
            change.map_err(|_| ErrorKind::Late("being removed".to_owned()))?.map_err(|_| ErrorKind::Api)?;
        }
        Ok(())
    }

    /// Waits until a project's agent can be reached; not longer than makes sense.
    pub(super) async fn started(&self, project: &Project, within: Duration) -> Result<Started, Error> {
        let mut changed = self.changed.clone();
        let deadline = Instant::now() + within;
        let mut troubled: Option<(String, Instant)> = None;
        loop {
            let current = self.current(project)?;
            let mut wake = deadline;
            if let Some(current) = current.filter(|current| has_seen(current)) {
                if address(&current).is_some() {
                    return Ok(Started::Awake(current));
                }
                if slept_from(&current)
                    .is_some_and(|uid| project.annotations().get(WAKE).is_none_or(|woken| woken != uid))
                {
                    return Ok(Started::Asleep(current));
                }
                let (reason, message) = reason(&current);
                let state = current.status.as_ref().and_then(|status| status.state);
                let start = |reason, message| Err(ErrorKind::Start { reason, message }.into());
                match (reason.as_str(), state) {
                    ("RuntimeUnavailable", _) => return Err(ErrorKind::RuntimeUnavailable(message).into()),
                    (_, Some(State::Failed | State::Removing)) => return start(reason, message),
                    ("ImagePull" | "Config" | "StartFailed" | "Refused" | "BackOff" | "NoNodeFits", _) => {
                        let since = match &troubled {
                            Some((same, since)) if *same == reason => *since,
                            _ => Instant::now(),
                        };
                        if since.elapsed() >= PATIENCE {
                            return match reason.as_str() {
                                "NoNodeFits" => Err(ErrorKind::NoCapacity(message).into()),
                                _ => start(reason, message),
                            };
                        }
                        wake = deadline.min(since + PATIENCE);
                        troubled = Some((reason, since));
                    }
                    ("Unschedulable" | "NodeComing", _) if Instant::now() >= deadline => {
                        return Err(ErrorKind::NoCapacity(message).into());
                    }
                    _ => {}
                }
            }
            if Instant::now() >= deadline {
                return Err(self.late(project));
            }
            if let Ok(Err(_)) = tokio::time::timeout_at(wake, changed.changed()).await {
                return Err(ErrorKind::Api.into());
            }
        }
    }

    async fn until(
        &self,
        project: &Project,
        within: Duration,
        is_so: impl Fn(&Project, &ProjectStatus) -> bool,
    ) -> Result<Arc<Project>, Error> {
        let mut changed = self.changed.clone();
        let deadline = Instant::now() + within;
        loop {
            if let Some(current) = self.current(project)?.filter(|current| has_seen(current))
                && current.status.as_ref().is_some_and(|status| is_so(&current, status))
            {
                return Ok(current);
            }
            match tokio::time::timeout_at(deadline, changed.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(ErrorKind::Api.into()),
                Err(_) => return Err(self.late(project)),
            }
        }
    }

    /// The copy of this project, once it is as new as this one.
    fn current(&self, project: &Project) -> Result<Option<Arc<Project>>, Error> {
        let there = self.store.find(|other| other.uid() == project.uid());
        Ok(there.filter(|there| there.metadata.generation >= project.metadata.generation))
    }

    fn late(&self, project: &Project) -> Error {
        let state = self.store.find(|other| other.uid() == project.uid()).map(|project| {
            let (reason, message) = reason(&project);
            format!("{reason}: {message}")
        });
        ErrorKind::Late(state.unwrap_or_else(|| "gone".to_owned())).into()
    }
}

/// Whether the operator has seen the newest spec.
fn has_seen(project: &Project) -> bool {
    project.status.as_ref().is_some_and(|status| status.observed_generation >= project.metadata.generation)
}

/// Reason and message of a project's condition `Ready`; none before an operator has looked at it.
pub fn why(project: &Project) -> Option<(&str, &str)> {
    let mut conditions = project.status.iter().flat_map(|status| &status.conditions);
    let ready = conditions.find(|condition| condition.type_ == "Ready")?;
    Some((&ready.reason, &ready.message))
}

/// The same, whether or not one has.
fn reason(project: &Project) -> (String, String) {
    let (reason, message) = why(project).unwrap_or(("Unknown", "no operator has looked at it"));
    (reason.to_owned(), message.to_owned())
}

/// The sandbox that a suspended project was suspended from.
pub(super) fn slept_from(project: &Project) -> Option<&str> {
    let status = project.status.as_ref().filter(|status| status.state == Some(State::Suspended))?;
    status.ended.as_ref().map(|ended| ended.uid.as_str())
}

/// Where the agent of a project can be reached now.
pub(super) fn address(project: &Project) -> Option<IpAddr> {
    let status = project.status.as_ref().filter(|status| status.state == Some(State::Running))?;
    status.sandbox.as_ref()?.address.as_ref()?.parse().ok()
}
