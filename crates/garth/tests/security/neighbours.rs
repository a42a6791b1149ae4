//! What one sandbox must not do to another.

use crate::yard::Yard;

fn two() -> Yard {
    let yard = Yard::new();
    yard.ok(&["create", "alice"]);
    yard.ok(&["create", "bob"]);
    yard
}

#[test]
fn guest_cannot_see_or_signal_anothers_processes() {
    let yard = two();
    let process = yard.ok(&["exec", "-d", "alice", "--", "sleep", "31337"]);
    assert_eq!(yard.garth(&["exec", "bob", "--", "pgrep", "-fc", "sleep 3133[7]"]).text(), "0");
    yard.sh("bob", "kill -9 -1 || true; for p in $(seq 2 2000); do [ $p != $$ ] && kill -9 $p 2>/dev/null; done; true");
    assert!(yard.ok(&["ps", "alice"]).contains(&process));
}

#[test]
fn guest_cannot_read_anothers_files_or_ipc() {
    let yard = two();
    yard.sh("alice", "echo secret > /tmp/s; echo secret > /dev/shm/s; ipcmk -M 4096 >/dev/null");
    assert!(!yard.sh_succeeds("bob", "cat /tmp/s || cat /dev/shm/s"));
    assert_eq!(yard.sh("bob", "ipcs -m | grep -c 0x || true"), "0");
}

#[test]
fn abstract_sockets_do_not_cross() {
    let yard = two();
    yard.ok(&[
        "exec",
        "-d",
        "alice",
        "--",
        "python3",
        "-c",
        "import socket,time\ns=socket.socket(socket.AF_UNIX)\ns.bind('\\0door')\ns.listen()\ntime.sleep(1000)",
    ]);
    assert!(!yard.sh_succeeds(
        "bob",
        "python3 -c \"import socket; socket.socket(socket.AF_UNIX).connect('\\0door')\" 2>/dev/null"
    ));
}

#[test]
fn an_exec_in_a_project_that_is_removed_is_an_error() {
    let yard = two();
    yard.ok(&["rm", "-f", "alice"]);
    let done = yard.garth(&["exec", "alice", "--", "true"]);
    assert_eq!(done.code, 125, "{done:?}");
}
