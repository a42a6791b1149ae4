use std::process::Command;
use std::time::Duration;

use garth_api::{ClientError, CreateProject, EndedReason, ErrorCode, LimitsPatch, ProjectPatch, StopRequest};
use garth_spec::{ByteSize, Handler, ImageName, Network, ProjectSpec, ProjectState, Runtime};

use crate::daemon::{Yard, named, skip};
use crate::process::{health, run};

#[tokio::test]
async fn files_stay_and_sandboxes_survive_the_daemon() {
    if skip("files_stay_and_sandboxes_survive_the_daemon") {
        return;
    }
    let yard = Yard::new();
    let (web, client) = (named("web"), &yard.client);
    let daemon = yard.start().await;
    yard.create("web").await;
    let (code, out) = run(client, &web, &["sh", "-c", "echo kept > /root/f; hostname"]).await.expect("exec starts it");
    assert_eq!((code, out.as_str()), (0, "web"), "{}", yard.log());
    let first = client.project(&web).await.expect("inspect");
    assert_eq!(
        (first.runtime.effective, first.runtime.handler),
        (Some(Runtime::Default), Some(Handler::DefaultNative))
    );
    assert!(first.usage.as_ref().is_some_and(|usage| usage.memory > 0 && usage.pids > 0), "{first:?}");
    assert!(first.disk.is_some() && first.addresses.is_some() && first.pid.is_some(), "{first:?}");
    daemon.kill();
    let daemon = yard.start().await;
    let second = client.project(&web).await.expect("inspect");
    assert_eq!((first.sandbox_id, first.pid), (second.sandbox_id, second.pid), "{}", yard.log());
    assert_eq!(run(client, &web, &["cat", "/root/f"]).await.expect("exec"), (0, "kept".to_owned()));
    let stopped = client.stop(&web, &StopRequest::default()).await.expect("stop");
    assert_eq!(stopped.ended.map(|ended| ended.reason), Some(EndedReason::Stopped));
    assert_eq!(run(client, &web, &["cat", "/root/f"]).await.expect("exec"), (0, "kept".to_owned()));
    assert!(daemon.terminate().success());
    let daemon = yard.start().await;
    assert_eq!(client.project(&web).await.expect("inspect").state, ProjectState::Running, "{}", yard.log());
    assert_eq!(yard.clear(daemon).await, [""; 0]);
}

