use std::sync::Arc;
use std::time::Duration;

use garth_spec::{Limits, ProjectSpec, ProjectState, Runtime, RuntimeChoice, StartPolicy};
use proptest::prelude::*;
use tokio::runtime::Builder;

use super::scene::{Scene, named};
use crate::engine::NewProject;
use crate::error::ErrorKind;
use crate::images::ImageFormat;
use crate::project::EndedReason;

async fn scene() -> (tempfile::TempDir, Scene) {
    let dir = tempfile::tempdir().expect("dir");
    let scene = Scene::open(dir.path()).await.expect("open");
    (dir, scene)
}

#[tokio::test]
async fn start_twice_at_once_is_one_start() {
    let (_dir, scene) = scene().await;
    scene.create("web").await.expect("create");
    let name = named("web");
    let (one, two) = tokio::join!(scene.engine.start(&name), scene.engine.start(&name));
    assert_eq!(one.expect("start").sandbox, two.expect("start").sandbox);
    assert_eq!(scene.host.look().starts, 1);
}

#[tokio::test]
async fn two_creates_of_one_name_are_one_project() {
    let (_dir, scene) = scene().await;
    let (one, two) = tokio::join!(scene.create("web"), scene.create("web"));
    let lost = if one.is_ok() { two } else { one }.expect_err("one loses");
    assert_eq!(*lost.kind(), ErrorKind::ProjectExists(named("web")));
    assert_eq!(scene.orphans(), [""; 0]);
    assert_eq!(scene.host.look().disks.len(), 1);
}

#[tokio::test]
async fn a_create_that_fails_leaves_nothing_and_the_name_free() {
    let (_dir, scene) = scene().await;
    scene.host.change(|world| world.broken.insert("create_disk".to_owned()));
    let error = scene.create("web").await.expect_err("broken");
    assert_eq!((error.failed_step(), error.to_string().starts_with("cannot create web")), (Some("disk"), true));
    assert_eq!(scene.state("web"), None);
    scene.host.change(|world| world.broken.clear());
    scene.create("web").await.expect("create");
    assert_eq!(scene.orphans(), [""; 0]);
}

#[tokio::test]
async fn a_start_that_fails_leaves_a_stopped_project_that_says_why() {
    let (_dir, scene) = scene().await;
    scene.create("web").await.expect("create");
    scene.host.change(|world| world.broken.insert("start".to_owned()));
    scene.engine.start(&named("web")).await.expect_err("broken");
    let project = scene.engine.inspect(&named("web")).await.expect("inspect").project;
    assert_eq!(project.state, ProjectState::Stopped);
    assert_eq!(project.ended.as_ref().map(|ended| ended.reason), Some(EndedReason::StartFailed));
    assert_eq!(scene.orphans(), [""; 0]);
}

#[tokio::test]
async fn a_sandbox_that_ends_by_itself_leaves_a_stopped_project() {
    let (_dir, scene) = scene().await;
    scene.create("web").await.expect("create");
    scene.engine.start(&named("web")).await.expect("start");
    let mut view = scene.engine.shared.registry.find(&named("web")).expect("entry").view.clone();
    scene.host.change(|world| world.sandboxes.clear());
    let stopped = view.wait_for(|view| view.project.state == ProjectState::Stopped);
    let view = tokio::time::timeout(Duration::from_secs(60), stopped).await.expect("in time").expect("a view").clone();
    assert_eq!(view.project.ended.as_ref().map(|ended| ended.reason), Some(EndedReason::Died));
    assert_eq!(scene.orphans(), [""; 0]);
}

#[tokio::test]
async fn a_stop_that_fails_is_finished_by_the_next_request() {
    let (_dir, scene) = scene().await;
    scene.create("web").await.expect("create");
    scene.engine.start(&named("web")).await.expect("start");
    scene.host.change(|world| world.broken.insert("release".to_owned()));
    scene.engine.stop(&named("web"), Some(Duration::ZERO)).await.expect_err("broken");
    assert_eq!(scene.state("web"), Some(ProjectState::Stopping));
    scene.host.change(|world| world.broken.clear());
    scene.engine.start(&named("web")).await.expect("start");
    assert_eq!(scene.state("web"), Some(ProjectState::Running));
    assert_eq!(scene.orphans(), [""; 0]);
}

