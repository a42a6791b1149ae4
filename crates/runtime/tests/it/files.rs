//! What a start writes to the disk, and disks that lie.
use std::os::unix::fs::symlink;

use garth_runtime::{Durability, ErrorKind, Root, SandboxPlan};

use crate::support::{Yard, chain, fresh_id, sh};
use crate::yard;

#[test]
fn names_are_in_etc_and_files_stay() {
    let yard = yard!();
    std::fs::write(yard.disk().join("etc/hosts"), "10.0.0.9 db\n").expect("hosts");
    let mut plan = yard.plan();
    plan.resolv_conf = Some("nameserver 10.9.8.7\n".to_owned());
    plan.hosts = vec![("10.1.1.1".parse().expect("address"), "cache".to_owned())];
    for round in 0..2 {
        let sandbox = yard.start_with(&plan);
        assert_eq!(sh(&sandbox, "cat /etc/hostname /etc/resolv.conf").out, "yard\nnameserver 10.9.8.7\n");
        let hosts = "10.0.0.9 db\n127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\tyard\n10.1.1.1\tcache\n";
        assert_eq!(sh(&sandbox, "cat /etc/hosts").out, hosts, "round {round}");
        sh(&sandbox, "echo kept >> /root/f; echo kept >> /usr/f");
        sandbox.destroy().expect("destroy");
    }
    let sandbox = yard.start_with(&plan);
    assert_eq!(sh(&sandbox, "cat /root/f /usr/f").out, "kept\n".repeat(4));
    assert!(!std::path::Path::new("/usr/f").exists());
    sandbox.destroy().expect("destroy");
}

#[test]
fn programs_of_the_host_can_be_removed_inside_alone() {
    let yard = yard!();
    let sandbox = yard.start();
    let script =
        "rm /usr/bin/od && ! test -e /usr/bin/od && mv /usr/share/doc /usr/share/papers && echo x > /usr/bin/od";
    assert_eq!(sh(&sandbox, script).code, 0);
    assert!(std::path::Path::new("/usr/bin/od").exists() && std::path::Path::new("/usr/share/doc").exists());
    sandbox.destroy().expect("destroy");
}

#[test]
fn a_link_to_the_hosts_etc_is_not_followed() {
    let yard = yard!();
    let secret = yard.dir.path().join("secret");
    symlink(&secret, yard.disk().join("etc/resolv.conf")).expect("link");
    symlink("/etc/../../../../../../proc/sys/kernel/panic", yard.disk().join("etc/hostname")).expect("link");
    let mut plan = yard.plan();
    plan.resolv_conf = Some("nameserver 10.9.8.7\n".to_owned());
    let sandbox = yard.start_with(&plan);
    assert_eq!(sh(&sandbox, "cat /etc/resolv.conf").out, "nameserver 10.9.8.7\n");
    assert_eq!(std::fs::read_to_string(secret).expect("secret"), "of the host");
    sandbox.destroy().expect("destroy");
}

#[test]
fn a_fifo_in_etc_does_not_hang_the_start() {
    let yard = yard!();
    let status = std::process::Command::new("mkfifo").arg(yard.disk().join("etc/hosts")).status();
    assert!(status.expect("mkfifo").success());
    let sandbox = yard.start();
    assert!(sh(&sandbox, "cat /etc/hosts").out.contains("yard"));
    sandbox.destroy().expect("destroy");
}

/// The start fails, says where, and leaves nothing; the next start works.
#[track_caller]
fn refused(yard: &Yard, plan: &SandboxPlan, step: &str) {
    let error = yard.sandboxes().start(fresh_id(), plan, None).expect_err("must not start");
    assert!(chain(&error).contains(step), "{}", chain(&error));
    let left: Vec<_> = std::fs::read_dir(yard.dir.path().join("run")).expect("run dir").flatten().collect();
    assert!(left.iter().all(|entry| entry.file_name().to_string_lossy().starts_with(".warm-")), "{left:?}");
}

#[test]
fn mount_points_that_are_links_are_refused() {
    for name in ["proc", "sys", "dev", "run", "usr"] {
        let yard = yard!();
        let _ = std::fs::remove_dir(yard.disk().join(name));
        symlink("/etc", yard.disk().join(name)).expect("link");
        refused(&yard, &yard.plan(), name);
    }
}

#[test]
fn a_disk_that_is_missing_is_named() {
    let yard = yard!();
    let plan = SandboxPlan { root: Root::Directory("/no/such/disk".into()), ..yard.plan() };
    refused(&yard, &plan, "/no/such/disk");
    let sandbox = yard.start();
    sandbox.destroy().expect("destroy");
}

#[test]
fn two_sandboxes_never_write_to_one_layer() {
    let yard = yard!();
    let sandbox = yard.start();
    let error = yard.sandboxes().start(fresh_id(), &yard.plan(), None).expect_err("the layer is used");
    assert!(matches!(error.kind, ErrorKind::Exists), "{error:?}");
    sandbox.destroy().expect("destroy");
    // At once again: this waits for the end of the last mount.
    yard.start().destroy().expect("destroy");
}

#[test]
fn a_disk_that_is_to_be_discarded_can_be_started_again() {
    let yard = yard!();
    let plan = SandboxPlan { durability: Durability::Discarded, ..yard.plan() };
    for _ in 0..2 {
        let sandbox = yard.start_with(&plan);
        assert_eq!(sh(&sandbox, "echo x > /usr/g && cat /usr/g").out, "x\n");
        sandbox.destroy().expect("destroy");
    }
}
