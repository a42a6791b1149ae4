//! Making, starting, stopping and deleting projects; what is said of them.

use std::io::Read as _;
use std::process::Stdio;

use crate::endpoint::{BOX, Check, Checked, Endpoint, present};
use crate::yard::{eventually, finish};

pub const CHECKS: &[Check] = &[
    Check { word: "create", what: "makes a stopped project of what was asked", by: a_project_is_as_asked },
    Check { word: "create", what: "makes up a name", by: a_name_is_made_up },
    Check {
        word: "create",
        what: "of a name that is taken is refused; of four at once one wins",
        by: one_name_is_one_project,
    },
    Check { word: "start", what: "two at once and a third later are one sandbox", by: starts_are_one },
    Check { word: "stop", what: "ends processes with SIGTERM, and is no error twice", by: stop_is_gentle },
    Check { word: "stop --grace", what: "0 ends processes at once", by: stop_without_grace_is_not },
    Check { word: "start", what: "again makes a new sandbox; files, modes, links and times stay", by: files_stay },
    Check { word: "the whole root", what: "stays: a file outside the project's directory", by: the_root_stays },
    Check { word: "rm", what: "leaves nothing, running or not; again is no error with -f", by: rm_leaves_nothing },
    Check { word: "rm", what: "without -f and without a terminal is refused", by: rm_asks },
    Check { word: "ls", what: "shows what runs and what has a label", by: ls_chooses },
    Check { word: "inspect", what: "shows state, runtime, addresses and when it started", by: inspect_shows },
    Check { word: "inspect", what: "of what is not there is `not_found`, exit 3", by: inspect_of_nothing },
    Check { word: "usage", what: "of memory, processes and processors is in `inspect`", by: inspect_shows_usage },
    Check { word: "usage of the disk", what: "is in `inspect`", by: inspect_shows_disk_usage },
    Check {
        word: "run --rm",
        what: "prints what the program does, ends as it does, and leaves nothing",
        by: run_leaves_nothing,
    },
    Check { word: "run --rm", what: "leaves nothing when its caller is killed", by: run_leaves_nothing_when_killed },
    Check { word: "run --name", what: "uses the project that is there, and refuses another", by: run_by_name },
    Check { word: "pause", what: "and `resume` keep what is in memory", by: memory_stays },
    Check { word: "verify", what: "checks the boundary from inside", by: verify_checks },
    Check { word: "image", what: "ls shows the images there are", by: images_are_shown },
    Check { word: "doctor", what: "says what works", by: doctor_says },
];

fn a_project_is_as_asked(at: &Endpoint) -> Checked {
    at.create("made", &["--env", "A=b c", "--label", "team=core", "--cpus", "0.5"]);
    let made = at.inspect("made");
    assert_eq!((&made["state"], &made["sandbox_id"]), (&"stopped".into(), &serde_json::Value::Null), "{made}");
    let spec = &made["spec"];
    assert_eq!((&spec["env"]["A"], &spec["labels"]["team"]), (&"b c".into(), &"core".into()), "{made}");
    assert_eq!((&spec["limits"]["memory"], &spec["limits"]["disk"]), (&(64 << 20).into(), &(1 << 30).into()), "{made}");
    at.ok(&["rm", "-f", "made"]);
    Ok(())
}

fn a_name_is_made_up(at: &Endpoint) -> Checked {
    let name = at.ok(&["create"]);
    assert_eq!(at.inspect(&name)["name"], name.as_str());
    at.ok(&["rm", "-f", &name]);
    Ok(())
}

fn one_name_is_one_project(at: &Endpoint) -> Checked {
    let creates: Vec<_> = (0..4)
        .map(|_| {
            let mut command = at.command(&["create", "same"]);
            std::thread::spawn(move || finish(&mut command, b"").code)
        })
        .collect();
    let mut codes: Vec<i32> = creates.into_iter().map(|create| create.join().expect("create")).collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 4, 4, 4]);
    at.refused(&["create", "same"], 4, "already_exists");
    at.ok(&["rm", "-f", "same"]);
    Ok(())
}