#[tokio::test]
async fn a_paused_project_is_resumed_by_whoever_needs_it_and_by_no_one_else() {
    let (_dir, scene) = scene().await;
    scene.create("web").await.expect("create");
    let name = named("web");
    let refused = scene.engine.pause(&name).await.expect_err("stopped");
    assert!(matches!(refused.kind(), ErrorKind::Transition(_)), "{refused}");
    let before = scene.engine.start(&name).await.expect("start");
    for _ in 0..2 {
        assert_eq!(scene.engine.pause(&name).await.expect("pause").state, ProjectState::Paused);
    }
    assert_eq!(scene.orphans(), [""; 0]);
    let refused = scene.engine.running(&name, StartPolicy::Never).await.expect_err("paused");
    assert_eq!(*refused.kind(), ErrorKind::Paused(name.clone()));
    let (project, _) = scene.engine.running(&name, StartPolicy::Start).await.expect("resumed");
    assert_eq!((project.state, &project.sandbox), (ProjectState::Running, &before.sandbox));
    assert_eq!(scene.engine.resume(&name).await.expect("runs").state, ProjectState::Running);
    assert_eq!((scene.host.look().starts, scene.orphans().len()), (1, 0));
}

#[tokio::test]
async fn a_pause_that_fails_leaves_it_running_and_a_resume_that_fails_paused() {
    let (_dir, scene) = scene().await;
    scene.create("web").await.expect("create");
    scene.engine.start(&named("web")).await.expect("start");
    scene.host.change(|world| world.broken.insert("freeze".to_owned()));
    scene.engine.pause(&named("web")).await.expect_err("broken");
    assert_eq!(scene.state("web"), Some(ProjectState::Running));
    scene.host.change(|world| world.broken = ["thaw".to_owned()].into());
    scene.engine.pause(&named("web")).await.expect("pause");
    scene.engine.resume(&named("web")).await.expect_err("broken");
    assert_eq!(scene.state("web"), Some(ProjectState::Paused));
    assert_eq!(scene.orphans(), [""; 0]);
    scene.engine.stop(&named("web"), None).await.expect("what cannot be woken is ended");
    assert_eq!(scene.state("web"), Some(ProjectState::Stopped));
    assert_eq!(scene.orphans(), [""; 0]);
}

#[tokio::test]
async fn a_paused_project_stays_paused_over_a_restart_of_the_daemon() {
    let (dir, scene) = scene().await;
    for name in ["kept", "lost"] {
        scene.create(name).await.expect("create");
        scene.engine.start(&named(name)).await.expect("start");
        scene.engine.pause(&named(name)).await.expect("pause");
    }
    let lost = scene.engine.inspect(&named("lost")).await.expect("inspect").project.sandbox.clone().expect("one").id;
    scene.engine.clone().close().await.expect("close");
    drop(scene);
    crate::local::fake::Fake::open(&super::scene::world_file(dir.path())).change(|world| world.sandboxes.remove(&lost));
    let scene = Scene::open(dir.path()).await.expect("open");
    assert_eq!(scene.state("kept"), Some(ProjectState::Paused));
    assert_eq!(scene.state("lost"), Some(ProjectState::Stopped));
    assert_eq!(scene.orphans(), [""; 0]);
    assert_eq!(scene.engine.start(&named("kept")).await.expect("start").state, ProjectState::Running);
    assert_eq!(scene.orphans(), [""; 0]);
}

#[tokio::test]
async fn who_comes_after_a_removal_is_refused_by_its_kind() {
    let (_dir, scene) = scene().await;
    scene.create("web").await.expect("create");
    scene.host.change(|world| world.broken.insert("remove_disk".to_owned()));
    scene.engine.remove(&named("web")).await.expect_err("broken");
    let error = scene.engine.agent(&named("web"), StartPolicy::Start).await.expect_err("doomed");
    assert_eq!(*error.kind(), ErrorKind::BeingRemoved(named("web")));
    assert_eq!(*scene.create("web").await.expect_err("doomed").kind(), ErrorKind::BeingRemoved(named("web")));
    scene.host.change(|world| world.broken.clear());
    scene.engine.remove(&named("web")).await.expect("remove");
    assert_eq!(scene.state("web"), None);
    assert_eq!(scene.orphans(), [""; 0]);
}

#[tokio::test]
async fn a_runtime_that_is_missing_is_never_replaced() {
    let (_dir, scene) = scene().await;
    for runtime in RuntimeChoice::all().filter(|choice| choice.runtime() > Runtime::Default) {
        let spec = ProjectSpec { runtime, ..ProjectSpec::default() };
        let error = scene.engine.create(NewProject { spec, ..NewProject::default() }).await.expect_err("missing");
        assert!(matches!(error.kind(), ErrorKind::RuntimeUnavailable { .. }), "{error}");
    }
    scene.create("web").await.expect("create");
    let change = |spec: &ProjectSpec| ProjectSpec { runtime: Runtime::Microvm.into(), ..spec.clone() };
    let error = scene.engine.change(&named("web"), change).await.expect_err("missing");
    assert!(matches!(error.kind(), ErrorKind::RuntimeUnavailable { .. }), "{error}");
    assert_eq!(scene.engine.list()[0].spec.runtime, Runtime::Default.into());
}

