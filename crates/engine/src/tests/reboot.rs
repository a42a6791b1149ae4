//! Sandboxes that restart themselves.
use std::time::Duration;

use garth_spec::{ProjectState, SandboxId};

use super::scene::{Scene, named};
use crate::project::{EndedReason, Project};
use crate::registry::View;

/// The sandbox of `web` ends as if by reboot(2); what becomes of the project, once it is `wanted`.
async fn reboot(scene: &Scene, wanted: impl Fn(&Project, SandboxId) -> bool) -> View {
    let mut view = scene.engine.shared.registry.find(&named("web")).expect("entry").view.clone();
    let before = view.borrow().project.sandbox.as_ref().expect("it runs").id;
    scene.host.change(|world| {
        world.rebooted.insert(before);
        world.sandboxes.remove(&before);
    });
    let came = view.wait_for(|view| wanted(&view.project, before));
    tokio::time::timeout(Duration::from_secs(60), came).await.expect("in time").expect("a view").clone()
}

fn runs_anew(project: &Project, before: SandboxId) -> bool {
    let sandbox = project.sandbox.as_ref().is_some_and(|sandbox| sandbox.id != before);
    project.state == ProjectState::Running && sandbox
}

#[tokio::test]
async fn a_sandbox_that_restarts_itself_runs_again() {
    let dir = tempfile::tempdir().expect("dir");
    let scene = Scene::open(dir.path()).await.expect("open");
    scene.create("web").await.expect("create");
    scene.engine.start(&named("web")).await.expect("start");
    let view = reboot(&scene, runs_anew).await;
    assert_eq!(view.project.ended.as_ref().map(|ended| ended.reason), Some(EndedReason::Rebooted));
    assert_eq!((scene.host.look().starts, scene.orphans()), (2, Vec::new()));
}

#[tokio::test]
async fn one_that_does_nothing_else_is_left_stopped_and_can_be_started() {
    let dir = tempfile::tempdir().expect("dir");
    let scene = Scene::open(dir.path()).await.expect("open");
    scene.create("web").await.expect("create");
    scene.engine.start(&named("web")).await.expect("start");
    for _ in 0..5 {
        reboot(&scene, runs_anew).await;
    }
    let view = reboot(&scene, |project, _| project.state == ProjectState::Stopped && project.sandbox.is_none());
    let ended = view.await.project.ended.clone();
    assert_eq!(ended.map(|ended| ended.reason), Some(EndedReason::RebootLoop));
    assert_eq!((scene.host.look().starts, scene.orphans()), (6, Vec::new()));
    scene.engine.start(&named("web")).await.expect("start");
    assert_eq!(scene.state("web"), Some(ProjectState::Running));
}