fn starts_are_one(at: &Endpoint) -> Checked {
    at.create("once", &[]);
    let starts: Vec<_> = (0..2)
        .map(|_| {
            let mut command = at.command(&["start", "once"]);
            std::thread::spawn(move || finish(&mut command, b"").code)
        })
        .collect();
    for start in starts {
        assert_eq!(start.join().expect("start"), 0);
    }
    let first = at.inspect("once")["sandbox_id"].clone();
    at.ok(&["start", "once"]);
    assert!(first.is_string() && at.inspect("once")["sandbox_id"] == first, "{first}");
    at.ok(&["rm", "-f", "once"]);
    Ok(())
}

fn stop_is_gentle(at: &Endpoint) -> Checked {
    let life = at.lives.changed(at);
    assert_eq!((life.asked_to_end.as_str(), &life.after_stop), ("asked", &"stopped".into()));
    Ok(())
}

fn stop_without_grace_is_not(at: &Endpoint) -> Checked {
    at.create("at-once", &[]);
    // Nothing runs yet: it is said whether that can be asked at all.
    let stopped = at.ask(&["stop", "--grace", "0", "at-once"]);
    if stopped.is_ok() {
        let line = "trap 'echo asked > asked; exit 0' TERM; echo up; while :; do sleep 0.05; done";
        let process = at.ok(&["exec", "-d", "at-once", "--", "sh", "-c", line]);
        eventually("it runs", || at.garth(&["logs", "at-once", &process]).text() == "up");
        at.ok(&["stop", "--grace", "0", "at-once"]);
        at.sh("at-once", "test ! -e asked");
    }
    at.ok(&["rm", "-f", "at-once"]);
    stopped.map(drop)
}

fn files_stay(at: &Endpoint) -> Checked {
    let life = at.lives.changed(at);
    assert!(life.files.0.contains("4751:2:981173106"), "{}", life.files.0);
    assert_eq!(life.files.0, life.files.1);
    assert_ne!(life.sandboxes.0, life.sandboxes.1);
    Ok(())
}

fn the_root_stays(at: &Endpoint) -> Checked {
    present(at.lives.changed(at).root_stayed)
}

fn rm_leaves_nothing(at: &Endpoint) -> Checked {
    at.create("gone", &[]);
    at.ok(&["start", "gone"]);
    at.sh("gone", "echo old > note");
    at.ok(&["rm", "-f", "gone"]);
    at.refused(&["inspect", "gone"], 3, "not_found");
    at.ok(&["rm", "-f", "gone"]);
    at.create("gone", &[]);
    at.sh("gone", "test ! -e note");
    at.ok(&["rm", "-f", "gone"]);
    Ok(())
}

fn rm_asks(at: &Endpoint) -> Checked {
    at.refused(&["rm", BOX], 5, "not_confirmed");
    at.inspect(BOX);
    Ok(())
}

fn ls_chooses(at: &Endpoint) -> Checked {
    at.create("listed", &["--label", "of=ls"]);
    assert_eq!(at.ok(&["ls", "-q", "-a", "--label", "of=ls"]), "listed");
    assert_eq!(at.ok(&["ls", "-q", "-a", "--label", "of=other"]), "");
    let names = |args: &[&str]| at.ok(args).lines().map(str::to_owned).collect::<Vec<_>>();
    let running = names(&["ls", "-q", "--running"]);
    assert!(running.contains(&BOX.to_owned()) && !running.contains(&"listed".to_owned()), "{running:?}");
    assert!(names(&["ls", "-q", "-a"]).contains(&"listed".to_owned()));
    at.ok(&["rm", "-f", "listed"]);
    Ok(())
}

fn inspect_shows(at: &Endpoint) -> Checked {
    let shown = at.inspect(BOX);
    assert_eq!((&shown["state"], &shown["runtime"]["effective"]), (&"running".into(), &"default".into()), "{shown}");
    for field in ["id", "sandbox_id", "created_at", "started_at"] {
        assert!(shown[field].is_string(), "{field}: {shown}");
    }
    assert!(shown["addresses"]["ipv4"].is_string(), "{shown}");
    Ok(())
}

