//! The daemon dies at every named step of every operation; the next one finds a host that makes sense.

use std::os::unix::process::ExitStatusExt as _;
use std::time::{Duration, Instant};

use garth_api::{ClientError, CreateProject, ImageFormat, LimitsPatch, Project, ProjectPatch, StopRequest, full_body};
use garth_server::FAULT_POINTS;
use garth_spec::{ByteSize, ProjectState};

use crate::daemon::{Yard, named, skip};
use crate::process::{health, run};

/// signal(7): SIGABRT.
const ABORT: i32 = 6;

/// A root filesystem of one file.
fn small_tar() -> Vec<u8> {
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join("file"), "content").expect("write");
    let tar = std::process::Command::new("tar").arg("-C").arg(dir.path()).args(["-c", "."]).output().expect("tar");
    tar.stdout
}

/// Comes past every step, until the daemon dies.
async fn everything(yard: &Yard) -> Result<(), ClientError> {
    let client = &yard.client;
    let now = StopRequest { grace_ms: Some(100) };
    client.create(&yard.project("kept")).await?;
    run(client, &named("kept"), &["sh", "-c", "echo kept > /root/f; sync"]).await?;
    client.pause(&named("kept")).await?;
    client.resume(&named("kept")).await?;
    client.create(&yard.project("stopped")).await?;
    client.start(&named("stopped")).await?;
    let limits = LimitsPatch { disk: Some(ByteSize::mib(300)), pids: Some(99), ..LimitsPatch::default() };
    client.patch(&named("stopped"), &ProjectPatch { limits: Some(limits), ..ProjectPatch::default() }).await?;
    client.stop(&named("stopped"), &now).await?;
    client.create(&yard.project("removed")).await?;
    client.start(&named("removed")).await?;
    client.remove(&named("removed")).await?;
    client.create(&CreateProject { ephemeral: true, ..yard.project("brief") }).await?;
    let _held = client.hold(&named("brief")).await?;
    client.start(&named("brief")).await?;
    for name in ["one", "two"] {
        client.import(&name.parse().expect("name"), ImageFormat::Tar, full_body(small_tar())).await?;
    }
    client.remove_image(&"two".parse().expect("name")).await?;
    // A plan that fails inside: the working directory of the disk's overlay is gone.
    client.create(&yard.project("broken")).await?;
    break_disk(yard, "broken").await?;
    let _ = client.start(&named("broken")).await?;
    Ok(())
}

/// Takes what a start needs from a disk.
async fn break_disk(yard: &Yard, name: &str) -> Result<(), ClientError> {
    let id = yard.client.project(&named(name)).await?.id.to_string();
    let disk = yard.path().join("pool/disks").join(id);
    std::fs::rename(disk.join("state"), disk.join("no-state")).expect("a disk has a state directory");
    Ok(())
}

#[tokio::test]
async fn a_daemon_killed_at_any_step_leaves_a_host_that_makes_sense() {
    if skip("a_daemon_killed_at_any_step_leaves_a_host_that_makes_sense") {
        return;
    }
    for fault in FAULT_POINTS {
        let yard = Yard::new();
        let mut daemon = yard.spawn(fault);
        while yard.client.version().await.is_err() && daemon.0.try_wait().expect("wait").is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let outcome = everything(&yard).await;
        let broken = matches!(outcome, Err(ClientError::Broken { .. } | ClientError::Unreachable { .. }));
        assert!(broken, "the daemon did not die at {fault}: {outcome:?}\n{}", yard.log());
        let status = daemon.wait();
        assert_eq!(status.signal(), Some(ABORT), "nothing came past {fault}: {outcome:?}\n{}", yard.log());
        settle(&yard, fault).await;
    }
}

async fn settle(yard: &Yard, fault: &str) {
    let daemon = yard.start().await;
    // What nobody holds goes by itself.
    let stays = |project: &Project| !project.ephemeral;
    for project in yard.client.projects().await.expect("projects").projects.into_iter().filter(stays) {
        let ok = match project.state {
            ProjectState::Stopped => true,
            ProjectState::Running | ProjectState::Paused => {
                yard.client.agent(&project.name, health()).await.is_ok_and(|answer| answer.status().is_success())
            }
            _ => false,
        };
        assert!(ok, "after {fault} {project:?}\n{}", yard.log());
        if project.name.as_str() == "kept" && project.started_at.is_some() {
            let kept = run(&yard.client, &project.name, &["cat", "/root/f"]).await;
            assert!(matches!(&kept, Ok((0 | 1, _))), "after {fault} {kept:?}\n{}", yard.log());
        }
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let disks = std::fs::read_dir(yard.path().join("pool/disks")).expect("disks").count();
        let projects = yard.client.projects().await.expect("projects").projects.len();
        if disks == projects {
            break;
        }
        assert!(Instant::now() < deadline, "after {fault}: {disks} disks of {projects} projects");
    }
    let images = std::fs::read_dir(yard.path().join("pool/images")).expect("images").count();
    let known = yard.client.images().await.expect("images").images;
    assert_eq!(images, known.iter().filter(|image| image.id.is_some()).count(), "after {fault}: images");
    let drafts = std::fs::read_dir(yard.path().join("pool/drafts")).expect("drafts").count();
    assert_eq!(drafts, 0, "after {fault}: drafts");
    assert_eq!(yard.clear(daemon).await, [""; 0], "after {fault}");
}
