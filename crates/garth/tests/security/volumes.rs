//! Ways out by a directory of the host that a sandbox was given.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::yard::{Yard, at_each_level};

fn host_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("garth-shared.").tempdir_in("/var/tmp").expect("a directory")
}

/// The disk says where a volume goes: nowhere but into the disk.
#[test]
fn a_link_at_a_volumes_place_leads_nowhere_but_into_the_disk() {
    let (given, victim) = (host_dir(), host_dir());
    std::fs::write(given.path().join("given"), "").expect("write");
    at_each_level("a_link_at_a_volumes_place_leads_nowhere_but_into_the_disk", &[], |yard, name| {
        let path = victim.path().display();
        let links = [
            format!("{path}"),
            format!("../../../../../../../..{path}"),
            format!("/proc/1/root{path}"),
            format!("/proc/1/cwd/../../..{path}"),
        ];
        for link in links {
            yard.sh(name, &format!("rm -rf /link /var/tmp/garth-shared.*; ln -sfn {link} /link"));
            yard.ok(&["set", name, "-v", &format!("{}:/link/below", given.path().display())]);
            // It may start with the volume somewhere in the disk, or not start.
            let done = yard.garth(&["restart", name]);
            assert_eq!(std::fs::read_dir(victim.path()).expect("list").count(), 0, "{link}: {done:?}");
            yard.ok(&["set", name, "--unset-volume", "/link/below"]);
            yard.ok(&["restart", name]);
        }
    });
}

/// What hides the host's files in /proc and /sys stays on top.
#[test]
fn a_link_at_a_volumes_place_uncovers_nothing_of_proc() {
    let given = host_dir();
    at_each_level("a_link_at_a_volumes_place_uncovers_nothing_of_proc", &[], |yard, name| {
        yard.sh(name, "ln -sfn /proc/sys /link");
        yard.ok(&["set", name, "-v", &format!("{}:/link", given.path().display())]);
        let refused = yard.garth(&["restart", name]);
        assert_ne!(refused.code, 0, "{refused:?}");
        yard.ok(&["set", name, "--unset-volume", "/link"]);
        yard.sh(name, "test -e /proc/sys/kernel");
    });
}

/// In a volume, a sandbox's root has the rights of the host's root; who is not that must not get them by asking.
#[test]
fn only_the_hosts_root_gets_at_volumes() {
    let given = host_dir();
    let yard = Yard::new();
    yard.ok(&["create", "plain", "--network", "none"]);
    yard.ok(&["create", "shares", "--network", "none", "-v", &format!("{}:/data", given.path().display())]);
    // As the group `garth` would be let in.
    let open =
        |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    open(yard.data_dir(), 0o711);
    open(&yard.data_dir().join("garth.sock"), 0o666);
    let socket = yard.data_dir().join("garth.sock");
    let spec = format!(r#"{{"spec":{{"volumes":{{"/data":{{"host":"{}"}}}}}}}}"#, given.path().display());
    let patch = format!(r#"{{"volumes":{{"/data":{{"host":"{}"}}}}}}"#, given.path().display());
    for (request, body) in [
        ("POST /v1/projects", spec.as_str()),
        ("PATCH /v1/projects/plain", &patch),
        ("PATCH /v1/projects/shares", "{}"),
        ("POST /v1/projects/shares/start", ""),
        ("POST /v1/projects/%73hares/start", ""),
        ("POST /v1/projects/shares/verify", ""),
        ("GET /v1/projects/shares/agent/files?path=/etc/passwd", ""),
        ("DELETE /v1/projects/shares", ""),
    ] {
        let answer = as_somebody(&socket, request, body);
        assert!(answer.starts_with("HTTP/1.1 403"), "{request}: {answer}");
    }
    for request in ["GET /v1/projects", "GET /v1/projects/shares", "POST /v1/projects/plain/start"] {
        let answer = as_somebody(&socket, request, "");
        assert!(answer.starts_with("HTTP/1.1 200"), "{request}: {answer}");
    }
}

/// The answer to a request of a user without any rights: one thread alone becomes that user.
fn as_somebody(socket: &Path, request: &str, body: &str) -> String {
    let nobody = rustix::fs::Uid::from_raw(65_534);
    let ask = || {
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).expect("setresuid");
        let mut stream = UnixStream::connect(socket).expect("connect");
        let head = format!("{request} HTTP/1.1\r\nhost: garth\r\nconnection: close\r\ncontent-type: application/json");
        // A refusal may come, and the connection end, before all of it is sent.
        let _ = stream.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes());
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("answer");
        String::from_utf8_lossy(&answer).into_owned()
    };
    std::thread::scope(|scope| scope.spawn(ask).join().expect("a thread"))
}