#[tokio::test]
async fn a_limit_that_the_sandbox_refuses_changes_nothing() {
    let (_dir, scene) = scene().await;
    scene.create("web").await.expect("create");
    scene.engine.start(&named("web")).await.expect("start");
    scene.host.change(|world| world.broken.insert("set_limits".to_owned()));
    let small = garth_spec::ByteSize::mib(32);
    let change = |spec: &ProjectSpec| ProjectSpec {
        limits: Limits { disk: small, memory: small, ..spec.limits },
        ..spec.clone()
    };
    scene.engine.change(&named("web"), change).await.expect_err("refused");
    assert_eq!(scene.engine.list()[0].spec, ProjectSpec::default());
    assert_eq!(scene.orphans(), [""; 0]);
}

#[tokio::test]
async fn changes_at_once_are_all_made() {
    let (_dir, scene) = scene().await;
    scene.create("web").await.expect("create");
    let add = |key: &'static str| {
        let engine = scene.engine.clone();
        async move {
            let change = |spec: &ProjectSpec| {
                let mut spec = spec.clone();
                spec.labels.insert(key.to_owned(), String::new());
                spec
            };
            engine.change(&named("web"), change).await.map(drop)
        }
    };
    let (a, b, c) = tokio::join!(add("a"), add("b"), add("c"));
    a.and(b).and(c).expect("changes");
    assert_eq!(scene.engine.list()[0].spec.labels.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_ephemeral_project_goes_with_its_last_hold() {
    let (_dir, scene) = scene().await;
    let new = |name| NewProject { name: Some(named(name)), ephemeral: true, ..NewProject::default() };
    for name in ["held", "unheld"] {
        scene.engine.create(new(name)).await.expect("create");
    }
    let entry = scene.engine.shared.registry.find(&named("unheld")).expect("entry");
    let (one, two) =
        (scene.engine.hold(&named("held")).expect("hold"), scene.engine.hold(&named("held")).expect("hold"));
    drop(one);
    entry.requests.closed().await;
    assert_eq!(scene.state("held"), Some(ProjectState::Stopped));
    let entry = scene.engine.shared.registry.find(&named("held")).expect("entry");
    drop(two);
    entry.requests.closed().await;
    assert!(scene.engine.list().is_empty());
}

#[tokio::test]
async fn a_project_that_stays_cannot_be_held() {
    let (_dir, scene) = scene().await;
    scene.create("web").await.expect("create");
    let error = scene.engine.hold(&named("web")).expect_err("not ephemeral");
    assert_eq!(*error.kind(), ErrorKind::NotEphemeral(named("web")));
}

#[tokio::test]
async fn closing_leaves_sandboxes_running_for_the_next_daemon() {
    let (dir, scene) = scene().await;
    scene.create("web").await.expect("create");
    let before = scene.engine.start(&named("web")).await.expect("start");
    scene.engine.close().await.expect("close");
    let scene = Scene::open(dir.path()).await.expect("open");
    assert_eq!(scene.engine.list()[0].sandbox, before.sandbox);
    assert_eq!(scene.state("web"), Some(ProjectState::Running));
    assert_eq!(scene.orphans(), [""; 0]);
}

#[tokio::test]
async fn a_reboot_leaves_every_project_stopped() {
    let (dir, scene) = scene().await;
    for name in ["one", "two"] {
        scene.create(name).await.expect("create");
        scene.engine.start(&named(name)).await.expect("start");
    }
    drop(scene);
    crate::local::fake::Fake::open(&super::scene::world_file(dir.path())).change(|world| {
        world.sandboxes.clear();
        world.leases.clear();
    });
    let scene = Scene::open(dir.path()).await.expect("open");
    for project in scene.engine.list() {
        assert_eq!(project.state, ProjectState::Stopped);
        assert_eq!(project.ended.as_ref().map(|ended| ended.reason), Some(EndedReason::Lost));
    }
    assert_eq!(scene.orphans(), [""; 0]);
}

#[tokio::test]
async fn a_disk_that_the_store_lost_is_a_project_again_unless_it_was_ephemeral() {
    let (dir, scene) = scene().await;
    scene.create("kept").await.expect("create");
    let new = NewProject { ephemeral: true, ..NewProject::default() };
    scene.engine.create(new).await.expect("create");
    scene.engine.clone().close().await.expect("close");
    for project in scene.engine.shared.store.projects().expect("projects") {
        scene.engine.shared.store.delete(&project).expect("delete");
    }
    drop(scene);
    let scene = Scene::open(dir.path()).await.expect("open");
    let names: Vec<_> = scene.engine.list().iter().map(|project| project.name.to_string()).collect();
    assert!(names.len() == 1 && names[0].starts_with("recovered-"), "{names:?}");
    assert_eq!(scene.orphans(), [""; 0]);
}

#[tokio::test]
async fn disks_beyond_a_restored_backup_come_back_as_projects() {
    let (dir, scene) = scene().await;
    scene.create("old").await.expect("create");
    scene.engine.shared.store.backups().copy().expect("copy");
    scene.create("new").await.expect("create");
    scene.engine.close().await.expect("close");
    for file in ["store.db", "store.db-wal", "store.db-shm"] {
        let _ = std::fs::remove_file(dir.path().join(file));
    }
    std::fs::copy(dir.path().join("store.db.bak"), dir.path().join("store.db")).expect("restore");
    let scene = Scene::open(dir.path()).await.expect("open");
    let names: Vec<_> = scene.engine.list().iter().map(|project| project.name.to_string()).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&"old".to_owned()) && names.iter().any(|name| name.starts_with("recovered-")), "{names:?}");
    assert_eq!(scene.orphans(), [""; 0]);
}

