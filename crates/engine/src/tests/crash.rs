//! The daemon dies, at every named step, in a process of its own; what the next one finds is looked at.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use garth_spec::{ByteSize, Limits, ProjectSpec};
use tokio::runtime::Builder;

use super::scene::{Scene, named};
use crate::FAULT_POINTS;
use crate::engine::NewProject;
use crate::images::ImageFormat;

/// signal(7): SIGABRT.
const ABORT: i32 = 6;

/// Set for the process that is to die.
const DIR: &str = "GARTH_TEST_DIR";

/// Comes past every step of every operation.
async fn everything(dir: &Path) {
    let scene = Scene::open(dir).await.expect("open");
    let engine = &scene.engine;
    let brief = Some(Duration::from_millis(1));
    scene.create("kept").await.expect("create");
    engine.start(&named("kept")).await.expect("start");
    engine.pause(&named("kept")).await.expect("pause");
    engine.resume(&named("kept")).await.expect("resume");
    scene.create("stopped").await.expect("create");
    engine.start(&named("stopped")).await.expect("start");
    let smaller = |spec: &ProjectSpec| {
        let limits = Limits { disk: ByteSize::mib(64), pids: 99, ..spec.limits };
        ProjectSpec { limits, ..spec.clone() }
    };
    engine.change(&named("stopped"), smaller).await.expect("change");
    engine.stop(&named("stopped"), brief).await.expect("stop");
    scene.create("removed").await.expect("create");
    engine.start(&named("removed")).await.expect("start");
    engine.remove(&named("removed")).await.expect("remove");
    scene.create("broken").await.expect("create");
    scene.host.change(|world| world.broken.insert("start".to_owned()));
    engine.start(&named("broken")).await.expect_err("broken");
    scene.host.change(|world| world.broken.clear());
    let new = NewProject { name: Some(named("brief")), ephemeral: true, ..NewProject::default() };
    engine.create(new).await.expect("create");
    engine.start(&named("brief")).await.expect("start");
    for image in ["debian", "alpine"] {
        let name = image.parse().expect("name");
        engine.import(name, ImageFormat::Tar, std::io::empty()).await.expect("import");
    }
    engine.remove_image("alpine".parse().expect("name")).await.expect("remove image");
}

/// Several projects at once, round and round.
async fn work_for_ever(dir: &Path) {
    let scene = Arc::new(Scene::open(dir).await.expect("open"));
    let rounds = ["a", "b", "c", "d"].map(|name| {
        let scene = Arc::clone(&scene);
        tokio::spawn(async move {
            let name = named(name);
            loop {
                // What an earlier daemon left may be in the way; it is removed in the end.
                let _ = scene.create(name.as_str()).await;
                scene.engine.start(&name).await.expect("start");
                scene.engine.pause(&name).await.expect("pause");
                scene.engine.restart(&name, Some(Duration::ZERO)).await.expect("restart");
                scene.engine.stop(&name, Some(Duration::from_millis(1))).await.expect("stop");
                scene.engine.remove(&name).await.expect("remove");
            }
        })
    });
    let [one, _others @ ..] = rounds;
    one.await.expect("for ever");
}

fn run(dir: &Path, fault: &str) -> Output {
    Command::new(std::env::current_exe().expect("this test"))
        .args(["--exact", "--ignored", "--nocapture", "tests::crash::daemon_that_dies"])
        .env(DIR, dir)
        .env("GARTH_FAULT", fault)
        .output()
        .expect("run")
}

#[test]
#[ignore = "run by the other tests here, with a step to die at"]
fn daemon_that_dies() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("runtime");
    match std::env::var_os("GARTH_FAULT") {
        Some(_) => runtime.block_on(everything(Path::new(&dir))),
        None => runtime.block_on(work_for_ever(Path::new(&dir))),
    }
}

#[track_caller]
fn nothing_is_left_over(dir: &Path, fault: &str) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
    runtime.block_on(async {
        let scene = Scene::open(dir).await.expect("open");
        scene.host.change(|world| world.broken.clear());
        assert_eq!(scene.orphans(), [""; 0], "killed at {fault}");
        let running = scene.engine.list().iter().filter(|project| project.sandbox.is_some()).count();
        assert_eq!(scene.host.look().sandboxes.len(), running, "killed at {fault}");
        // And the names are good for work again.
        for name in ["kept", "stopped", "removed", "broken"] {
            if scene.state(name).is_none() {
                scene.create(name).await.expect("create");
            }
            scene.engine.start(&named(name)).await.expect("start");
            scene.engine.remove(&named(name)).await.expect("remove");
        }
        assert_eq!(scene.orphans(), [""; 0], "after work on what was killed at {fault}");
    });
}

#[test]
fn a_daemon_killed_at_any_step_leaves_nothing_over() {
    for fault in FAULT_POINTS {
        let dir = tempfile::tempdir().expect("dir");
        let output = run(dir.path(), fault);
        assert_eq!(output.status.signal(), Some(ABORT), "nothing comes past the step {fault}");
        nothing_is_left_over(dir.path(), fault);
    }
}

#[test]
fn a_daemon_killed_while_it_mends_leaves_nothing_over() {
    for first in ["start.started", "create.disk_made", "remove.recorded", "import.filled", "stop.destroyed"] {
        for second in FAULT_POINTS.iter().filter(|point| point.starts_with("reconcile.")) {
            let dir = tempfile::tempdir().expect("dir");
            assert_eq!(run(dir.path(), first).status.signal(), Some(ABORT), "nothing comes past {first}");
            assert_eq!(run(dir.path(), second).status.signal(), Some(ABORT), "nothing comes past {second}");
            nothing_is_left_over(dir.path(), &format!("{first}, then {second}"));
        }
    }
}

#[test]
fn a_daemon_killed_at_any_moment_leaves_nothing_over() {
    let dir = tempfile::tempdir().expect("dir");
    let args = ["--exact", "--ignored", "--nocapture", "tests::crash::daemon_that_dies"];
    for moment in 0..20 {
        let mut daemon = Command::new(std::env::current_exe().expect("this test"));
        let mut daemon = daemon.args(args).env(DIR, dir.path()).env_remove("GARTH_FAULT").spawn().expect("run");
        // Not a wait for something, but the choice of a moment.
        std::thread::sleep(Duration::from_micros(10_000 + moment * 2_777));
        daemon.kill().expect("kill");
        assert_eq!(daemon.wait().expect("wait").signal(), Some(9), "it ended before it was killed");
        let runtime = Builder::new_current_thread().enable_all().build().expect("runtime");
        let scene = runtime.block_on(Scene::open(dir.path())).expect("open");
        assert_eq!(scene.orphans(), [""; 0], "moment {moment}");
    }
}
