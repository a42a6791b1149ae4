//! One task per project owns its changes: requests enter a queue of plain data, readers get views.
//!
//! ```text
//! start ─┐
//! stop  ─┼─> queue ──> task ──> lifecycle (blocking steps) ──> store, kernel
//! rm    ─┘              │ └──> view ──> readers, the agent proxy
//!            init ended ┘
//! ```
//!
//! Whoever asked may go away; what they asked for is still done.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use garth_runtime::Ending;
use garth_spec::{ProjectSpec, ProjectState, Transition};
use garth_verify::Verified;
use tokio::sync::{mpsc, watch};

use crate::engine::Shared;
use crate::error::{Error, ErrorKind};
use crate::fault::{self, Point};
use crate::holds;
use crate::lifecycle;
use crate::local::Live;
use crate::project::{EndedReason, Project};
use crate::reboots::Reboots;
use crate::registry::{Answer, Entry, View};
use crate::shutdown::{end_processes, settle};

/// What can be asked of a project.
#[derive(Debug)]
pub(crate) enum Request {
    /// Make its disk; the first request of a new project.
    Create(Answer<()>),
    /// Have a sandbox.
    Start(Answer<View>),
    /// Have its sandbox at rest.
    Pause(Answer<View>),
    /// Have it awake.
    Resume(Answer<View>),
    /// Have none.
    Stop { grace: Duration, answer: Answer<View> },
    /// Have a new one.
    Restart { grace: Duration, answer: Answer<View> },
    /// Be asked something else of, if it still is `from`.
    Change { from: Box<ProjectSpec>, to: Box<ProjectSpec>, answer: Answer<Changed> },
    /// Keep how the check of its boundary ended.
    Verified { summary: Box<Verified>, answer: Answer<()> },
    /// Be no more.
    Remove(Answer<()>),
    /// Be left alone from now on: the daemon goes down.
    Close,
}

/// What a change led to.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) view: View,
    /// Whether the sandbox was stopped for it.
    pub(crate) stopped: bool,
}

/// Whether a project is still there after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Stays,
    Gone,
    LeftAlone,
}

/// The owner of one project.
pub(crate) struct Task {
    shared: Arc<Shared>,
    project: Project,
    live: Option<Arc<Live>>,
    view: watch::Sender<View>,
    requests: mpsc::Receiver<Request>,
    reboots: Reboots,
}

impl Task {
    /// A task for a project, and the entry by which others reach it.
    pub(crate) fn new(shared: &Arc<Shared>, project: Project, live: Option<Live>) -> (Self, Arc<Entry>) {
        let (sender, requests) = mpsc::channel(crate::registry::QUEUE);
        let live = live.map(Arc::new);
        let (view, receiver) = watch::channel(View { project: Arc::new(project.clone()), live: live.clone() });
        let entry = Entry {
            name: project.name.clone(),
            ephemeral: project.ephemeral,
            requests: sender,
            view: receiver,
            doomed: (project.state == ProjectState::Removing).into(),
            holds: 0.into(),
        };
        let reboots = Reboots::default();
        (Self { shared: Arc::clone(shared), project, live, view, requests, reboots }, Arc::new(entry))
    }

