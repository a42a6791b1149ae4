//! Directories of the host in a sandbox.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use crate::yard::{Yard, at_each_level};

/// A directory of the host with a file of user 1000, outside of any data directory.
fn shared() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("garth-shared.").tempdir_in("/var/tmp").expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    std::fs::write(dir.path().join("mine"), "text").expect("write");
    chown(dir.path().join("mine"), Some(1000), Some(1001)).expect("chown");
    dir
}

fn owner(path: &Path) -> (u32, u32) {
    let found = std::fs::symlink_metadata(path).expect("stat");
    (found.uid(), found.gid())
}

fn volume(dir: &Path, rest: &str) -> String {
    format!("{}:{rest}", dir.display())
}

#[test]
fn owners_are_the_same_on_both_sides() {
    let dir = shared();
    let option = volume(dir.path(), "/data/deep");
    at_each_level("owners_are_the_same_on_both_sides", &["-v", &option], |yard, name| {
        assert_eq!(yard.sh(name, "cd /data/deep; cat mine; stat -c :%u:%g mine"), "text:1000:1001");
        yard.sh(name, "cd /data/deep; rm -rf made; mkdir made; chmod 777 made; touch made/root");
        yard.ok(&["exec", "-w", "/", "-u", "1000:1001", name, "--", "touch", "/data/deep/made/user"]);
        yard.sh(name, "touch /data/deep/made/given; chown 60000:60001 /data/deep/made/given");
        let made = dir.path().join("made");
        assert_eq!(owner(&made.join("root")), (0, 0));
        assert_eq!(owner(&made.join("user")), (1000, 1001));
        assert_eq!(owner(&made.join("given")), (60_000, 60_001));
        let verified = yard.garth(&["verify", name]);
        assert_eq!(verified.code, 0, "{verified:?}");
    });
}

#[test]
fn a_volume_has_no_devices_no_set_user_id_and_stays_as_it_was_asked_for() {
    let dir = shared();
    let option = volume(dir.path(), "/data:ro");
    at_each_level("a_volume_has_no_devices", &["-v", &option], |yard, name| {
        let flags = yard.sh(name, "grep ' /data ' /proc/self/mountinfo | cut -d' ' -f6");
        for flag in ["ro", "nosuid", "nodev"] {
            assert!(flags.split(',').any(|found| found == flag), "{flags}");
        }
        assert_eq!(yard.sh(name, "touch /data/x 2>/dev/null || echo refused"), "refused");
        for how in ["remount,rw", "remount,bind,rw", "remount,bind,ro,suid", "remount,bind,ro,dev"] {
            assert!(!yard.sh_succeeds(name, &format!("mount -o {how} /data")), "{how}");
        }
        assert!(!yard.sh_succeeds(name, "umount /data"));
        assert!(!dir.path().join("x").exists());
    });
}

#[test]
fn what_is_mounted_on_a_volume_inside_is_not_seen_on_the_host() {
    let dir = shared();
    let option = volume(dir.path(), "/data");
    at_each_level("what_is_mounted_on_a_volume_inside", &["-v", &option], |yard, name| {
        yard.sh(name, "mkdir -p /data/sub");
        // Refused by one level, kept to itself by the other.
        yard.sh(name, "mount -t tmpfs t /data/sub 2>/dev/null && echo x > /data/sub/x || true");
        assert!(!dir.path().join("sub/x").exists());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        assert!(!mounts.contains(&*dir.path().to_string_lossy()), "{mounts}");
    });
}

#[test]
fn volumes_come_and_go_with_the_next_start() {
    let dir = shared();
    let yard = Yard::new();
    yard.ok(&["create", "web", "--network", "none"]);
    yard.sh("web", "test ! -e /data");
    let changed = yard.ok(&["set", "web", "-v", &volume(dir.path(), "/data")]);
    assert!(changed.contains("volumes"), "{changed}");
    yard.sh("web", "test ! -e /data");
    yard.ok(&["restart", "web"]);
    assert_eq!(yard.sh("web", "cat /data/mine"), "text");
    assert!(yard.ok(&["inspect", "web"]).contains(" at /data"));
    yard.ok(&["set", "web", "--unset-volume", "/data"]);
    yard.ok(&["restart", "web"]);
    assert_eq!(yard.sh("web", "ls -A /data"), "", "the place stays and is empty");
    yard.ok(&["rm", "-f", "web"]);
    assert_eq!(std::fs::read(dir.path().join("mine")).expect("read"), b"text", "removing a project removes none of it");
}

#[test]
fn a_directory_that_is_gone_is_an_error_and_nothing_starts() {
    let dir = shared();
    let yard = Yard::new();
    yard.ok(&["create", "web", "--network", "none", "-v", &volume(dir.path(), "/data")]);
    drop(dir);
    let refused = yard.garth(&["start", "web", "--json"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.text().contains("is not there"), "{refused:?}");
    assert_eq!(yard.json(&["inspect", "web"])["state"], "stopped");
}

#[test]
fn what_shows_the_host_is_refused() {
    let yard = Yard::new();
    yard.ok(&["ls"]);
    let data = yard.data_dir().display().to_string();
    for wrong in
        ["/", "/proc", "/sys/fs", "/dev", "/var/tmp", "/var", &data, &format!("{data}/pool"), "/no/such", "/etc/passwd"]
    {
        let refused = yard.garth(&["create", "web", "-v", &format!("{wrong}:/data")]);
        assert_eq!(refused.code, 2, "{wrong}: {refused:?}");
    }
    for wrong in ["/", "/proc", "/proc/x", "/sys", "/dev/x", "/a/../b", "/a//b"] {
        let refused = yard.garth(&["create", "web", "-v", &format!("/srv:{wrong}")]);
        assert_eq!(refused.code, 2, "{wrong}: {refused:?}");
    }
    assert!(yard.project_names().is_empty());
}
