//! What one sandbox must not do to another, of whatever levels the two are.

use crate::street::Street;
use crate::yard::{Yard, eventually};

#[test]
fn guest_cannot_see_or_signal_anothers_processes() {
    Street::with("guest_cannot_see_or_signal_anothers_processes", |street| {
        let yard = &street.yard;
        let start = |victim: &str| yard.ok(&["exec", "-d", victim, "--", "sleep", "31337"]);
        let processes: Vec<(&str, String)> = street.victims().map(|victim| (victim, start(victim))).collect();
        for attacker in street.attackers() {
            let seen = yard.garth(&["exec", attacker, "--", "pgrep", "-fc", "sleep 3133[7]"]).text();
            assert_eq!(seen, "0", "{attacker}");
            let kill =
                "kill -9 -1 || true; for p in $(seq 2 2000); do [ $p != $$ ] && kill -9 $p 2>/dev/null; done; true";
            yard.sh(attacker, kill);
        }
        for (victim, process) in processes {
            assert!(yard.ok(&["ps", victim]).contains(&process), "{victim}");
            yard.ok(&["kill", victim, &process]);
        }
    });
}

#[test]
fn guest_cannot_read_anothers_files_or_ipc() {
    Street::with("guest_cannot_read_anothers_files_or_ipc", |street| {
        for victim in street.victims() {
            street.yard.sh(victim, "echo secret > /tmp/s; echo secret > /dev/shm/s; ipcmk -M 4096 >/dev/null");
        }
        for attacker in street.attackers() {
            let seen = street.yard.sh(attacker, "cat /tmp/s /dev/shm/s 2>/dev/null; ipcs -m | grep -c 0x || true");
            assert_eq!(seen, "0", "{attacker}");
        }
    });
}

#[test]
fn abstract_sockets_do_not_cross() {
    Street::with("abstract_sockets_do_not_cross", |street| {
        let listen =
            "import socket,time\ns=socket.socket(socket.AF_UNIX)\ns.bind('\\0door')\ns.listen()\ntime.sleep(1000)";
        let connect = "import socket; socket.socket(socket.AF_UNIX).connect('\\0door')";
        for victim in street.victims() {
            street.yard.ok(&["exec", "-d", victim, "--", "python3", "-c", listen]);
            eventually("it listens", || street.python(victim, connect).code == 0);
        }
        for attacker in street.attackers() {
            assert_ne!(street.python(attacker, connect).code, 0, "{attacker}");
        }
    });
}

#[test]
fn guest_cannot_reach_another_sandbox_over_the_network() {
    Street::with("guest_cannot_reach_another_sandbox_over_the_network", |street| {
        let serve = ["python3", "-m", "http.server", "--bind", "0.0.0.0", "8000"];
        for victim in street.victims() {
            street.yard.ok(&[&["exec", "-d", victim, "--"][..], &serve].concat());
            eventually("the server answers itself", || street.reaches(victim, "127.0.0.1", 8000));
        }
        let address = |name: &str| {
            street.yard.json(&["inspect", name])["addresses"]["ipv4"].as_str().expect("an address").to_owned()
        };
        for victim in street.victims() {
            assert!(street.reaches(victim, &address(victim), 8000), "{victim} reaches its own address");
        }
        for (attacker, victim) in street.pairs() {
            assert!(!street.reaches(attacker, &address(victim), 8000), "{attacker} reaches {victim}");
        }
    });
}

#[test]
fn an_exec_in_a_project_that_is_removed_is_an_error() {
    let yard = Yard::new();
    yard.ok(&["create", "gone"]);
    yard.ok(&["rm", "-f", "gone"]);
    let done = yard.garth(&["exec", "gone", "--", "true"]);
    assert_eq!(done.code, 125, "{done:?}");
}
