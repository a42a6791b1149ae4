use std::io::Read;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use garth_spec::{ImageConfig, ImageName, Network, ProjectName, ProjectSpec, ProjectState, Runtime, StartPolicy};
use jiff::Timestamp;
use tokio::sync::{Notify, watch};

use crate::agent::{Agent, Link};
use crate::data_dir::DataDir;
use crate::doctor::Findings;
use crate::error::{Error, ErrorKind};
use crate::guest::{GuestConfig, GuestReport, KernelSource, Progress};
use crate::holds::{self, Hold};
use crate::images::{ImageEntry, ImageFormat, Images};
use crate::local::{DiskUse, Host, HostConfig, Local, Usage};
use crate::project::{Lasting, Project, new_id};
use crate::queue::{Request, Task};
use crate::registry::{Entry, Registry, View};
use crate::store::{Origin, Store};
use crate::{lifecycle, names, reconcile, upkeep};

/// What an engine needs to know.
#[derive(Debug)]
pub struct EngineConfig {
    /// Where everything is kept, locked.
    pub data_dir: DataDir,
    /// How microVMs are run.
    pub guests: GuestConfig,
    /// The agent's program, which becomes PID 1 of every sandbox.
    pub agent: &'static [u8],
}

/// The engine; clones are the same one.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(crate) shared: Arc<Shared>,
}

/// What every task shares.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) local: Local,
    pub(crate) store: Store,
    pub(crate) images: Images,
    pub(crate) registry: Registry,
    /// Whether any sandbox runs; upkeep sleeps while none does.
    pub(crate) busy: watch::Sender<bool>,
    /// Rings when a disk is gone.
    pub(crate) freed: Notify,
    running: AtomicUsize,
    closing: AtomicBool,
    /// Given back when the engine closes.
    data_dir: Mutex<Option<DataDir>>,
}

/// A project to make.
#[derive(Debug, Clone, Default)]
pub struct NewProject {
    /// Its name; one is made up when absent.
    pub name: Option<ProjectName>,
    /// Whether it goes with its last hold.
    pub ephemeral: bool,
    /// What is asked of it.
    pub spec: ProjectSpec,
}

/// One project, looked at closely.
#[derive(Debug, Clone)]
pub struct Inspection {
    /// What the store has.
    pub project: Arc<Project>,
    /// What its sandbox uses, while it runs.
    pub usage: Option<Usage>,
    /// What its disk uses.
    pub disk: Option<DiskUse>,
}

/// What a change led to.
#[derive(Debug, Clone)]
pub struct Changed {
    /// The project as it is now.
    pub project: Arc<Project>,
    /// The spec before.
    pub before: ProjectSpec,
    /// Whether the sandbox was stopped for it.
    pub stopped: bool,
}

/// How often a change is tried again when another came between.
const CHANGE_TRIES: usize = 8;

/// How long the end of a sandbox whose agent cannot be reached may take to be noticed.
const END_NOTICE: Duration = Duration::from_secs(1);

/// How often a made-up name is tried.
const NAME_TRIES: usize = 8;

impl Engine {
    /// Opens the store, makes it agree with what the kernel shows, and begins to serve.
    pub async fn open(config: EngineConfig) -> Result<Self, Error> {
        let opened = tokio::task::spawn_blocking(move || {
            let (store, origin) = Store::open(config.data_dir.path())?;
            let host =
                HostConfig { data_dir: config.data_dir.path().to_owned(), guests: config.guests, agent: config.agent };
            let local = Local::Host(Box::new(Host::open(host)?));
            Ok::<_, Error>((store, origin, local, config.data_dir))
        });
        let (store, origin, local, data_dir) =
            opened.await.map_err(|error| Error::because(ErrorKind::TaskLost, error))??;
        Self::assemble(local, (store, origin), Some(data_dir)).await
    }

    /// An engine on a host made of numbers, kept in `dir`; agents are looked for at `dir/agent.sock`.
    #[cfg(feature = "fake")]
    pub async fn fake(dir: &std::path::Path) -> Result<Self, Error> {
        let host = crate::local::fake::Fake::open(&dir.join("world.json"));
        Self::assemble(Local::Fake(host), Store::open(dir)?, None).await
    }

