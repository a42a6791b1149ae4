//! The sandbox's own life: how it is entered, what stays of it, what the daemon's end does to it.
use std::os::unix::fs::MetadataExt as _;

use super::{Checked, ONE, Stage, Why, Yard, ensure, equal, eventually, names, on_host};

pub fn read_only_root(stage: &Stage) -> Checked {
    let line = "unshare -m sh -ec 'mount -t tmpfs t /tmp; mount -o remount,bind,ro /; echo x > /run/x; echo x > /tmp/x; ! (echo x > /root/x) 2>/dev/null'";
    stage.sh(ONE, line)?;
    stage.yard.ok(&["create", "sealed", "--runtime", "sysbox", "--network", "none", "--read-only"]);
    let line = "echo x > /run/x && echo x > /tmp/x && echo x > /dev/shm/x && ! touch /root/x 2>/dev/null && \
                ! touch /etc/x 2>/dev/null && ! touch /usr/x 2>/dev/null && ! mount -o remount,bind,rw / 2>/dev/null && \
                ! mount -o remount,rw / 2>/dev/null && ! unshare -m mount -o remount,bind,rw / 2>/dev/null && \
                head -1 /proc/meminfo";
    let done = stage.sh("sealed", line);
    stage.yard.ok(&["rm", "-f", "sealed"]);
    ensure(done?.starts_with("MemTotal:"), "the virtual files are not there")
}

pub fn shared(stage: &Stage) -> Checked {
    let file = crate::yard::scratch(&stage.yard, "mine", b"text");
    std::os::unix::fs::chown(&file, Some(1000), Some(1000)).expect("chown");
    stage.yard.ok(&["cp", &file.to_string_lossy(), &format!("{ONE}:/root/mine")]);
    equal("text", &stage.sh(ONE, "cat /root/mine")?, "text")?;
    let dir = tempfile::Builder::new().prefix("garth-shared.").tempdir_in("/var/tmp").expect("a directory");
    let mine = dir.path().join("mine");
    std::fs::write(&mine, "text").expect("write");
    std::os::unix::fs::chown(&mine, Some(1000), Some(1000)).expect("chown");
    let volume = format!("{}:/shared", dir.path().display());
    let shares = ["create", "shares", "--runtime", "sysbox", "--network", "none", "-v", &volume];
    stage.yard.ok(&shares);
    let seen =
        stage.sh("shares", "stat -c %u:%g /shared/mine; touch /shared/root /shared/user; chown 1000:1000 /shared/user");
    stage.yard.ok(&["rm", "-f", "shares"]);
    equal("the host's file, inside", &seen?, "1000:1000")?;
    let owner = |name: &str| std::fs::metadata(dir.path().join(name)).map(|found| (found.uid(), found.gid())).ok();
    ensure(owner("root") == Some((0, 0)) && owner("user") == Some((1000, 1000)), "files made inside have other owners")
}

pub fn exec(stage: &Stage) -> Checked {
    let line = "for n in user mnt net ipc uts pid cgroup time; do readlink /proc/self/ns/$n; done; cat /proc/self/cgroup; \
                grep -E '^(Seccomp|NoNewPrivs|CapBnd):' /proc/self/status; cat /proc/self/uid_map";
    equal("a second one", &stage.sh(ONE, line)?, &stage.sh(ONE, line)?)?;
    let filter = stage.sh(ONE, "grep -E '^Seccomp:' /proc/self/status /proc/1/status | cut -f2 | sort -u")?;
    equal("filters", &filter, "2")?;
    for wrong in ["=x", "A B=\0"] {
        if !wrong.contains('\0') {
            let done = stage.yard.garth(&["exec", "-e", wrong, ONE, "--", "true"]);
            ensure(done.code != 0, format!("the environment {wrong} is taken"))?;
        }
    }
    ensure(stage.yard.garth(&["exec", "-u", "nobody-knows", ONE, "--", "true"]).code != 0, "an unknown user is taken")
}

pub fn daemon_killed(_: &Stage) -> Checked {
    let yard = Yard::new();
    yard.ok(&["create", "stays", "--runtime", "sysbox", "--memory", "512MiB", "--network", "none"]);
    let line = "i=0; while head -1 /proc/meminfo && head -1 /proc/uptime && unshare -Urmpf --mount-proc grep MemTotal /proc/meminfo; \
                do i=$((i+1)); echo round $i > /root/round; done > /dev/null 2> /root/wrong; echo ended > /root/round";
    yard.ok(&["exec", "-d", "stays", "--", "sh", "-c", line]);
    let round = || -> u64 {
        let text = yard.sh("stays", "cat /root/round 2>/dev/null || true");
        text.strip_prefix("round ").and_then(|number| number.parse().ok()).unwrap_or(0)
    };
    eventually("it reads", || round() > 2);
    let (before, init) = (round(), yard.inits());
    yard.kill_daemon();
    // Reads and mounts while nobody is there: its processes are seen by the host.
    let pid = init.first().copied().unwrap_or_default();
    let reads = || on_host(&format!("/proc/{pid}/root/root/round"));
    let then = reads();
    eventually("it reads and mounts without a daemon", || reads() != then && reads().starts_with("round"));
    ensure(yard.inits() == init, "another sandbox")?;
    // It may be read while it is written.
    eventually("it went on", || round() > before);
    let after = round();
    eventually("it goes on", || round() > after + 2);
    equal("errors", &yard.sh("stays", "cat /root/wrong"), "")?;
    equal("meminfo", &yard.sh("stays", "head -1 /proc/meminfo"), "MemTotal:         524288 kB")
}

