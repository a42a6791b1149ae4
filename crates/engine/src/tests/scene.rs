use std::path::{Path, PathBuf};
use std::sync::Arc;

use garth_spec::{ProjectName, ProjectState};

use crate::engine::{Engine, NewProject};
use crate::error::Error;
use crate::local::Local;
use crate::local::fake::{Fake, World};
use crate::store::Store;

/// An engine, and the host below it.
pub(super) struct Scene {
    pub(super) engine: Engine,
    pub(super) host: Arc<Fake>,
}

pub(super) fn world_file(dir: &Path) -> PathBuf {
    dir.join("world.json")
}

impl Scene {
    /// The daemon starts on what an earlier one left in `dir`.
    pub(super) async fn open(dir: &Path) -> Result<Self, Error> {
        let host = Fake::open(&world_file(dir));
        let engine = Engine::assemble(Local::Fake(Arc::clone(&host)), Store::open(dir)?, None).await?;
        Ok(Self { engine, host })
    }

    pub(super) async fn create(&self, name: &str) -> Result<(), Error> {
        self.engine.create(NewProject { name: Some(named(name)), ..NewProject::default() }).await.map(drop)
    }

    pub(super) fn state(&self, name: &str) -> Option<ProjectState> {
        self.engine.list().iter().find(|project| project.name.as_str() == name).map(|project| project.state)
    }

    /// Says what of the host does not fit what the engine says, while nothing is under way.
    pub(super) fn orphans(&self) -> Vec<String> {
        let projects = self.engine.list();
        let World { disks, sandboxes, leases, frozen, impossible, images, .. } = self.host.look();
        let mut wrong = impossible;
        for project in &projects {
            let id = project.sandbox.as_ref().map(|entry| entry.id);
            if id.is_some_and(|id| frozen.contains(&id)) != (project.state == ProjectState::Paused) {
                wrong.push(format!("{} is {} and its sandbox is not", project.name, project.state));
            }
            if !matches!(project.state, ProjectState::Stopped | ProjectState::Running | ProjectState::Paused) {
                wrong.push(format!("{} is {}", project.name, project.state));
            }
            if !disks.contains_key(&project.id) {
                wrong.push(format!("{} has no disk", project.name));
            }
            if disks.get(&project.id).is_some_and(|disk| disk.1 != project.spec.limits.disk.bytes()) {
                wrong.push(format!("the disk of {} has another limit", project.name));
            }
            let running = sandboxes.values().filter(|owner| **owner == project.id).count();
            if running != usize::from(project.state.has_sandbox()) {
                wrong.push(format!("{} is {} and has {running} sandboxes", project.name, project.state));
            }
        }
        let known = |id| projects.iter().any(|project| project.id == id);
        wrong.extend(disks.keys().filter(|id| !known(**id)).map(|id| format!("disk {id} is no one's")));
        let live: Vec<_> =
            projects.iter().filter_map(|project| project.sandbox.as_ref()).map(|entry| entry.id).collect();
        wrong.extend(sandboxes.keys().filter(|id| !live.contains(id)).map(|id| format!("sandbox {id} is no one's")));
        wrong.extend(leases.iter().filter(|id| !live.contains(id)).map(|id| format!("lease {id} is no one's")));
        let named = self.engine.images();
        wrong.extend(
            images
                .iter()
                .filter(|id| !named.iter().any(|image| image.id == **id))
                .map(|id| format!("image {id} is no one's")),
        );
        wrong
    }
}

pub(super) fn named(name: &str) -> ProjectName {
    name.parse().expect("a name")
}
