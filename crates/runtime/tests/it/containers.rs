//! The bundle that Sysbox is given, run by the machine's `runc`: what does not depend on Sysbox's own parts.
use std::os::unix::fs::symlink;
use std::path::Path;

use garth_runtime::{Container, ErrorKind, InvalidPlan, OciRuntime};
use garth_spec::{ByteSize, CpuCount, Limits};

use crate::lifecycle::left;
use crate::support::{Reply, Yard, chain, fresh_id, run_at, skip};

/// A yard whose OCI runtime is `runc`, or `None` (said loudly).
fn yard(test: &str) -> Option<Yard> {
    let runc = OciRuntime { program: "runc".into(), sockets: Vec::new() };
    let missing = runc.probe().into_iter().find(|finding| !finding.ok).map(|finding| finding.detail);
    match (missing, Yard::new()) {
        (None, Ok(yard)) => Some(yard),
        (Some(missing), _) | (None, Err(missing)) => {
            skip(test, &missing);
            None
        }
    }
}

fn start(yard: &Yard) -> Container {
    yard.start_container(fresh_id(), &yard.plan())
}

/// One with another layer over /usr, as two sandboxes write to none.
fn start_another(yard: &Yard) -> Container {
    let mut plan = yard.plan();
    let (upper, work) = (yard.dir.path().join("upper-2"), yard.dir.path().join("work-2"));
    for dir in [&upper, &work] {
        std::fs::create_dir(dir).expect("dir");
    }
    plan.usr = plan.usr.map(|usr| garth_runtime::Overlay { upper, work, ..usr });
    yard.start_container(fresh_id(), &plan)
}

fn sh(container: &Container, script: &str) -> Reply {
    run_at(&container.agent_socket(), &["/bin/sh", "-c", script])
}

fn out(container: &Container, script: &str) -> String {
    let reply = sh(container, script);
    assert_eq!(reply.code, 0, "{script}\n{}", reply.err);
    reply.out.trim().to_owned()
}

/// Where a runtime keeps containers, and where their disks go.
fn traces(yard: &Yard) -> Vec<String> {
    let mark = format!("garth-{}", yard.tag);
    let attached = std::fs::read_dir("/run/garth/oci").into_iter().flatten().flatten();
    let attached = attached.map(|entry| entry.path().display().to_string()).filter(|path| path.contains(&mark));
    left(yard).into_iter().chain(attached).collect()
}

#[test]
fn the_agent_answers_and_nothing_is_left_in_the_end() {
    let Some(mut yard) = yard("the_agent_answers_and_nothing_is_left_in_the_end") else { return };
    for _ in 0..3 {
        let container = start(&yard);
        assert_eq!(out(&container, "hostname; id -u; cat /etc/hostname"), "yard\n0\nyard");
        assert_eq!(out(&container, "readlink /proc/1/fd/0 /proc/1/fd/2"), "/dev/null\n/dev/null");
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains("/run/garth/oci"), "the disk is mounted on the host: {mounts}");
        container.destroy().expect("destroy");
    }
    yard.close();
    assert_eq!(traces(&yard), Vec::<String>::new());
}

#[test]
fn root_of_a_container_is_an_unprivileged_user_that_no_other_has() {
    let Some(yard) = yard("root_of_a_container_is_an_unprivileged_user_that_no_other_has") else { return };
    let (one, two) = (start(&yard), start_another(&yard));
    let (first, second) = (one.record().first.get(), two.record().first.get());
    assert!(first.abs_diff(second) >= 65_536, "{first} {second}");
    let map = out(&one, "cat /proc/self/uid_map");
    assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", &first.to_string(), "65536"]);
    out(&one, "echo x >/root/file");
    // On the disk it is root's, so that every runtime reads it.
    let file = std::fs::metadata(yard.disk().join("root/file")).expect("file");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&file), 0);
    for container in [one, two] {
        container.destroy().expect("destroy");
    }
}

