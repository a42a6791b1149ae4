//! Projects whose whole life several checks look at: starting one takes seconds on a cluster.

use std::sync::OnceLock;

use serde_json::Value;

use crate::endpoint::Endpoint;
use crate::yard::eventually;

#[derive(Default)]
pub struct Lives {
    changed: OnceLock<Changed>,
    limited: OnceLock<Limited>,
}

/// A project that ran, was stopped and changed, and ran again. Pairs are before and after.
#[derive(Debug, Default)]
pub struct Changed {
    /// What it was before its first command.
    pub first: Value,
    pub sandboxes: (Value, Value),
    /// Modes, links, times and content.
    pub files: (String, String),
    /// Whether a file outside the project's directory stayed.
    pub root_stayed: bool,
    /// What a process wrote when it was asked to end.
    pub asked_to_end: String,
    pub after_stop: Value,
    pub env: (String, String),
    pub workdir: (String, String),
    /// What `set` said of each while it ran.
    pub set_env: Value,
    pub no_new_privs: String,
    /// What an ended process had written, once there was another sandbox.
    pub earlier_log: String,
    /// The code that a process of the first sandbox is known to have ended with.
    pub earlier_code: i32,
}

/// A project that wants more memory than it has.
#[derive(Debug, Default)]
pub struct Limited {
    /// How it ended.
    pub code: i32,
    /// What its disk held afterwards.
    pub kept: String,
    /// Microseconds of processor time, of how many.
    pub cpus: String,
    /// What a change said that waits for the next start.
    pub waiting: Vec<String>,
    /// How the same ended with enough memory.
    pub code_with_more: i32,
}

const SEEN: &str = "stat -c %a d; stat -c %a:%h:%Y d/f; readlink d/l; cat d/l";

/// Holds 120 MB for a moment.
const GREEDY: &str = "head -c 120000000 /dev/zero | tail -c 119000000 | wc -c | grep -q 119000000";

impl Lives {
    pub fn changed(&self, at: &Endpoint) -> &Changed {
        self.changed.get_or_init(|| change(at))
    }

    pub fn limited(&self, at: &Endpoint) -> &Limited {
        self.limited.get_or_init(|| limit(at))
    }
}

fn change(at: &Endpoint) -> Changed {
    const NAME: &str = "life";
    at.create(NAME, &["--env", "A=1", "--no-new-privs"]);
    let first = at.inspect(NAME)["state"].clone();
    let make =
        "mkdir -m 750 d; echo kept > d/f; ln d/f d/g; ln -s f d/l; chmod 4751 d/f; touch -d '2001-02-03 04:05:06' d/f";
    at.sh(NAME, &format!("{make}; mkdir /tmp/beside; echo kept > /tmp/beside/note"));
    let surroundings = "echo $A; pwd; grep NoNewPrivs /proc/self/status | cut -f2";
    let before = at.sh(NAME, surroundings);
    let before: Vec<&str> = before.lines().collect();
    let sandbox = at.inspect(NAME)["sandbox_id"].clone();
    let files = at.sh(NAME, SEEN);
    let ended = at.ok(&["exec", "-d", NAME, "--", "sh", "-c", "echo before; exit 4"]);
    at.garth(&["wait", NAME, &ended]);
    let line = "trap 'echo asked > asked; exit 0' TERM; echo up; while :; do sleep 0.05; done";
    let writes = at.ok(&["exec", "-d", NAME, "--", "sh", "-c", line]);
    eventually("it runs", || at.garth(&["logs", NAME, &writes]).text() == "up");
    let set_env = at.ask(&["set", NAME, "--env", "A=2", "--workdir", "/etc"]).expect("set is everywhere");
    at.ok(&["stop", NAME]);
    let after_stop = at.inspect(NAME)["state"].clone();
    at.ok(&["stop", NAME]);
    at.ok(&["start", NAME]);
    let after = at.sh(NAME, surroundings);
    let after: Vec<&str> = after.lines().collect();
    let in_home = |line: &str| at.sh(NAME, &format!("cd {}; {line}", before[1]));
    let changed = Changed {
        first,
        sandboxes: (sandbox, at.inspect(NAME)["sandbox_id"].clone()),
        files: (files, in_home(SEEN)),
        root_stayed: at.garth(&["exec", NAME, "--", "cat", "/tmp/beside/note"]).text() == "kept",
        asked_to_end: in_home("cat asked || true"),
        after_stop,
        env: (before[0].to_owned(), after[0].to_owned()),
        workdir: (before[1].to_owned(), after[1].to_owned()),
        set_env,
        no_new_privs: before[2].to_owned(),
        earlier_log: at.ok(&["logs", NAME, &ended]),
        earlier_code: at.garth(&["wait", NAME, &ended]).code,
    };
    at.ok(&["rm", "-f", NAME]);
    changed
}

fn limit(at: &Endpoint) -> Limited {
    const NAME: &str = "limited";
    at.create(NAME, &["--cpus", "0.5"]);
    at.sh(NAME, "echo kept > note");
    let greedy = || at.garth(&["exec", NAME, "--", "sh", "-c", GREEDY]).code;
    let code = greedy();
    let kept = at.sh(NAME, "cat note");
    // Of the one cgroup version or the other.
    let quota = "cd /sys/fs/cgroup; cat cpu.max cpu/cpu.cfs_quota_us cpu/cpu.cfs_period_us 2>/dev/null || true";
    let cpus = at.sh(NAME, quota);
    let changed = at.ask(&["set", NAME, "--memory", "512MiB"]).expect("set is everywhere");
    let waiting: Vec<String> = words(&changed["at_next_start"]);
    if !waiting.is_empty() {
        at.ok(&["restart", NAME]);
    }
    // On a cluster its node carries that out, soon.
    let mut code_with_more = code;
    eventually("more memory", || {
        code_with_more = greedy();
        code_with_more == 0
    });
    at.ok(&["rm", "-f", NAME]);
    Limited { code, kept, cpus, waiting, code_with_more }
}

/// A list of words.
pub fn words(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(|word| word.as_str().map(str::to_owned)).collect()
}
