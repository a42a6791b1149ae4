//! Options that take something from a sandbox: writing to its root, capabilities.

use crate::yard::{Yard, at_each_level};

#[test]
fn a_read_only_root_can_be_written_nowhere_but_where_it_says() {
    at_each_level("a_read_only_root", &["--read-only"], |yard, name| {
        for dir in ["/tmp", "/run", "/dev/shm"] {
            yard.sh(name, &format!("echo x > {dir}/x && test -s {dir}/x"));
        }
        for dir in ["/", "/root", "/etc", "/usr", "/usr/bin", "/var/tmp"] {
            assert_eq!(yard.sh(name, &format!("touch {dir}/x 2>/dev/null || echo refused")), "refused", "{dir}");
        }
        for how in ["remount,rw /", "remount,bind,rw /", "remount,bind,rw /usr"] {
            assert!(!yard.sh_succeeds(name, &format!("mount -o {how}")), "{how}");
            assert!(!yard.sh_succeeds(name, &format!("unshare -m mount -o {how}")), "{how}");
        }
        assert_eq!(yard.sh(name, "hostname; grep -c 127.0.0.1 /etc/hosts"), format!("{name}\n1"));
        // What the agent keeps is not on the root.
        let process = yard.ok(&["exec", "-d", name, "--", "echo", "kept"]);
        yard.ok(&["wait", name, &process]);
        assert_eq!(yard.ok(&["logs", name, &process]), "kept");
        let verified = yard.garth(&["verify", name]);
        assert_eq!(verified.code, 0, "{verified:?}");
        yard.ok(&["set", name, "--read-only", "false"]);
        yard.ok(&["restart", name]);
        yard.sh(name, "touch /root/x");
    });
}

#[test]
fn a_volume_on_a_read_only_root_is_as_it_says() {
    let dir = tempfile::Builder::new().prefix("garth-shared.").tempdir_in("/var/tmp").expect("a directory");
    let at = |path: &str| format!("{}:{path}", dir.path().display());
    let options = ["--read-only", "-v", &at("/new/place"), "-v", &at("/tmp/read:ro")];
    at_each_level("a_volume_on_a_read_only_root", &options, |yard, name| {
        yard.sh(name, "echo x > /new/place/x");
        assert_eq!(yard.sh(name, "cat /tmp/read/x; touch /tmp/read/y 2>/dev/null || echo refused"), "x\nrefused");
    });
}

/// The sets of a process of root's.
const SETS: &str = "grep -E '^Cap(Prm|Eff|Bnd|Amb)' /proc/self/status | cut -f2 | sort -u";

#[test]
fn processes_have_the_capabilities_that_are_left() {
    let options = ["--cap-drop", "ALL", "--cap-add", "chown", "--cap-add", "CAP_NET_BIND_SERVICE"];
    at_each_level("processes_have_the_capabilities_that_are_left", &options, |yard, name| {
        assert_eq!(yard.sh(name, SETS), "0000000000000000\n0000000000000401");
        yard.sh(name, "touch /root/f; chown 1000 /root/f");
        assert!(!yard.sh_succeeds(name, "chroot / true"));
        // The agent still does what it is for.
        assert_eq!(yard.ok(&["exec", "-w", "/", "-u", "1000", name, "--", "id", "-u"]), "1000");
        let process = yard.ok(&["exec", "-d", "-w", "/", "-u", "1000", name, "--", "sleep", "1000"]);
        yard.ok(&["kill", name, &process]);
        let verified = yard.garth(&["verify", name]);
        assert_eq!(verified.code, 0, "{verified:?}");
        yard.ok(&["set", name, "--cap-add", "ALL"]);
        yard.ok(&["restart", name]);
        yard.sh(name, "chroot / true");
    });
}

#[test]
fn nothing_is_added_to_a_level() {
    let yard = Yard::new();
    let refused = yard.garth(&["create", "web", "--cap-add", "SYS_ADMIN", "--json"]);
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.text().contains("SYS_ADMIN"), "{refused:?}");
    assert_eq!(yard.garth(&["create", "web", "--cap-drop", "SYS_NOTHING"]).code, 2);
    assert!(yard.project_names().is_empty());
}