    pub(crate) async fn assemble(
        local: Local,
        (store, origin): (Store, Origin),
        data_dir: Option<DataDir>,
    ) -> Result<Self, Error> {
        let settled = tokio::task::spawn_blocking(move || {
            let settled = reconcile::settle(&local, &store, origin)?;
            Ok::<_, Error>((settled, local, store))
        });
        let (settled, local, store) = settled.await.map_err(|error| Error::because(ErrorKind::TaskLost, error))??;
        let shared = Arc::new(Shared {
            local,
            store,
            images: Images::new(settled.images),
            registry: Registry::default(),
            busy: watch::channel(false).0,
            freed: Notify::new(),
            running: 0.into(),
            closing: false.into(),
            data_dir: Mutex::new(data_dir),
        });
        for (project, live) in settled.projects {
            if project.sandbox.is_some() {
                shared.one_more_runs();
            }
            let (task, entry) = Task::new(&shared, project, live);
            shared.registry.claim(Arc::clone(&entry))?;
            tokio::spawn(task.run());
            if entry.ephemeral {
                holds::expect_first(&shared, &entry);
            }
        }
        upkeep::spawn(&shared);
        Ok(Self { shared })
    }

    /// Makes a project; done when its disk stands.
    pub async fn create(&self, new: NewProject) -> Result<Arc<Project>, Error> {
        lifecycle::check(&self.shared.local, &new.spec)?;
        if new.spec.image != ImageName::host() && self.shared.images.find(&new.spec.image).is_none() {
            return Err(ErrorKind::NoImage(new.spec.image).into());
        }
        self.check_open()?;
        let (task, entry) = self.claim(&new)?;
        tokio::spawn(task.run());
        if new.spec.network == Network::Internet {
            // While the disk is made: on a fresh host both take a while.
            let shared = Arc::clone(&self.shared);
            tokio::task::spawn_blocking(move || shared.local.prepare_network());
        }
        entry.ask(Request::Create).await?;
        Ok(entry.view().project)
    }

    /// The spec with the weakest runtime that works here, can do what it asks, and is `least` or stronger.
    pub fn at_least(&self, least: Runtime, spec: &ProjectSpec) -> Result<ProjectSpec, Error> {
        lifecycle::at_least(&self.shared.local, least, spec)
    }

    fn claim(&self, new: &NewProject) -> Result<(Task, Arc<Entry>), Error> {
        let mut tries = NAME_TRIES;
        loop {
            let name = new.name.clone().unwrap_or_else(names::made_up);
            let (task, entry) = Task::new(&self.shared, blank(name, new), None);
            match self.shared.registry.claim(Arc::clone(&entry)) {
                Err(_) if new.name.is_none() && tries > 0 => tries -= 1,
                claimed => return claimed.map(|()| (task, entry)),
            }
        }
    }

    /// Every project, by name.
    pub fn list(&self) -> Vec<Arc<Project>> {
        self.shared.registry.list().iter().map(|entry| entry.view().project).collect()
    }

    /// One project, with what it uses.
    pub async fn inspect(&self, name: &ProjectName) -> Result<Inspection, Error> {
        let entry = self.shared.registry.find(name)?;
        let view = entry.view();
        let shared = Arc::clone(&self.shared);
        let inspected = tokio::task::spawn_blocking(move || {
            // Numbers that cannot be had are left out: they are no reason to hide the rest.
            let usage = view.live.as_ref().and_then(|live| live.sandbox.usage().ok());
            let disk = match view.project.state {
                ProjectState::Creating | ProjectState::Removing => None,
                _ => shared.local.disk_use(view.project.id).ok(),
            };
            Inspection { project: view.project, usage, disk }
        });
        inspected.await.map_err(|error| Error::because(ErrorKind::TaskLost, error))
    }

    /// Whether directories of the host are, or will be, in a project's sandbox.
    pub fn has_volumes(&self, name: &ProjectName) -> bool {
        self.shared.registry.find(name).is_ok_and(|entry| {
            let project = entry.view().project;
            let given = project.sandbox.as_ref().is_some_and(|sandbox| !sandbox.volumes.is_empty());
            given || !project.spec.volumes.is_empty()
        })
    }

    /// Has a project run; done when its agent can be reached.
    pub async fn start(&self, name: &ProjectName) -> Result<Arc<Project>, Error> {
        let entry = self.entry(name)?;
        entry.ask(Request::Start).await.map(|view| view.project)
    }

    /// Has a running project paused: done when nothing in its sandbox runs. Its memory and its addresses stay.
    pub async fn pause(&self, name: &ProjectName) -> Result<Arc<Project>, Error> {
        let entry = self.entry(name)?;
        entry.ask(Request::Pause).await.map(|view| view.project)
    }

    /// Has a paused project go on where it was.
    pub async fn resume(&self, name: &ProjectName) -> Result<Arc<Project>, Error> {
        let entry = self.entry(name)?;
        entry.ask(Request::Resume).await.map(|view| view.project)
    }

