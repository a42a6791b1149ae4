use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use super::plan::{Entry, Mask, Plan};
use crate::error::ErrorKind;

fn machine() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    for path in [
        "etc/ssl/certs",
        "etc/ssl/private",
        "etc/apt",
        "etc/containers",
        "etc/python3",
        "usr/bin",
        "usr/local/etc",
        "usr/local/bin",
    ] {
        fs::create_dir_all(root.join(path)).unwrap();
    }
    for name in ["bin", "sbin", "lib"] {
        symlink(format!("usr/{name}"), root.join(name)).unwrap();
    }
    let put = |path: &str, mode: u32, content: &str| {
        fs::write(root.join(path), content).unwrap();
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    };
    put(
        "etc/passwd",
        0o644,
        "root:x:0:0:Ann Owner:/root:/bin/zsh\nwww:x:33:33:w:/var/www:/bin/false\nann:x:1001:1001::/home/ann:/bin/sh\n",
    );
    put("etc/group", 0o644, "root:x:0:\nwww:x:33:ann\nann:x:1001:\n");
    put("etc/shadow", 0o640, "root:$6$secret:1::::::\n");
    put("etc/ssl/certs/ca.pem", 0o644, "-----BEGIN CERTIFICATE-----\n");
    put("etc/ssl/certs/bad.pem", 0o644, "-----BEGIN PRIVATE KEY-----\n");
    put("etc/ssl/private/host.key", 0o600, "k");
    put("etc/containers/policy.json", 0o644, "{\"default\": [{\"type\": \"insecureAcceptAnything\"}]}\n");
    put("etc/containers/registries.conf", 0o644, "location = \"registry.internal.example\"\n");
    put("etc/apt/auth.conf", 0o644, "password p");
    put("etc/pip.conf", 0o644, "index-url = https://u:p@x/");
    put("etc/python3/debian_config", 0o644, "[DEFAULT]\n");
    put("etc/python3/index", 0o644, "url=https://user:token@pypi.example/simple\n");
    put("etc/python3/hidden", 0o600, "x");
    put("usr/local/etc/npmrc", 0o644, "_authToken=x");
    put("usr/local/bin/tool", 0o755, "#!/bin/sh\n");
    put("usr/local/bin/private", 0o750, "#!/bin/sh\n");
    dir
}

#[test]
fn the_image_has_none_of_the_machines_secrets() {
    let machine = machine();
    let plan = Plan::read(machine.path()).unwrap();
    for path in [
        "etc/apt",
        "etc/containers/registries.conf",
        "etc/pip.conf",
        "etc/ssl/private/host.key",
        "etc/ssl/certs/bad.pem",
        "etc/python3/index",
        "etc/python3/hidden",
    ] {
        assert!(!plan.root.contains_key(Path::new(path)), "{path}");
    }
    for path in ["etc/ssl/certs/ca.pem", "etc/python3/debian_config", "etc/containers/policy.json", "bin"] {
        assert!(plan.root.contains_key(Path::new(path)), "{path}");
    }
}

#[test]
fn accounts_are_locked_and_people_are_left_out() {
    let machine = machine();
    let plan = Plan::read(machine.path()).unwrap();
    let text = |path: &str| match &plan.root[Path::new(path)] {
        Entry::File { content, .. } => String::from_utf8(content.clone()).unwrap(),
        other => panic!("{other:?}"),
    };
    assert!(text("etc/passwd").contains("www:x:33:33::"));
    assert!(!text("etc/passwd").contains("ann") && !text("etc/passwd").contains("Ann"));
    assert!(!text("etc/group").contains("ann"));
    assert!(text("etc/shadow").lines().all(|line| line.split(':').nth(1) == Some("*")));
}

#[test]
fn local_configuration_and_unreadable_programs_of_the_machine_are_masked() {
    let machine = machine();
    let plan = Plan::read(machine.path()).unwrap();
    assert_eq!(plan.usr[Path::new("local/etc")], Mask::Emptied { mode: 0o755 });
    assert_eq!(plan.usr[Path::new("local/bin/private")], Mask::Absent);
    assert!(!plan.usr.contains_key(Path::new("local/bin/tool")));
    assert!(matches!(plan.usr[Path::new("local")], Mask::Merged { .. }));
}

#[test]
fn a_changed_etc_makes_a_new_image_and_the_same_does_not() {
    let machine = machine();
    let id = || Plan::read(machine.path()).unwrap().id();
    let before = id();
    assert_eq!(before, id());
    fs::write(machine.path().join("etc/timezone"), "Etc/UTC\n").unwrap();
    assert_ne!(before, id());
}

#[test]
fn a_machine_without_merged_usr_is_refused() {
    let machine = machine();
    fs::remove_file(machine.path().join("bin")).unwrap();
    fs::create_dir(machine.path().join("bin")).unwrap();
    let error = Plan::read(machine.path()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::HostNotMerged("/bin".to_owned()));
}
