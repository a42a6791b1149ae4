//! Which projects there are: names to queues, and what readers see of each.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, PoisonError, RwLock};

use garth_spec::ProjectName;
use tokio::sync::{mpsc, oneshot, watch};

use crate::error::{Error, ErrorKind};
use crate::local::Live;
use crate::project::Project;
use crate::queue::Request;

/// Requests that wait for one project before the next one waits outside.
pub(crate) const QUEUE: usize = 64;

/// What readers see of a project: a moment of it.
#[derive(Debug, Clone)]
pub(crate) struct View {
    pub(crate) project: Arc<Project>,
    /// The sandbox, running or paused, and nothing while that changes.
    pub(crate) live: Option<Arc<Live>>,
}

/// One project: its queue and its latest view.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) name: ProjectName,
    pub(crate) ephemeral: bool,
    pub(crate) requests: mpsc::Sender<Request>,
    pub(crate) view: watch::Receiver<View>,
    /// Someone asked for its removal: whoever comes after is refused.
    pub(crate) doomed: AtomicBool,
    pub(crate) holds: AtomicUsize,
}

impl Entry {
    /// What it looks like now.
    pub(crate) fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Puts a request in the queue and waits for its turn and its outcome.
    pub(crate) async fn ask<T>(&self, request: impl FnOnce(Answer<T>) -> Request) -> Result<T, Error> {
        let (answer, outcome) = oneshot::channel();
        let gone = || Error::from(ErrorKind::NoProject(self.name.clone()));
        self.requests.send(request(answer)).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
    }

    /// An error if someone has asked for its removal.
    pub(crate) fn check_stays(&self) -> Result<(), Error> {
        match self.doomed.load(SeqCst) {
            true => Err(ErrorKind::BeingRemoved(self.name.clone()).into()),
            false => Ok(()),
        }
    }
}

/// Where the outcome of a request goes.
pub(crate) type Answer<T> = oneshot::Sender<Result<T, Error>>;

/// All projects by name.
#[derive(Debug, Default)]
pub(crate) struct Registry(RwLock<BTreeMap<ProjectName, Arc<Entry>>>);

impl Registry {
    pub(crate) fn find(&self, name: &ProjectName) -> Result<Arc<Entry>, Error> {
        let entries = self.0.read().unwrap_or_else(PoisonError::into_inner);
        entries.get(name).cloned().ok_or_else(|| ErrorKind::NoProject(name.clone()).into())
    }

    /// Takes a name, or says that it is taken.
    pub(crate) fn claim(&self, entry: Arc<Entry>) -> Result<(), Error> {
        use std::collections::btree_map::Entry::{Occupied, Vacant};
        let mut entries = self.0.write().unwrap_or_else(PoisonError::into_inner);
        match entries.entry(entry.name.clone()) {
            Occupied(taken) => match taken.get().doomed.load(SeqCst) {
                true => Err(ErrorKind::BeingRemoved(entry.name.clone()).into()),
                false => Err(ErrorKind::ProjectExists(entry.name.clone()).into()),
            },
            Vacant(free) => {
                free.insert(entry);
                Ok(())
            }
        }
    }

    pub(crate) fn release(&self, name: &ProjectName) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    pub(crate) fn list(&self) -> Vec<Arc<Entry>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Lets every queue end once it has done what it holds.
    pub(crate) fn clear(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}
