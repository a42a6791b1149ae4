//! What a project is asked to be: it is that, or is refused with a reason; never something weaker in silence.

use crate::endpoint::{Check, Checked, Endpoint, Engine, Outcome};
use crate::yard::eventually;

pub const CHECKS: &[Check] = &[
    Check { word: "--at-least", what: "refuses a weaker runtime, exit 5", by: at_least },
    Check {
        word: "--runtime",
        what: "one that is not there is an error, exit 8, and nothing runs",
        by: no_such_runtime,
    },
    Check { word: "--image", what: "one that cannot be had is an error, and nothing runs", by: no_such_image },
    Check { word: "--network", what: "none: nothing can be reached", by: no_network },
    Check { word: "--cpus", what: "is what processes get", by: cpus },
    Check { word: "--pids", what: "is the most processes", by: pids },
    Check { word: "--network-rate", what: "is taken", by: network_rate },
    Check { word: "--read-only", what: "makes a root that cannot be written", by: read_only },
    Check { word: "--cap-drop", what: "takes capabilities away", by: cap_drop },
    Check { word: "--no-new-privs", what: "set-user-id programs gain nothing", by: no_new_privs },
    Check { word: "--volume", what: "shows a directory of the host", by: volume },
    Check { word: "--user", what: "is who processes run as", by: user },
];

fn at_least(at: &Endpoint) -> Checked {
    at.refused(&["create", "weak", "--runtime", "default", "--at-least", "sysbox"], 5, "runtime_too_weak");
    at.refused(&["inspect", "weak"], 3, "not_found");
    Ok(())
}

fn no_such_runtime(at: &Endpoint) -> Checked {
    // One machine says so when the project is made; a cluster may get such nodes later, and says so when it starts.
    let created = at.garth(&["create", "strong", "--runtime", "microvm/firecracker", "--json"]);
    if created.code == 0 {
        at.refused(&["start", "strong"], 8, "runtime_unavailable");
        assert_eq!(at.inspect("strong")["state"], "stopped");
        at.ok(&["rm", "-f", "strong"]);
    } else {
        assert!(created.code == 8 && created.text().contains("runtime_unavailable"), "{created:?}");
    }
    Ok(())
}

fn no_such_image(at: &Endpoint) -> Checked {
    // As above. No registry listens there.
    let create = ["create", "bare", "--image", "localhost:1/none:1"];
    if at.garth(&create).code == 0 {
        at.refused(&["start", "bare"], 1, "start_failed");
        eventually("it rests", || at.inspect("bare")["state"] == "stopped");
        at.ok(&["rm", "-f", "bare"]);
    } else {
        at.refused(&create, 3, "not_found");
    }
    Ok(())
}

fn no_network(at: &Endpoint) -> Checked {
    if at.engine == Engine::Kubernetes {
        // The network plugin of the lab enforces no policy.
        return Err(Outcome::Untold);
    }
    at.create("alone", &["--network", "none"]);
    assert_eq!(at.sh("alone", "ls /sys/class/net 2>/dev/null || tail -n +3 /proc/net/dev | cut -d: -f1 | xargs"), "lo");
    at.ok(&["rm", "-f", "alone"]);
    Ok(())
}

fn cpus(at: &Endpoint) -> Checked {
    let seen = &at.lives.limited(at).cpus;
    assert!(seen.split_whitespace().eq(["50000", "100000"]), "{seen}");
    Ok(())
}

/// A project with this option, in which a shell line prints this.
fn with(at: &Endpoint, name: &str, option: &[&str], line: &str, wanted: &str) -> Checked {
    at.try_create(name, option)?;
    assert_eq!(at.sh(name, line), wanted);
    at.ok(&["rm", "-f", name]);
    Ok(())
}

fn pids(at: &Endpoint) -> Checked {
    at.try_create("few", &["--pids", "40"])?;
    let seen = at.sh("few", "cd /sys/fs/cgroup; cat pids.max pids/pids.max 2>/dev/null || true");
    // The agent has its own besides.
    assert!(seen.parse().is_ok_and(|most: u32| (40..48).contains(&most)), "{seen}");
    at.ok(&["rm", "-f", "few"]);
    Ok(())
}

fn network_rate(at: &Endpoint) -> Checked {
    with(at, "slow", &["--network-rate", "10MB"], "echo taken", "taken")
}

fn read_only(at: &Endpoint) -> Checked {
    with(at, "sealed", &["--read-only"], "touch /etc/x 2>/dev/null || echo sealed", "sealed")
}

fn cap_drop(at: &Endpoint) -> Checked {
    with(at, "bare-caps", &["--cap-drop", "ALL"], "grep CapEff /proc/self/status | cut -f2", "0000000000000000")
}

fn no_new_privs(at: &Endpoint) -> Checked {
    assert_eq!(at.lives.changed(at).no_new_privs, "1");
    Ok(())
}

fn volume(at: &Endpoint) -> Checked {
    let shared = at.scratch("shared");
    std::fs::create_dir_all(&shared).expect("dir");
    std::fs::write(shared.join("f"), "shared").expect("file");
    let volume = format!("{}:/mnt/shared:ro", shared.display());
    with(at, "sharing", &["--volume", &volume], "cat /mnt/shared/f", "shared")
}

fn user(at: &Endpoint) -> Checked {
    with(at, "someone", &["--user", "1234:1235"], "id -u; id -g", "1234\n1235")
}