    /// Serves requests until the project is gone or the engine closes.
    pub(crate) async fn run(mut self) {
        loop {
            let live = self.live.clone().filter(|_| self.project.state.has_sandbox());
            let ended = async {
                match &live {
                    Some(live) => live.sandbox.ended().await,
                    None => std::future::pending().await,
                }
            };
            let unserved = async {
                match &live {
                    Some(live) => live.sandbox.unserved().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                request = self.requests.recv() => {
                    let Some(request) = request else { return };
                    match self.serve(request).await {
                        Fate::Stays => {}
                        Fate::Gone => return self.refuse_the_rest(),
                        Fate::LeftAlone => return,
                    }
                }
                () = ended => self.died().await,
                () = unserved => self.unserved().await,
            }
        }
    }

    async fn serve(&mut self, request: Request) -> Fate {
        // A reader that has gone away is no reason to stop.
        match request {
            Request::Create(answer) => {
                let made = self.create().await;
                let fate = if made.is_err() && self.project.state == ProjectState::Creating {
                    Fate::Gone
                } else {
                    Fate::Stays
                };
                if fate == Fate::Gone {
                    self.shared.registry.release(&self.project.name);
                }
                let _ = answer.send(made);
                return fate;
            }
            Request::Start(answer) => {
                let started = self.start().await;
                let _ = answer.send(started.map(|()| self.look()));
            }
            Request::Pause(answer) => {
                let paused = self.pause().await;
                let _ = answer.send(paused.map(|()| self.look()));
            }
            Request::Resume(answer) => {
                let resumed = self.resume().await;
                let _ = answer.send(resumed.map(|()| self.look()));
            }
            Request::Stop { grace, answer } => {
                let stopped = self.stop(grace, EndedReason::Stopped).await;
                let _ = answer.send(stopped.map(|()| self.look()));
            }
            Request::Restart { grace, answer } => {
                let restarted = match self.stop(grace, EndedReason::Stopped).await {
                    Ok(()) => self.start().await,
                    Err(error) => Err(error),
                };
                let _ = answer.send(restarted.map(|()| self.look()));
            }
            Request::Change { from, to, answer } => {
                let changed = self.change(*from, *to).await;
                let _ = answer.send(changed);
            }
            Request::Verified { summary, answer } => {
                let noted = self.blocking(move |shared, project| lifecycle::verified(shared, project, *summary)).await;
                self.publish();
                let _ = answer.send(noted);
            }
            Request::Remove(answer) => {
                let removed = self.remove().await;
                let fate = if removed.is_ok() { Fate::Gone } else { Fate::Stays };
                let _ = answer.send(removed);
                return fate;
            }
            Request::Close => return Fate::LeftAlone,
        }
        Fate::Stays
    }

    async fn create(&mut self) -> Result<(), Error> {
        let created = self.blocking(lifecycle::create).await;
        self.publish();
        if created.is_ok()
            && self.project.ephemeral
            && let Ok(entry) = self.shared.registry.find(&self.project.name)
        {
            holds::expect_first(&self.shared, &entry);
        }
        created
    }

    async fn start(&mut self) -> Result<(), Error> {
        match self.project.state {
            ProjectState::Running => return Ok(()),
            ProjectState::Paused => return self.resume().await,
            // What an earlier stop could not finish.
            ProjectState::Stopping => self.finish_stop(EndedReason::Stopped).await?,
            _ => {}
        }
        self.announce(ProjectState::Starting);
        let started = self.blocking(lifecycle::start).await;
        let started = started.map(|live| {
            self.live = Some(Arc::new(live));
            self.shared.one_more_runs();
        });
        self.reboots.started(Instant::now());
        self.publish();
        started
    }

    async fn pause(&mut self) -> Result<(), Error> {
        if self.project.state == ProjectState::Paused {
            return Ok(());
        }
        let Some(live) = self.live_after(Transition::Pause)? else { return Err(ErrorKind::Sandbox.into()) };
        self.announce(ProjectState::Pausing);
        let paused = self.blocking(|shared, project| lifecycle::pause(shared, project, live)).await;
        let paused = paused.map(|live| self.live = live);
        self.publish();
        paused
    }

    async fn resume(&mut self) -> Result<(), Error> {
        if self.project.state == ProjectState::Running {
            return Ok(());
        }
        let live = self.live_after(Transition::Resume)?;
        self.announce(ProjectState::Resuming);
        let resumed = self.blocking(|shared, project| lifecycle::resume(shared, project, live)).await;
        let resumed = resumed.map(|live| self.live = Some(live));
        self.publish();
        resumed
    }

    /// What there is of the sandbox, if the project's state has this transition.
    fn live_after(&self, transition: Transition) -> Result<Option<Arc<Live>>, Error> {
        self.project.state.after(transition)?;
        Ok(self.live.clone())
    }

    async fn stop(&mut self, grace: Duration, reason: EndedReason) -> Result<(), Error> {
        // Processes that rest cannot end by themselves.
        if self.project.state == ProjectState::Paused
            && !grace.is_zero()
            && let Err(error) = self.resume().await
        {
            tracing::warn!(project = %self.project.name, error = error.chain(), "ending it as it is");
        }
        match self.project.state {
            ProjectState::Stopped => return Ok(()),
            ProjectState::Running if !grace.is_zero() => {
                self.announce(ProjectState::Stopping);
                let live = self.live.clone();
                let has_init = self.project.sandbox.as_ref().is_some_and(|sandbox| sandbox.has_init);
                let begun = self.blocking(lifecycle::begin_stop);
                let (begun, ()) = tokio::join!(begun, end_processes(live.as_deref(), grace, has_init));
                begun?;
                fault::reach(Point::StopAsked);
            }
            _ => {}
        }
        self.finish_stop(reason).await
    }

    async fn finish_stop(&mut self, reason: EndedReason) -> Result<(), Error> {
        self.announce(ProjectState::Stopping);
        let (live, had) = (self.live.clone(), self.project.sandbox.is_some());
        let ended =
            self.blocking(move |shared, project| lifecycle::finish_stop(shared, project, live.as_deref(), reason));
        let ended = ended.await;
        if ended.is_ok() && had {
            self.live = None;
            self.shared.one_less_runs();
        }
        self.publish();
        ended
    }

    /// The sandbox's init has ended, and no one asked for it.
    async fn died(&mut self) {
        let reason = self.why_it_ended().await;
        tracing::info!(project = %self.project.name, ?reason, "the sandbox ended by itself");
        if let Err(error) = self.finish_stop(reason).await {
            tracing::error!(project = %self.project.name, error = error.chain(), "cannot clean up after the sandbox");
            return;
        }
        if reason == EndedReason::Rebooted
            && let Err(error) = self.start().await
        {
            tracing::warn!(project = %self.project.name, error = error.chain(), "it restarted itself and stays stopped");
        }
    }

    /// What serves a volume to the sandbox has ended: it is ended as well, rather than that its processes hang.
    async fn unserved(&mut self) {
        tracing::error!(project = %self.project.name, "a volume is served no more: its sandbox is ended");
        if let Some(live) = self.live.clone() {
            settle(&live).await;
        }
        if let Err(error) = self.finish_stop(EndedReason::Died).await {
            tracing::error!(project = %self.project.name, error = error.chain(), "cannot clean up after the sandbox");
        }
    }

    async fn why_it_ended(&mut self) -> EndedReason {
        let Some(live) = self.live.clone() else { return EndedReason::Died };
        match tokio::task::spawn_blocking(move || live.sandbox.ending()).await {
            Ok(Ending::Rebooted) if self.reboots.may_start_again(Instant::now()) => EndedReason::Rebooted,
            Ok(Ending::Rebooted) => EndedReason::RebootLoop,
            Ok(Ending::PoweredOff) => EndedReason::PoweredOff,
            Ok(Ending::Unknown) | Err(_) => EndedReason::Died,
        }
    }

    async fn change(&mut self, from: ProjectSpec, to: ProjectSpec) -> Result<Changed, Error> {
        if self.project.spec != from {
            return Err(ErrorKind::Contended(self.project.name.clone()).into());
        }
        let stopped = from.runtime != to.runtime && self.project.sandbox.is_some();
        if stopped {
            self.stop(lifecycle::grace(&from), EndedReason::Stopped).await?;
        }
        let live = self.live.clone();
        let changed =
            self.blocking(move |shared, project| lifecycle::change(shared, project, live.as_deref(), to)).await;
        self.publish();
        changed.map(|()| Changed { view: self.look(), stopped })
    }

    async fn remove(&mut self) -> Result<(), Error> {
        let removed = async {
            if self.project.state.has_sandbox() || self.project.state == ProjectState::Stopping {
                self.stop(Duration::ZERO, EndedReason::Stopped).await?;
            }
            self.announce(ProjectState::Removing);
            self.blocking(lifecycle::remove).await
        };
        let removed = removed.await;
        self.publish();
        match removed {
            Ok(()) => {
                self.shared.registry.release(&self.project.name);
                self.shared.freed.notify_one();
            }
            Err(_) if self.project.state == ProjectState::Removing => {}
            Err(_) => self.set_doomed(false),
        }
        removed
    }

    fn set_doomed(&self, doomed: bool) {
        if let Ok(entry) = self.shared.registry.find(&self.project.name) {
            entry.doomed.store(doomed, SeqCst);
        }
    }

    /// Runs steps that block on a thread of their own, with the project to change.
    async fn blocking<T: Send + 'static>(
        &mut self,
        steps: impl FnOnce(&Shared, &mut Project) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = Arc::clone(&self.shared);
        let mut project = self.project.clone();
        let done = tokio::task::spawn_blocking(move || {
            let outcome = steps(&shared, &mut project);
            (project, outcome)
        });
        let (project, outcome) = done.await.map_err(|error| Error::because(ErrorKind::TaskLost, error))?;
        self.project = project;
        outcome
    }

    /// Shows readers what is about to happen, before the steps that make it true.
    fn announce(&self, state: ProjectState) {
        let project = Project { state, ..self.project.clone() };
        self.view.send_replace(View { project: Arc::new(project), live: None });
    }

    fn publish(&self) {
        self.view.send_replace(self.look());
    }

    fn look(&self) -> View {
        let live = self.live.clone().filter(|_| self.project.state.has_sandbox());
        View { project: Arc::new(self.project.clone()), live }
    }

    /// Tells those who came too late.
    fn refuse_the_rest(&mut self) {
        self.requests.close();
        while self.requests.try_recv().is_ok() {
            // Dropping a request drops its answer, which its sender takes for "no such project".
        }
    }
}