fn inspect_of_nothing(at: &Endpoint) -> Checked {
    at.refused(&["inspect", "nothing"], 3, "not_found");
    at.refused(&["stop", "nothing"], 3, "not_found");
    Ok(())
}

fn inspect_shows_usage(at: &Endpoint) -> Checked {
    at.sh(BOX, "true");
    let shown = at.inspect(BOX);
    let more_than_nothing = |what: &str| shown["usage"][what].as_u64().is_some_and(|number| number > 0);
    for what in ["memory", "pids", "cpu_micros"] {
        assert!(more_than_nothing(what), "{what}: {shown}");
    }
    Ok(())
}

fn inspect_shows_disk_usage(at: &Endpoint) -> Checked {
    present(at.inspect(BOX)["disk"]["used"].is_u64())
}

fn run_leaves_nothing(at: &Endpoint) -> Checked {
    let done = at.run(&["--rm", "--name", "brief"], &["sh", "-c", "echo $((6*7)); exit 3"]);
    assert_eq!((done.code, done.text().as_str()), (3, "42"), "{done:?}");
    eventually("it is gone", || at.garth(&["inspect", "brief"]).code == 3);
    Ok(())
}

fn run_leaves_nothing_when_killed(at: &Endpoint) -> Checked {
    let mut command = at.command(&["run", "--rm", "--name", "orphan", "--", "sh", "-c", "echo up; sleep 1000"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("run");
    child.stdout.as_mut().expect("piped").read_exact(&mut [0; 3]).expect("output");
    child.kill().expect("killed");
    child.wait().expect("ends");
    eventually("it is gone", || at.garth(&["inspect", "orphan"]).code == 3);
    Ok(())
}

fn run_by_name(at: &Endpoint) -> Checked {
    at.create("named", &["--env", "A=1"]);
    let done = at.garth(&["run", "--name", "named", "--", "sh", "-c", "echo $A"]);
    assert_eq!((done.code, done.text().as_str()), (0, "1"), "{done:?}");
    assert_eq!(at.garth(&["run", "--name", "named", "--memory", "128MiB", "--", "true"]).code, 125);
    assert_eq!(at.garth(&["run", "--name", "named", "--rm", "--", "true"]).code, 125);
    at.ok(&["rm", "-f", "named"]);
    Ok(())
}

fn memory_stays(at: &Endpoint) -> Checked {
    at.create("paused", &[]);
    let count = "i=0; while :; do i=$((i+1)); echo $i > count; sleep 0.05; done";
    let process = at.ok(&["exec", "-d", "paused", "--", "sh", "-c", count]);
    let paused = at.ask(&["pause", "paused"]);
    if let Ok(shown) = &paused {
        assert_eq!(shown["state"], "paused");
        at.ok(&["resume", "paused"]);
        assert!(at.ok(&["ps", "-q", "--running", "paused"]).contains(&process));
    }
    assert_eq!(at.inspect("paused")["state"], "running");
    at.ok(&["rm", "-f", "paused"]);
    paused.map(drop)
}

fn verify_checks(at: &Endpoint) -> Checked {
    let done = at.garth(&["verify", BOX, "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).expect("a report");
    let checks = report["checks"].as_array().unwrap_or_else(|| panic!("no checks: {report}"));
    // A cluster of the tests has no network plugin that carries a policy out, and no disk with a limit.
    assert_eq!(done.code == 0, checks.iter().all(|check| check["passed"] == true), "{report}");
    assert_eq!(at.inspect(BOX)["verified"]["checks"], checks.len(), "{report}");
    Ok(())
}

fn images_are_shown(at: &Endpoint) -> Checked {
    at.ask(&["image", "ls"]).map(|list| assert!(list.to_string().contains("busybox"), "{list}"))
}

fn doctor_says(at: &Endpoint) -> Checked {
    at.ask(&["doctor"]).map(|report| assert!(report["runtimes"].is_array(), "{report}"))
}
