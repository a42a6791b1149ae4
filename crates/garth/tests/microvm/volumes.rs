//! Directories of the host in a guest.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::Path;

use crate::yard::{Yard, eventually, finish, skip};
use crate::{create, pid, project, project_in, state};

/// A directory of the host with a file of user 1000, and beside it what nobody is to reach.
fn shared() -> tempfile::TempDir {
    let dir = tempfile::Builder::new().prefix("garth-shared.").tempdir_in("/var/tmp").expect("a directory");
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    for name in ["given", "beside"] {
        std::fs::create_dir(dir.path().join(name)).expect("a directory");
    }
    std::fs::write(dir.path().join("given/mine"), "text").expect("write");
    chown(dir.path().join("given/mine"), Some(1000), Some(1001)).expect("chown");
    std::fs::write(dir.path().join("beside/secret"), "secret").expect("write");
    dir
}

fn owner(path: &Path) -> (u32, u32) {
    let found = std::fs::symlink_metadata(path).expect("stat");
    (found.uid(), found.gid())
}

fn with_volume(yard: &Yard, name: &str, volumes: &[String]) {
    let options: Vec<&str> = volumes.iter().flat_map(|volume| ["-v", volume.as_str()]).collect();
    yard.ok(&[&["set", name][..], &options].concat());
    yard.ok(&["start", name]);
}

/// The programs that serve the guest, by what the host sees of them.
fn servers(yard: &Yard, name: &str) -> Vec<i32> {
    let cgroup = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let own = cgroup(pid(yard, name));
    let pids =
        std::fs::read_dir("/proc").expect("/proc").flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
    let named =
        |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "virtiofsd");
    pids.filter(|pid| named(pid) && cgroup(*pid) == own).collect()
}

#[test]
fn a_guest_whose_volume_nobody_serves_any_more_is_ended_and_starts_again() {
    let test = "a_guest_whose_volume_nobody_serves_any_more_is_ended_and_starts_again";
    let Some(yard) = project(test, "m") else { return };
    let dir = shared();
    with_volume(&yard, "m", &[format!("{}:/data", dir.path().join("given").display())]);
    yard.sh("m", "echo kept > note; cat /data/mine");
    let (machine, served) = (pid(&yard, "m"), servers(&yard, "m"));
    // One command waits for it already.
    let process = yard.ok(&["exec", "-d", "m", "--", "sh", "-c", "while sleep 0.1; do ls /data; done"]);
    kill(served[0]);
    eventually("its end", || state(&yard, "m") == "stopped");
    assert_ne!(yard.garth(&["wait", "m", &process]).code, 0);
    assert_eq!(yard.sh("m", "cat note /data/mine"), "kept\ntext");
    assert_ne!(pid(&yard, "m"), machine);

    // Whoever comes while nobody looks is no better off.
    let served = servers(&yard, "m");
    yard.kill_daemon();
    kill(served[0]);
    eventually("its end", || state(&yard, "m") == "stopped");
    assert_eq!(yard.sh("m", "cat note /data/mine"), "kept\ntext");
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
}

#[test]
fn files_and_owners_go_both_ways_and_a_read_only_volume_stays_as_it_is() {
    let test = "files_and_owners_go_both_ways_and_a_read_only_volume_stays_as_it_is";
    let Some(yard) = project(test, "m") else { return };
    both_ways(&yard);
}