/// What someone may ask at any time.
#[derive(Debug, Clone)]
enum Ask {
    Create(usize),
    Start(usize),
    Pause(usize),
    Resume(usize),
    Stop(usize),
    Restart(usize),
    Remove(usize),
    Label(usize),
    Die,
    Import(usize),
    Break(&'static str),
    Mend,
}

const NAMES: [&str; 3] = ["a", "b", "c"];

fn asks() -> impl Strategy<Value = Vec<Ask>> {
    let name = 0..NAMES.len();
    let breakable = prop::sample::select(vec![
        "create_disk",
        "lease",
        "start",
        "freeze",
        "thaw",
        "destroy",
        "release",
        "remove_disk",
    ]);
    let ask = prop_oneof![
        4 => name.clone().prop_map(Ask::Create),
        4 => name.clone().prop_map(Ask::Start),
        3 => name.clone().prop_map(Ask::Pause),
        2 => name.clone().prop_map(Ask::Resume),
        3 => name.clone().prop_map(Ask::Stop),
        1 => name.clone().prop_map(Ask::Restart),
        3 => name.clone().prop_map(Ask::Remove),
        1 => name.clone().prop_map(Ask::Label),
        1 => Just(Ask::Die),
        1 => name.prop_map(Ask::Import),
        1 => breakable.prop_map(Ask::Break),
        2 => Just(Ask::Mend),
    ];
    prop::collection::vec(ask, 1..24)
}

async fn put(scene: Arc<Scene>, ask: Ask) {
    let engine = &scene.engine;
    let zero = Some(Duration::ZERO);
    // Refusals are fine; what must hold is looked at in the end.
    match ask {
        Ask::Create(i) => drop(scene.create(NAMES[i]).await),
        Ask::Start(i) => drop(engine.start(&named(NAMES[i])).await),
        Ask::Pause(i) => drop(engine.pause(&named(NAMES[i])).await),
        Ask::Resume(i) => drop(engine.resume(&named(NAMES[i])).await),
        Ask::Stop(i) => drop(engine.stop(&named(NAMES[i]), zero).await),
        Ask::Restart(i) => drop(engine.restart(&named(NAMES[i]), zero).await),
        Ask::Remove(i) => drop(engine.remove(&named(NAMES[i])).await),
        Ask::Label(i) => {
            let change = |spec: &ProjectSpec| ProjectSpec { labels: [("k".into(), "v".into())].into(), ..spec.clone() };
            drop(engine.change(&named(NAMES[i]), change).await);
        }
        Ask::Die => {
            scene.host.change(|world| world.sandboxes.pop_first());
        }
        Ask::Import(i) => {
            drop(engine.import(NAMES[i].parse().expect("name"), ImageFormat::Tar, std::io::empty()).await);
        }
        Ask::Break(what) => drop(scene.host.change(|world| world.broken.insert(what.to_owned()))),
        Ask::Mend => scene.host.change(|world| world.broken.clear()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Everything at once, in any order, with anything failing: nothing impossible is asked of the
    /// host, and once all is mended and the daemon restarted, nothing is left over.
    #[test]
    fn whatever_is_asked_at_once_host_and_store_agree(asks in asks()) {
        let dir = tempfile::tempdir().expect("dir");
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
        runtime.block_on(async {
            let scene = Arc::new(Scene::open(dir.path()).await.expect("open"));
            let asked: Vec<_> = asks.into_iter().map(|ask| tokio::spawn(put(Arc::clone(&scene), ask))).collect();
            for ask in asked {
                tokio::time::timeout(Duration::from_secs(120), ask).await.expect("no ask hangs").expect("no ask panics");
            }
            scene.host.change(|world| world.broken.clear());
            assert_eq!(scene.host.look().impossible, [""; 0]);
            scene.engine.clone().close().await.expect("close");
            drop(scene);
            let scene = Scene::open(dir.path()).await.expect("open");
            assert_eq!(scene.orphans(), [""; 0]);
        });
    }
}