#[tokio::test]
async fn a_sandbox_that_is_killed_is_a_stopped_project() {
    if skip("a_sandbox_that_is_killed_is_a_stopped_project") {
        return;
    }
    let yard = Yard::new();
    let daemon = yard.start().await;
    yard.create("web").await;
    let pid = yard.client.start(&named("web")).await.expect("start").pid.expect("a pid");
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
    let project = loop {
        let project = yard.client.project(&named("web")).await.expect("inspect");
        if project.state == ProjectState::Stopped {
            break project;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!(project.ended.map(|ended| ended.reason), Some(EndedReason::Died));
    let answer = yard.client.agent(&named("web"), health()).await.expect("a new one is started");
    assert!(answer.status().is_success());
    assert_eq!(yard.clear(daemon).await, [""; 0]);
}

#[tokio::test]
async fn limits_change_on_a_running_sandbox_or_say_why_not() {
    if skip("limits_change_on_a_running_sandbox_or_say_why_not") {
        return;
    }
    let yard = Yard::new();
    let daemon = yard.start().await;
    yard.create("web").await;
    let web = named("web");
    let write = "head -c 60M /dev/urandom > /root/big && sync";
    assert_eq!(run(&yard.client, &web, &["sh", "-c", write]).await.expect("exec").0, 0);
    let limits = |limits| ProjectPatch { limits: Some(limits), ..ProjectPatch::default() };
    let larger = LimitsPatch { memory: Some(ByteSize::mib(300)), pids: Some(200), ..LimitsPatch::default() };
    let changed = yard.client.patch(&web, &limits(larger)).await.expect("larger");
    assert_eq!((changed.at_next_start.len(), changed.project.spec.limits.pids), (0, 200));
    let disk = LimitsPatch { disk: Some(ByteSize::mib(20)), ..LimitsPatch::default() };
    match yard.client.patch(&web, &limits(disk)).await {
        Err(ClientError::Refused(error)) => assert_eq!(error.code, ErrorCode::LimitRefused, "{error}"),
        // Without quotas there is nothing to refuse.
        other => assert!(yard.log().contains("overlay"), "{other:?}"),
    }
    // Held by a process, so that the kernel cannot make room by forgetting files.
    let hold = ["python3", "-c", "x = bytearray(120 << 20); import os; os.write(1, b'.'); os.read(0, 1); input()"];
    let held = yard.client.agent(&web, crate::process::start(&serde_json::json!({ "argv": hold, "stdin": true })));
    let mut held = held.await.expect("start").into_body();
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\"output\"") {
        use http_body_util::BodyExt as _;
        seen.extend_from_slice(held.frame().await.expect("a frame").expect("no error").data_ref().expect("data"));
    }
    let small = LimitsPatch { memory: Some(ByteSize::mib(32)), ..LimitsPatch::default() };
    match yard.client.patch(&web, &limits(small)).await {
        Err(ClientError::Refused(error)) => assert_eq!(error.code, ErrorCode::LimitRefused, "{error}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(yard.client.project(&web).await.expect("inspect").spec.limits.memory, ByteSize::mib(300));
    drop(held);
    assert_eq!(yard.clear(daemon).await, [""; 0]);
}

#[tokio::test]
async fn an_imported_image_is_what_a_project_begins_as() {
    if skip("an_imported_image_is_what_a_project_begins_as") {
        return;
    }
    let yard = Yard::new();
    let daemon = yard.start().await;
    let root = yard.path().join("root");
    for dir in ["bin", "etc", "proc", "sys", "dev", "run", "tmp", "root"] {
        std::fs::create_dir_all(root.join(dir)).expect("mkdir");
    }
    // The agent's own binary is a static program that is there anyway.
    std::fs::write(root.join("bin/tool"), garth_agent_binary::AGENT).expect("write");
    std::fs::write(root.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").expect("write");
    let tar = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().expect("tar");
    std::fs::remove_dir_all(&root).expect("remove");
    let name: ImageName = "mine:1".parse().expect("name");
    let body = garth_api::full_body(tar.stdout);
    let image = yard.client.import(&name, garth_api::ImageFormat::Auto, body).await.expect("import");
    assert!(image.size.is_some_and(|size| size > 100_000), "{image:?}");
    let again = yard.client.import(&name, garth_api::ImageFormat::Tar, garth_api::full_body("")).await;
    assert!(matches!(again, Err(ClientError::Refused(error)) if error.code == ErrorCode::AlreadyExists));
    let bad: ImageName = "bad".parse().expect("name");
    let truncated = yard.client.import(&bad, garth_api::ImageFormat::Tar, garth_api::full_body(vec![1; 700])).await;
    assert!(matches!(truncated, Err(ClientError::Refused(error)) if error.code == ErrorCode::ImageRefused));
    let spec = ProjectSpec { image: name.clone(), network: Network::None, ..ProjectSpec::default() };
    let new = CreateProject { name: Some(named("mine")), spec: spec.into(), ..CreateProject::default() };
    let project = yard.client.create(&new).await.expect("create");
    assert_eq!(project.image_id, image.id);
    let running = yard.client.start(&named("mine")).await.expect("start");
    assert_eq!(running.addresses, None);
    daemon.kill();
    let daemon = yard.start().await;
    assert_eq!(yard.client.images().await.expect("images").images.len(), 2, "{}", yard.log());
    yard.client.remove(&named("mine")).await.expect("remove");
    yard.client.remove_image(&name).await.expect("remove image");
    assert_eq!(yard.clear(daemon).await, [""; 0]);
}

#[tokio::test]
async fn a_reboot_brings_projects_back_as_stopped_with_their_files() {
    if skip("a_reboot_brings_projects_back_as_stopped_with_their_files") {
        return;
    }
    let yard = Yard::new();
    let daemon = yard.start().await;
    let web = named("web");
    yard.create("web").await;
    assert_eq!(run(&yard.client, &web, &["sh", "-c", "echo kept > /root/f; sync"]).await.expect("exec").0, 0);
    let pid = yard.client.project(&web).await.expect("inspect").pid.and_then(rustix::process::Pid::from_raw);
    daemon.kill();
    let pid = pid.expect("a pid");
    let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).expect("pidfd");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
    rustix::event::poll(&mut [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)], None).expect("poll");
    // The kernel takes the mounts of a dead sandbox away a moment after its last process.
    let pool = yard.path().join("pool");
    let mounted = || std::fs::read_to_string("/proc/self/mountinfo").is_ok_and(|m| m.contains(pool.to_str().unwrap()));
    while mounted() && !Command::new("umount").arg(&pool).status().expect("umount").success() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let daemon = yard.start().await;
    let project = yard.client.project(&web).await.expect("inspect");
    assert_eq!((project.state, project.ended.map(|e| e.reason)), (ProjectState::Stopped, Some(EndedReason::Lost)));
    assert_eq!(run(&yard.client, &web, &["cat", "/root/f"]).await.expect("exec"), (0, "kept".to_owned()));
    assert_eq!(yard.clear(daemon).await, [""; 0]);
}

#[tokio::test]
async fn a_damaged_store_stops_the_daemon_with_what_to_do() {
    if skip("a_damaged_store_stops_the_daemon_with_what_to_do") {
        return;
    }
    let yard = Yard::new();
    let daemon = yard.start().await;
    yard.create("web").await;
    assert!(daemon.terminate().success());
    let store = yard.path().join("store.db");
    std::fs::write(&store, b"not a database at all").expect("damage");
    let status = yard.spawn("").wait();
    assert!(!status.success());
    let log = yard.log();
    assert!(log.contains("store_failed") && log.contains("store.db.bak"), "{log}");
    assert_eq!(std::fs::read(&store).expect("read"), b"not a database at all");
}