#[test]
fn limits_are_in_force_and_change_at_once() {
    let Some(yard) = yard("limits_are_in_force_and_change_at_once") else { return };
    let limits = Limits {
        memory: ByteSize::mib(64),
        cpus: "0.5".parse::<CpuCount>().expect("cpus"),
        pids: 40,
        ..Limits::default()
    };
    let container = yard.start_container(fresh_id(), &garth_runtime::SandboxPlan { limits, ..yard.plan() });
    let hog = "import mmap; m = mmap.mmap(-1, 200 << 20); [m.__setitem__(at, 1) for at in range(0, 200 << 20, 4096)]";
    let hog = format!("/usr/bin/python3 -c '{hog}'");
    assert_ne!(sh(&container, &hog).code, 0, "memory without end");
    assert_ne!(
        sh(&container, "for i in $(seq 60); do sleep 1000 >/dev/null 2>&1 & done").code,
        0,
        "processes without end"
    );
    assert!(container.usage().expect("usage").oom_kills > 0);
    let more = Limits { memory: ByteSize::mib(512), pids: 400, ..limits };
    container.set_limits(&more).expect("more");
    assert_eq!(sh(&container, &hog).code, 0, "the new limit");
    out(&container, "mount -t tmpfs none /mnt && head -c 100m /dev/zero >/mnt/file");
    let error = container.set_limits(&limits).expect_err("less than is used");
    assert!(matches!(error.kind, ErrorKind::InUse), "{}", chain(&error));
    container.destroy().expect("destroy");
}

#[test]
fn another_daemon_finds_a_container_and_ends_what_nobody_wants() {
    let Some(mut yard) = yard("another_daemon_finds_a_container_and_ends_what_nobody_wants") else { return };
    let (kept, lost) = (start(&yard), start_another(&yard));
    let (id, record) = (kept.id(), kept.record());
    out(&kept, "echo here >/run/mark");
    drop((kept, lost));
    yard.close();
    yard.open();
    let kept = yard.sandboxes().recover_container(id, &record).expect("recover").expect("it runs");
    let swept = yard.sandboxes().sweep(&[id]).expect("sweep");
    assert_eq!((swept.slots, swept.directories), (1, 1));
    assert_eq!(out(&kept, "cat /run/mark"), "here");
    assert!(kept.usage().expect("usage").memory > 0);
    kept.destroy().expect("destroy");
    assert!(yard.sandboxes().recover_container(id, &record).expect("recover").is_none());
    yard.close();
    assert_eq!(traces(&yard), Vec::<String>::new());
}

/// Sysbox would put a volume of its own there, which goes with the container.
#[test]
fn what_docker_keeps_is_on_the_disk() {
    let Some(yard) = yard("what_docker_keeps_is_on_the_disk") else { return };
    for round in ["one", "two"] {
        let container = start(&yard);
        out(&container, &format!("echo {round} >>/var/lib/docker/images"));
        container.destroy().expect("destroy");
    }
    let images = std::fs::read_to_string(yard.disk().join("var/lib/docker/images")).expect("images");
    assert_eq!(images, "one\ntwo\n");
}

#[test]
fn a_link_on_the_disk_leads_to_nothing_of_the_host() {
    let Some(yard) = yard("a_link_on_the_disk_leads_to_nothing_of_the_host") else { return };
    let target = yard.dir.path().join("of-the-host");
    std::fs::create_dir(&target).expect("dir");
    std::fs::create_dir_all(yard.disk().join("var/lib")).expect("dir");
    symlink(&target, yard.disk().join("var/lib/docker")).expect("link");
    symlink("/", yard.disk().join("var/lib/buildkit")).expect("link");
    let container = start(&yard);
    let secret = yard.dir.path().join("secret");
    for path in
        ["/var/lib/docker".into(), Path::new("/var/lib/buildkit").join(secret.strip_prefix("/").expect("absolute"))]
    {
        assert_ne!(sh(&container, &format!("ls {0}/ || cat {0}", path.display())).code, 0, "{}", path.display());
    }
    container.destroy().expect("destroy");
    assert_eq!(std::fs::read_dir(&target).expect("dir").count(), 0);
}

