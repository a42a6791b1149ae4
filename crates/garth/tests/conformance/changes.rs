//! `set`: what holds at once, what holds with the next start and is said to, what is refused.

use crate::endpoint::{BOX, Check, Checked, Endpoint, present};
use crate::lives::words;

pub const CHECKS: &[Check] = &[
    Check { word: "set --label", what: "and --unset-label change labels", by: labels },
    Check { word: "set --env", what: "is said to hold with the next start, and does", by: env },
    Check { word: "set --workdir", what: "is where processes run", by: workdir },
    Check {
        word: "set --memory",
        what: "is a limit: what is over it is killed, and the sandbox goes on",
        by: memory_holds,
    },
    Check {
        word: "limits at once",
        what: "a running sandbox has another limit of memory without a new start",
        by: at_once,
    },
    Check { word: "set --disk", what: "grows", by: disk_grows },
    Check {
        word: "set --disk",
        what: "a disk smaller than what is on it is refused, and stays as it was",
        by: disk_stays,
    },
    Check {
        word: "set",
        what: "of nothing, of a project that is not there, of a value that is none: exit 2, 3, 2",
        by: nonsense,
    },
];

fn labels(at: &Endpoint) -> Checked {
    at.create("labelled", &["--label", "a=1", "--label", "b=2"]);
    at.ok(&["set", "labelled", "--label", "a=3", "--unset-label", "b"]);
    assert_eq!(at.inspect("labelled")["spec"]["labels"], serde_json::json!({ "a": "3" }));
    at.ok(&["rm", "-f", "labelled"]);
    Ok(())
}

fn env(at: &Endpoint) -> Checked {
    let life = at.lives.changed(at);
    assert_eq!(words(&life.set_env["at_next_start"]), ["env", "workdir"], "{}", life.set_env);
    assert_eq!((life.env.0.as_str(), life.env.1.as_str()), ("1", "2"));
    Ok(())
}

fn workdir(at: &Endpoint) -> Checked {
    let (before, after) = &at.lives.changed(at).workdir;
    assert!(before != after && after == "/etc", "{before} {after}");
    Ok(())
}

fn memory_holds(at: &Endpoint) -> Checked {
    let seen = at.lives.limited(at);
    assert!(seen.code != 0 && seen.kept == "kept" && seen.code_with_more == 0, "{seen:?}");
    Ok(())
}

fn at_once(at: &Endpoint) -> Checked {
    present(at.lives.limited(at).waiting.is_empty())
}

fn disk_grows(at: &Endpoint) -> Checked {
    at.create("grown", &[]);
    at.ok(&["set", "grown", "--disk", "2GiB"]);
    assert_eq!(at.inspect("grown")["disk"]["limit"], 2u64 << 30);
    at.ok(&["rm", "-f", "grown"]);
    Ok(())
}

fn disk_stays(at: &Endpoint) -> Checked {
    at.sh(BOX, "head -c 100000000 /dev/urandom > ~/big; sync");
    let done = at.garth(&["set", BOX, "--disk", "64MiB"]);
    assert!(matches!(done.code, 2 | 6), "{done:?}");
    assert_eq!(at.inspect(BOX)["spec"]["limits"]["disk"], 1 << 30);
    at.sh(BOX, "rm ~/big");
    Ok(())
}

fn nonsense(at: &Endpoint) -> Checked {
    assert_eq!(at.garth(&["set", BOX]).code, 2);
    at.refused(&["set", "nothing", "--label", "a=1"], 3, "not_found");
    at.refused(&["set", BOX, "--memory", "1MiB"], 2, "invalid_request");
    Ok(())
}