/// The sandbox itself: owners are as they were, and so is the process that made them.
pub fn paused(stage: &Stage) -> Checked {
    let line = "rm -rf /root/asleep; mkdir /root/asleep; touch /root/asleep/f; chown 1000:1000 /root/asleep/f; exec 9> /root/asleep/held; \
                flock 9; exec sleep infinity";
    let process = stage.yard.ok(&["exec", "-d", ONE, "--", "sh", "-c", line]);
    eventually("it holds its lock", || !stage.yard.sh_succeeds(ONE, "flock -n /root/asleep/held true"));
    stage.yard.ok(&["pause", ONE]);
    equal("state", stage.yard.json(&["inspect", ONE])["state"].as_str().unwrap_or_default(), "paused")?;
    stage.yard.ok(&["resume", ONE]);
    equal("the file's owner", &stage.sh(ONE, "stat -c %u:%g /root/asleep/f")?, "1000:1000")?;
    let held = !stage.yard.sh_succeeds(ONE, "flock -n /root/asleep/held true");
    stage.yard.ok(&["kill", ONE, &process]);
    ensure(held, "the process that held the lock is gone")
}

/// Also while the daemon is gone, which then makes another when it is back.
pub fn keeper_killed(_: &Stage) -> Checked {
    let yard = Yard::new();
    yard.ok(&["create", "stays", "--runtime", "sysbox", "--memory", "512MiB", "--network", "none"]);
    let line =
        "head -1 /proc/meminfo; mkdir -p /root/p; mount -t proc p /root/p; head -1 /root/p/meminfo; umount /root/p";
    let whole = "MemTotal:         524288 kB\nMemTotal:         524288 kB";
    equal("before", &yard.sh("stays", line), whole)?;
    let init = yard.inits().first().copied().unwrap_or_default();
    let killed = kill_keeper(init)?;
    equal("after its end", &yard.sh("stays", line), whole)?;
    ensure(keeper(init)? != killed, "it was not killed")?;
    yard.kill_daemon();
    kill_keeper(init)?;
    equal("after its end and the daemon's", &yard.sh("stays", "head -1 /proc/meminfo"), "MemTotal:         524288 kB")?;
    ensure(yard.inits().first() == Some(&init), "another sandbox")
}

/// The one process of the sandbox's root on the host that is not in the sandbox's pid namespace.
fn keeper(init: i32) -> Result<i32, Why> {
    let field = |status: &str, name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(|rest| rest.split_whitespace().map(str::to_owned).collect())
    };
    let of = |pid: i32, name: &str| -> Vec<String> {
        field(&on_host(&format!("/proc/{pid}/status")), name).unwrap_or_default()
    };
    let user = of(init, "Uid:");
    let pids = names("/proc").into_iter().filter_map(|name| name.parse::<i32>().ok());
    let found = pids.filter(|pid| of(*pid, "Uid:") == user && of(*pid, "NSpid:").len() == 1).max();
    found.ok_or_else(|| Why::Fail("there is no keeper".to_owned()))
}

fn kill_keeper(init: i32) -> Result<i32, Why> {
    let pid = keeper(init)?;
    let done = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status();
    ensure(done.is_ok_and(|status| status.success()), "it cannot be killed")?;
    eventually("it is gone", || !on_host(&format!("/proc/{pid}/status")).contains("NSpid:\t"));
    Ok(pid)
}

pub fn cycles(_: &Stage) -> Checked {
    let yard = Yard::new();
    yard.ok(&["create", "again", "--runtime", "sysbox", "--network", "none"]);
    let daemon = |yard: &Yard| yard.daemon_pid().unwrap_or_default();
    let cycle = || {
        yard.ok(&["start", "again"]);
        yard.ok(&["stop", "--grace", "0", "again"]);
    };
    // Slots that are made ahead are there from now on.
    (0..5).for_each(|_| cycle());
    let counts = || {
        let locks = on_host("/proc/locks").lines().count();
        let mounts = on_host("/proc/self/mountinfo").lines().count();
        let own = |dir: &str| names(&format!("/proc/{}/{dir}", daemon(&yard))).len();
        let tag = names("/sys/fs/cgroup").len();
        (own("fd"), own("task"), mounts, locks, tag)
    };
    let before = counts();
    (0..500).for_each(|_| cycle());
    let mut last = before;
    // Others on the machine lock files and mount as well: what counts is that it comes back.
    eventually("the counts come back", || {
        last = counts();
        last.0 <= before.0 + 4 && last.1 <= before.1 + 4 && last.2 <= before.2 + 2 && last.3 <= before.3 + 4
    });
    let groups = cgroups_of(&yard);
    ensure(groups < 40, format!("{groups} cgroups are left"))
}

/// Directories of slots of this daemon, in any hierarchy.
fn cgroups_of(yard: &Yard) -> usize {
    let log = std::fs::read_to_string(yard.data_dir().join("garth.log")).unwrap_or_default();
    let tag = log.split("\"tag\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("none").to_owned();
    let roots = names("/sys/fs/cgroup").into_iter().map(|name| format!("/sys/fs/cgroup/{name}/garth-{tag}"));
    roots
        .chain([format!("/sys/fs/cgroup/garth-{tag}")])
        .map(|root| names(&root).iter().filter(|name| std::path::Path::new(&format!("{root}/{name}")).is_dir()).count())
        .max()
        .unwrap_or(0)
}