#[test]
fn a_runtime_that_fails_is_quoted_and_leaves_nothing() {
    let Some(mut yard) = yard("a_runtime_that_fails_is_quoted_and_leaves_nothing") else { return };
    // A file where a mount has to go: runc refuses.
    std::fs::remove_dir(yard.disk().join("tmp")).expect("tmp");
    std::fs::write(yard.disk().join("dev"), "").expect("dev");
    let prepared = yard.sandboxes().prepare_container().expect("prepare");
    let error = prepared.start(fresh_id(), &yard.plan()).expect_err("refused");
    assert!(matches!(&error.kind, ErrorKind::OciRuntime { said, .. } if said.contains("/dev")), "{}", chain(&error));
    yard.close();
    assert_eq!(traces(&yard), Vec::<String>::new());
}

#[test]
fn what_a_container_cannot_have_is_refused_before_anything_is_made() {
    let Some(mut yard) = yard("what_a_container_cannot_have_is_refused_before_anything_is_made") else { return };
    let volume = garth_runtime::Volume { host: "/srv".into(), at: "/data".to_owned(), read_only: true };
    let plans = [
        garth_runtime::SandboxPlan { volumes: vec![volume], ..yard.plan() },
        garth_runtime::SandboxPlan { access: garth_runtime::Access::Read, ..yard.plan() },
        garth_runtime::SandboxPlan { capabilities: Some(1), ..yard.plan() },
    ];
    for plan in plans {
        let prepared = yard.sandboxes().prepare_container().expect("prepare");
        let error = prepared.start(fresh_id(), &plan).expect_err("refused");
        let refused = matches!(error.kind, ErrorKind::Plan(InvalidPlan::NotInContainer(_)));
        assert!(refused && chain(&error).contains("sysbox/native"), "{}", chain(&error));
    }
    yard.close();
    assert_eq!(traces(&yard), Vec::<String>::new());
}

#[test]
fn an_init_of_the_image_is_process_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let Some(yard) = yard("an_init_of_the_image_is_process_one") else { return };
    let init = yard.disk().join("root/init");
    std::fs::write(&init, "#!/bin/sh\nexec sleep 1000\n").expect("init");
    std::fs::set_permissions(&init, std::fs::Permissions::from_mode(0o755)).expect("mode");
    let mut plan = yard.plan();
    plan.agent.init = Some("/root/init".to_owned());
    let container = yard.start_container(fresh_id(), &plan);
    // It becomes the script, and the script becomes sleep.
    let became = (0..500).any(|_| out(&container, "cat /proc/1/comm") == "sleep");
    assert!(became, "process 1 is {}", out(&container, "cat /proc/1/comm"));
    container.destroy().expect("destroy");
}

/// The newer calls would get around what Sysbox does at `mount`.
#[test]
fn mounts_go_by_the_calls_that_sysbox_looks_at() {
    let Some(yard) = yard("mounts_go_by_the_calls_that_sysbox_looks_at") else { return };
    let container = start(&yard);
    let call = |number: u32| {
        out(
            &container,
            &format!(
                "/usr/bin/python3 -c 'import ctypes, os; l = ctypes.CDLL(None, use_errno=True); l.syscall({number}, -1, 0, 0, 0, 0); print(os.strerror(ctypes.get_errno()))'"
            ),
        )
    };
    // open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr: x86-64 and arm64 have the same numbers.
    for number in [428, 429, 430, 431, 432, 433, 442] {
        assert_eq!(call(number), "Function not implemented", "call {number}");
    }
    assert_eq!(out(&container, "mount -t tmpfs none /mnt && echo mounted"), "mounted");
    container.destroy().expect("destroy");
}