/// Debian 12 has the one in C, and every later distribution the one in Rust.
#[test]
fn another_virtiofsd_serves_as_well() {
    let test = "another_virtiofsd_serves_as_well";
    let Some(server) = std::env::var_os("GARTH_TEST_VIRTIOFSD") else {
        return skip(test, "GARTH_TEST_VIRTIOFSD names no program");
    };
    let yard = Yard::new();
    let begun = finish(yard.command(&["ls"]).env("GARTH_VIRTIOFSD", &server), b"");
    assert_eq!(begun.code, 0, "{begun:?}");
    let Some(yard) = project_in(yard, test, "m") else { return };
    both_ways(&yard);
    let served = std::fs::metadata(server).expect("a program");
    create(&yard, "n");
    let dir = shared();
    with_volume(&yard, "n", &[format!("{}:/data", dir.path().join("given").display())]);
    let runs = std::fs::metadata(format!("/proc/{}/exe", servers(&yard, "n")[0])).expect("a program that runs");
    assert_eq!((runs.dev(), runs.ino()), (served.dev(), served.ino()));
}

fn both_ways(yard: &Yard) {
    let dir = shared();
    let (given, fixed) = (dir.path().join("given"), dir.path().join("beside"));
    with_volume(yard, "m", &[format!("{}:/data/deep", given.display()), format!("{}:/fixed:ro", fixed.display())]);
    assert_eq!(yard.sh("m", "cd /data/deep; cat mine; stat -c :%u:%g mine"), "text:1000:1001");
    yard.sh("m", "cd /data/deep; echo made > made; mkdir -m 777 all; touch given; chown 60000:60001 given");
    yard.ok(&["exec", "-w", "/", "-u", "1000:1001", "m", "--", "touch", "/data/deep/all/user"]);
    assert_eq!(std::fs::read_to_string(given.join("made")).expect("read"), "made\n");
    assert_eq!(owner(&given.join("made")), (0, 0));
    assert_eq!(owner(&given.join("all/user")), (1000, 1001));
    assert_eq!(owner(&given.join("given")), (60_000, 60_001));
    std::fs::write(given.join("later"), "later").expect("write");
    eventually("the guest sees what the host wrote", || yard.sh_succeeds("m", "grep -q later /data/deep/later"));
    assert!(!yard.sh_succeeds("m", "mknod /data/deep/disk b 7 0 || mknod /data/deep/null c 1 3"));
    // A guest's own kernel may take a mount for writable; the host does not.
    assert_eq!(yard.sh("m", "cat /fixed/secret"), "secret");
    assert!(!yard.sh_succeeds("m", "touch /fixed/x"));
    yard.sh("m", "mount -o remount,rw /fixed && mkdir /again && mount -t virtiofs volume1 /again");
    for at in ["/fixed", "/again"] {
        for line in ["touch X/x", "rm X/secret", "echo x > X/secret", "chmod 777 X/secret", "chown 1 X/secret"] {
            assert!(!yard.sh_succeeds("m", &line.replace('X', at)), "{line} in {at}");
        }
    }
    assert_eq!(std::fs::read_to_string(fixed.join("secret")).expect("read"), "secret");
    let refused = yard.garth(&["pause", "m", "--json"]);
    assert!(refused.code != 0 && (refused.text() + &refused.stderr).contains("volume"), "{refused:?}");
    assert_eq!(state(yard, "m"), "running");
    let verified = yard.garth(&["verify", "m"]);
    assert_eq!(verified.code, 0, "{verified:?}");
    // Whoever serves a guest goes with it, and the next start has the files and not the volume.
    let served = servers(yard, "m");
    assert_eq!(served.len(), 2);
    yard.ok(&["set", "m", "--unset-volume", "/fixed", "--unset-volume", "/data/deep"]);
    yard.ok(&["restart", "m"]);
    assert!(served.iter().all(|pid| !Path::new(&format!("/proc/{pid}/exe")).exists()));
    assert_eq!(yard.sh("m", "ls -A /data/deep /fixed"), "/data/deep:\n\n/fixed:");
    yard.ok(&["pause", "m"]);
    yard.ok(&["resume", "m"]);
}

