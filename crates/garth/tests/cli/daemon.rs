use std::os::fd::AsFd as _;
use std::process::{Command, Stdio};

use rustix::fs::{FlockOperation, flock};
use snapbox::{assert_data_eq, str};

use crate::snapshot::of;
use crate::yard::{Yard, finish};

#[test]
fn many_first_commands_at_once_start_one_daemon() {
    let yard = Yard::new();
    let commands: Vec<_> = (0..8)
        .map(|_| {
            let mut command = yard.command(&["ls", "-q"]);
            std::thread::spawn(move || finish(&mut command, b""))
        })
        .collect();
    for command in commands {
        let done = command.join().expect("command");
        assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    }
}

#[test]
fn a_daemon_started_on_demand_keeps_nothing_of_its_starter() {
    let yard = Yard::new();
    let lock = yard.data_dir().join("lock");
    let script = format!("exec 9> {}; flock 9; exec \"$0\" ls -q", lock.display());
    let mut command = Command::new("bash");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_garth")]).env("GARTH_DATA_DIR", yard.data_dir());
    command.env("SECRET_TOKEN", "hunter2");
    assert_eq!(finish(&mut command, b"").code, 0, "and its streams are at their end, or this would hang");
    let file = std::fs::File::open(&lock).expect("lock");
    flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).expect("the daemon holds no lock of its starter");
    let pid = yard.daemon_pid().expect("a daemon");
    let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("environ");
    assert!(!String::from_utf8_lossy(&environment).contains("hunter2"));
    let session = rustix::process::getsid(rustix::process::Pid::from_raw(pid)).expect("session");
    assert_eq!(session.as_raw_nonzero().get(), pid, "it has a session of its own");
}

#[test]
fn a_second_daemon_for_one_directory_says_who_has_it() {
    let yard = Yard::new();
    yard.ok(&["ls"]);
    let pid = yard.daemon_pid().expect("a daemon").to_string();
    assert_data_eq!(
        crate::snapshot::with(&yard, &["serve"], &[(&pid, "[PID]")]),
        str![[r#"
exit 7
--- stdout
--- stderr
garth: [DATA_DIR] is in use by the daemon with pid [PID]

"#]]
    );
}

#[test]
fn a_daemon_that_cannot_start_says_why_through_the_command() {
    let yard = Yard::new();
    std::fs::create_dir(yard.data_dir().join("garth.pid")).expect("in the way");
    let done = yard.garth(&["ls"]);
    std::fs::remove_dir(yard.data_dir().join("garth.pid")).expect("out of the way");
    assert_data_eq!(
        crate::snapshot::seen(&done, &[(&yard.data_dir().to_string_lossy(), "[DATA_DIR]")]),
        str![[r#"
exit 7
--- stdout
--- stderr
garth: the data directory [DATA_DIR] cannot be used: Is a directory
  hint: the daemon runs as root and needs a directory that it can write

"#]]
    );
}

#[test]
fn serve_listens_where_it_is_told() {
    let yard = Yard::new();
    let socket = yard.data_dir().join("elsewhere.sock");
    let mut serve = yard.command(&["serve", "--socket", &socket.to_string_lossy()]);
    let mut daemon = serve.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("serve");
    crate::yard::eventually("it listens", || socket.exists());
    let host = format!("unix://{}", socket.display());
    assert_data_eq!(
        of(&yard, &["ls", "-q", "--host", &host]),
        str![[r#"
exit 0
--- stdout
--- stderr

"#]]
    );
    yard.terminate_daemon();
    assert_eq!(daemon.wait().expect("ends").code(), Some(0));
}

#[test]
fn someone_who_may_not_connect_is_told_how() {
    let yard = Yard::new();
    yard.ok(&["ls"]);
    let passed = Command::new("chmod").arg("711").arg(yard.data_dir()).status().expect("chmod");
    assert!(passed.success());
    let mut command = Command::new("setpriv");
    command.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        "--bounding-set=-all",
        env!("CARGO_BIN_EXE_garth"),
        "ls",
    ]);
    command.env("GARTH_DATA_DIR", yard.data_dir());
    let done = finish(&mut command, b"");
    if done.stderr.contains("setpriv") || done.stderr.contains("Permission denied (os error") {
        crate::yard::skip("someone_who_may_not_connect_is_told_how", "the program cannot be run as nobody here");
        return;
    }
    assert_data_eq!(
        crate::snapshot::seen(&done, &[(&yard.data_dir().to_string_lossy(), "[DATA_DIR]")]),
        str![[r#"
exit 7
--- stdout
--- stderr
garth: no daemon answers at [DATA_DIR]/garth.sock: Permission denied
  hint: run as root, or as a member of the group garth (usermod -aG garth USER)

"#]]
    );
}