    /// Has a project stopped; done when nothing of its sandbox is left.
    pub async fn stop(&self, name: &ProjectName, grace: Option<Duration>) -> Result<Arc<Project>, Error> {
        let entry = self.entry(name)?;
        let grace = grace.unwrap_or_else(|| lifecycle::grace(&entry.view().project.spec));
        entry.ask(|answer| Request::Stop { grace, answer }).await.map(|view| view.project)
    }

    /// Has a project run in a new sandbox.
    pub async fn restart(&self, name: &ProjectName, grace: Option<Duration>) -> Result<Arc<Project>, Error> {
        let entry = self.entry(name)?;
        let grace = grace.unwrap_or_else(|| lifecycle::grace(&entry.view().project.spec));
        entry.ask(|answer| Request::Restart { grace, answer }).await.map(|view| view.project)
    }

    /// Deletes a project with its disk, running or not.
    pub async fn remove(&self, name: &ProjectName) -> Result<(), Error> {
        self.check_open()?;
        remove(&*self.shared.registry.find(name)?).await
    }

    /// Asks something else of a project: limits at once, the rest at the next start.
    pub async fn change(
        &self,
        name: &ProjectName,
        change: impl Fn(&ProjectSpec) -> ProjectSpec + Send + Sync,
    ) -> Result<Changed, Error> {
        let entry = self.entry(name)?;
        for _ in 0..CHANGE_TRIES {
            let from = entry.view().project.spec.clone();
            let to = change(&from);
            lifecycle::check(&self.shared.local, &to)?;
            let (old, new) = (Box::new(from.clone()), Box::new(to));
            match entry.ask(|answer| Request::Change { from: old, to: new, answer }).await {
                Err(error) if matches!(error.kind(), ErrorKind::Contended(_)) => {}
                changed => {
                    return changed.map(|changed| Changed {
                        project: changed.view.project,
                        before: from,
                        stopped: changed.stopped,
                    });
                }
            }
        }
        Err(ErrorKind::Contended(name.clone()).into())
    }

    /// A way to the agent of a project's sandbox, which is started where the policy says so.
    pub async fn agent(&self, name: &ProjectName, policy: StartPolicy) -> Result<Link, Error> {
        let entry = self.entry(name)?;
        match running(&entry, policy).await?.link().await {
            Ok(link) => Ok(link),
            // It may have ended a moment ago: once that is known, a new one may do.
            Err(error) => {
                let mut view = entry.view.clone();
                let ended = view.wait_for(|view| view.live.is_none());
                match tokio::time::timeout(END_NOTICE, ended).await {
                    Ok(Ok(_)) => {}
                    _ => return Err(error),
                }
                running(&entry, policy).await?.link().await
            }
        }
    }

    /// Keeps an ephemeral project until the hold is dropped.
    pub fn hold(&self, name: &ProjectName) -> Result<Hold, Error> {
        holds::take(&self.shared, name)
    }

    /// Every image, by name.
    pub fn images(&self) -> Vec<ImageEntry> {
        self.shared.images.list()
    }

    /// One image.
    pub fn image(&self, name: &ImageName) -> Result<ImageEntry, Error> {
        self.shared.images.find(name).ok_or_else(|| ErrorKind::NoImage(name.clone()).into())
    }

    /// Makes an image of a tar stream, which is read on a thread of its own.
    pub async fn import(
        &self,
        name: ImageName,
        format: ImageFormat,
        mut tar: impl Read + Send + 'static,
    ) -> Result<ImageEntry, Error> {
        self.check_open()?;
        let shared = Arc::clone(&self.shared);
        let imported = tokio::task::spawn_blocking(move || {
            let imported = shared.images.import(&shared.local, &shared.store, &name, (format, &mut tar));
            imported.map_err(|error| error.doing(|| format!("cannot import {name}")))
        });
        imported.await.map_err(|error| Error::because(ErrorKind::TaskLost, error))?
    }

    /// Forgets an image; projects that began as it stay.
    pub async fn remove_image(&self, name: ImageName) -> Result<(), Error> {
        self.check_open()?;
        let shared = Arc::clone(&self.shared);
        let removed = tokio::task::spawn_blocking(move || {
            let removed = shared.images.remove(&shared.local, &shared.store, &name);
            removed.map_err(|error| error.doing(|| format!("cannot remove the image {name}")))
        });
        removed.await.map_err(|error| Error::because(ErrorKind::TaskLost, error))?
    }