/// Root of the guest's kernel may say to the host whatever it likes; what it says is looked up in the one directory.
#[test]
fn no_link_and_no_path_leads_out_of_a_volume() {
    let Some(yard) = project("no_link_and_no_path_leads_out_of_a_volume", "m") else { return };
    let dir = shared();
    let given = dir.path().join("given");
    let secret = dir.path().join("beside/secret").display().to_string();
    std::os::unix::fs::symlink(&secret, given.join("absolute")).expect("link");
    std::os::unix::fs::symlink("../beside", given.join("relative")).expect("link");
    with_volume(&yard, "m", &[format!("{}:/data", given.display())]);
    yard.sh("m", "cd /data; ln -s ../beside up; ln -s /proc/self/root root; ln -s /etc etc; mkdir sub");
    // In the guest they are links of the guest's.
    for path in ["absolute", "relative/secret", "up/secret", "../beside/secret", &format!("root{secret}")] {
        assert!(!yard.sh_succeeds("m", &format!("grep -q secret /data/{path}")), "{path}");
    }
    // A directory that the guest knows is moved away, on the host, under its hands.
    let inside =
        yard.ok(&["exec", "-d", "-w", "/data/sub", "m", "--", "sh", "-c", "while :; do ls .. ../.. ../beside; done"]);
    std::fs::rename(given.join("sub"), dir.path().join("sub")).expect("move");
    yard.sh("m", "for n in 1 2 3 4 5 6 7 8; do cat /data/sub/../beside/secret; done 2>/dev/null; true");
    assert!(!yard.ok(&["logs", "m", &inside]).contains("secret"));
    // Who serves it: nobody on the host, who sees no more than the directory.
    let served = servers(&yard, "m");
    let [server] = served.as_slice() else { panic!("{served:?}") };
    let status = std::fs::read_to_string(format!("/proc/{server}/status")).expect("status");
    let of = |field: &str| status.lines().find_map(|line| line.strip_prefix(field)).expect("a field").trim().to_owned();
    let uid: u32 = of("Uid:").split_whitespace().next().expect("a uid").parse().expect("a number");
    assert!(uid >= 65_536, "{status}");
    assert_eq!((of("NoNewPrivs:"), of("Seccomp:")), ("1".to_owned(), "2".to_owned()));
    let users = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).expect("a namespace");
    assert_ne!(users(&server.to_string()), users("self"));
    // What can be seen from its root.
    let mounts = std::fs::read_to_string(format!("/proc/{server}/mountinfo")).expect("mounts");
    let fields: Vec<&str> = mounts.split(' ').collect();
    assert_eq!((mounts.lines().count(), fields[4]), (1, "/"), "{mounts}");
    assert!(given.ends_with(fields[3].trim_start_matches('/')), "{mounts}");
    assert!(["nosuid", "nodev", "idmapped"].iter().all(|flag| fields[5].split(',').any(|f| f == *flag)), "{mounts}");
    let net = std::fs::read_to_string(format!("/proc/{server}/net/dev")).expect("interfaces");
    assert_eq!(net.lines().count(), 3, "{net}");
}

#[test]
fn what_cannot_be_served_is_refused_with_the_reason() {
    let Some(yard) = project("what_cannot_be_served_is_refused_with_the_reason", "m") else { return };
    let dir = shared();
    let volume = format!("{}:/data", dir.path().join("given").display());
    let refused = yard.garth(&["create", "n", "--runtime", "microvm/firecracker", "-v", &volume]);
    assert!(refused.code == 2 && refused.stderr.contains("microvm/qemu"), "{refused:?}");
    let proc = yard.garth(&["set", "m", "-v", "/proc/1:/data"]);
    assert_ne!(proc.code, 0, "{proc:?}");
    yard.ok(&["set", "m", "-v", &volume]);
    drop(dir);
    let refused = yard.garth(&["start", "m"]);
    assert!(refused.code != 0 && refused.stderr.contains("is not there"), "{refused:?}");
    assert_eq!(state(&yard, "m"), "stopped");
    create(&yard, "n");
    assert_eq!(yard.project_names(), ["m", "n"]);
}
