//! Who keeps an ephemeral project: a gateway, for as long as a client holds it. The project carries until when it is held,
//! which the gateway puts off; when that passes, nobody does, and the operator deletes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use garth_spec::ProjectName;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::task::JoinHandle;

use super::Engine;
use super::error::{Error, ErrorKind};
use crate::resources::{HELD_UNTIL, Project};

/// How long a project is held without another word: longer than a gateway takes to restart.
const HELD: Duration = Duration::from_secs(90);
/// How often that is put off.
const EVERY: Duration = Duration::from_secs(30);

/// Holds, by the project's UID.
#[derive(Debug, Default)]
pub(super) struct Holds(Mutex<HashMap<String, (usize, JoinHandle<()>)>>);

/// Keeps an ephemeral project; the last one of this gateway to be dropped removes it.
#[derive(Debug)]
pub struct Hold {
    engine: Engine,
    project: Arc<Project>,
}

/// Puts off the end of a project that is about to be made.
pub(super) fn extend(project: &mut Project) {
    project.annotations_mut().insert(HELD_UNTIL.to_owned(), until());
}

fn until() -> String {
    (Timestamp::now() + HELD).to_string()
}

pub(super) fn take(engine: &Engine, name: &ProjectName) -> Result<Hold, Error> {
    let project = engine.inspect(name)?;
    if !project.spec.ephemeral {
        return Err(ErrorKind::NotEphemeral(name.clone()).into());
    }
    let uid = project.uid().unwrap_or_default();
    let mut holds = engine.shared.holds.lock();
    let entry = holds.entry(uid).or_insert_with(|| (0, tokio::spawn(keep(engine.clone(), project.name_any()))));
    entry.0 += 1;
    drop(holds);
    Ok(Hold { engine: engine.clone(), project })
}

async fn keep(engine: Engine, name: String) {
    loop {
        let patch = json!({ "metadata": { "annotations": { HELD_UNTIL: until() } } });
        if let Err(error) = engine.api().patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await {
            tracing::warn!(%error, project = name, "a hold was not put off");
        }
        tokio::time::sleep(EVERY).await;
    }
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, (usize, JoinHandle<()>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// Waits until the project is gone, whatever the hold says.
    pub async fn broken(&self) {
        while self.engine.shared.projects.gone(&self.project, HELD).await.is_err() {}
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let uid = self.project.uid().unwrap_or_default();
        let mut holds = self.engine.shared.holds.lock();
        let Some(entry) = holds.get_mut(&uid) else { return };
        entry.0 -= 1;
        if entry.0 > 0 {
            return;
        }
        if let Some((_, keeping)) = holds.remove(&uid) {
            keeping.abort();
        }
        drop(holds);
        let (engine, project) = (self.engine.clone(), Arc::clone(&self.project));
        // A gateway that goes down lets go of nothing: the client comes back to the next one.
        if engine.check_open().is_err() {
            return;
        }
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let Ok(name) = project.name_any().parse() else { return };
                if let Err(error) = engine.remove(&name).await {
                    tracing::warn!(%error, project = project.name_any(), "an ephemeral project was not removed yet");
                }
            });
        }
    }
}