    /// Makes what guests start from; one such at a time. It goes on when nobody waits any more.
    pub async fn setup_microvm(
        &self,
        kernel: KernelSource,
        mut progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<GuestReport, Error> {
        self.check_open()?;
        let shared = Arc::clone(&self.shared);
        let made = tokio::task::spawn_blocking(move || {
            let made = shared.local.setup_microvm(kernel, &mut progress);
            made.map_err(|error| error.doing(|| "cannot set up microvm".to_owned()))
        });
        made.await.map_err(|error| Error::because(ErrorKind::TaskLost, error))?
    }

    /// What works here.
    pub async fn findings(&self) -> Result<Findings, Error> {
        let shared = Arc::clone(&self.shared);
        let findings = tokio::task::spawn_blocking(move || shared.local.findings());
        findings.await.map_err(|error| Error::because(ErrorKind::TaskLost, error))
    }

    /// Takes no more changes, and tells the next daemon to wait for the data directory.
    pub fn leave(&self) {
        self.shared.closing.store(true, SeqCst);
        if let Some(data_dir) = &*self.shared.data_dir.lock().unwrap_or_else(PoisonError::into_inner) {
            data_dir.leave();
        }
    }

    /// Finishes what is under way and lets go of the data directory. Sandboxes go on running.
    pub async fn close(self) -> Result<(), Error> {
        self.leave();
        for entry in self.shared.registry.list() {
            // Behind all that waits in the queue; a project that is gone has no queue.
            if entry.requests.send(Request::Close).await.is_ok() {
                entry.requests.closed().await;
            }
        }
        self.shared.registry.clear();
        self.shared.freed.notify_one();
        let data_dir = self.shared.data_dir.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shared = self.shared;
        let closed = tokio::task::spawn_blocking(move || {
            shared.store.settle()?;
            shared.local.close(shared.running.load(SeqCst))
        });
        let closed = closed.await.map_err(|error| Error::because(ErrorKind::TaskLost, error));
        drop(data_dir);
        closed?
    }

    /// A project that runs, and the way to its agent.
    pub(crate) async fn running(
        &self,
        name: &ProjectName,
        policy: StartPolicy,
    ) -> Result<(Arc<Project>, Arc<Agent>), Error> {
        let entry = self.entry(name)?;
        let agent = running(&entry, policy).await?;
        Ok((entry.view().project, agent))
    }

    pub(crate) fn entry(&self, name: &ProjectName) -> Result<Arc<Entry>, Error> {
        self.check_open()?;
        let entry = self.shared.registry.find(name)?;
        entry.check_stays()?;
        Ok(entry)
    }

    fn check_open(&self) -> Result<(), Error> {
        if self.shared.closing() { Err(ErrorKind::Closing.into()) } else { Ok(()) }
    }
}

impl Shared {
    /// Whether the daemon is going down.
    pub(crate) fn closing(&self) -> bool {
        self.closing.load(SeqCst)
    }

    pub(crate) fn one_more_runs(&self) {
        if self.running.fetch_add(1, SeqCst) == 0 {
            self.busy.send_replace(true);
        }
    }

    pub(crate) fn one_less_runs(&self) {
        if self.running.fetch_sub(1, SeqCst) == 1 {
            self.busy.send_replace(false);
        }
    }
}

async fn running(entry: &Entry, policy: StartPolicy) -> Result<Arc<Agent>, Error> {
    let state = {
        let view = entry.view.borrow();
        match &view.live {
            Some(live) if view.project.state == ProjectState::Running => return Ok(Arc::clone(&live.agent)),
            _ => view.project.state,
        }
    };
    let stopped = || Error::from(ErrorKind::NotRunning(entry.name.clone()));
    if policy == StartPolicy::Never {
        return Err(if state.has_sandbox() { ErrorKind::Paused(entry.name.clone()).into() } else { stopped() });
    }
    let View { live, .. } = entry.ask(Request::Start).await?;
    live.map(|live| Arc::clone(&live.agent)).ok_or_else(stopped)
}

/// Has a project removed; from now on others are refused.
pub(crate) async fn remove(entry: &Entry) -> Result<(), Error> {
    entry.doomed.store(true, SeqCst);
    entry.ask(Request::Remove).await
}

fn blank(name: ProjectName, new: &NewProject) -> Project {
    Project {
        id: new_id(if new.ephemeral { Lasting::Ephemeral } else { Lasting::Kept }),
        name,
        state: ProjectState::Creating,
        ephemeral: new.ephemeral,
        spec: new.spec.clone(),
        image: None,
        image_config: ImageConfig::default(),
        created_at: Timestamp::now(),
        started_at: None,
        ended: None,
        verified: None,
        sandbox: None,
    }
}
