//! Users, capabilities, descriptors.
use crate::stage::{Check, Checked, ONE, Stage, TWO, Why, ensure, equal, fail};

pub const CHECKS: &[Check] = &[
    Check { number: 1, what: "a sandbox has 65536 ids, and its root is not the host's", by: ids },
    Check { number: 2, what: "no two running sandboxes share an id (+)", by: ranges },
    Check { number: 3, what: "id 65534 is there, and files keep it", by: nobody },
    Check { number: 4, what: "on the host, all its processes are an unprivileged user's", by: on_the_host },
    Check { number: 5, what: "root has all capabilities, `--user 1000` none, both may gain all", by: capabilities },
    Check { number: 6, what: "an option limits the capabilities of what is started", by: fewer_capabilities },
    Check { number: 7, what: "no descriptor or working directory of the host leaks in", by: descriptors },
    Check { number: 8, what: "no process that is seen inside shows a mount of the host", by: helpers },
];

/// The first id on the host.
fn base(stage: &Stage, name: &str) -> Result<(u64, u64), Why> {
    let map = std::fs::read_to_string(format!("/proc/{}/uid_map", stage.init(name)?)).unwrap_or_default();
    let words: Vec<u64> = map.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match words[..] {
        [0, base, count] => Ok((base, count)),
        _ => fail(format!("the map is {map}")),
    }
}

fn ids(stage: &Stage) -> Checked {
    let inside = stage.sh(ONE, "cat /proc/self/uid_map /proc/self/gid_map | tr -s ' ' | sort -u")?;
    equal("uid_map and gid_map inside", inside.trim(), "0 0 65536")?;
    let (base, count) = base(stage, ONE)?;
    ensure(base >= 65536 && count == 65536, format!("{count} ids from {base} on"))
}

fn ranges(stage: &Stage) -> Checked {
    let (one, two) = (base(stage, ONE)?.0, base(stage, TWO)?.0);
    ensure(one.abs_diff(two) >= 65536, format!("ids from {one} on and from {two} on"))
}

fn nobody(stage: &Stage) -> Checked {
    let line = "f=$(mktemp); chown 65534:65535 $f; stat -c %u:%g $f; rm $f";
    equal("owner", &stage.sh(ONE, line)?, "65534:65535")?;
    equal("as nobody", &stage.sh_as("65534:65534", ONE, "id -u")?, "65534")
}

fn on_the_host(stage: &Stage) -> Checked {
    let (base, count) = base(stage, ONE)?;
    let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = namespace(&stage.init(ONE)?.to_string());
    stage.yard.ok(&["exec", "-d", ONE, "--", "sleep", "600"]);
    let mut seen = 0;
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        if own.is_none() || namespace(&pid) != own {
            continue;
        }
        let status = std::fs::read_to_string(entry.path().join("status")).unwrap_or_default();
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        for id in ids.split_whitespace().filter_map(|word| word.parse::<u64>().ok()) {
            ensure((base..base + count).contains(&id), format!("process {pid} has the user {id}"))?;
        }
        seen += 1;
    }
    ensure(seen >= 2, "the host sees no process of it")
}

fn capabilities(stage: &Stage) -> Checked {
    let line = "set -- $(grep -E 'Cap(Eff|Bnd)' /proc/self/status); echo $2 $4";
    let all = format!("{:016x}", (1u64 << (on_host_last() + 1)) - 1);
    equal("root", &stage.sh(ONE, line)?, &format!("{all} {all}"))?;
    equal("1000", &stage.sh_as("1000", ONE, line)?, &format!("0000000000000000 {all}"))
}

fn on_host_last() -> u32 {
    crate::stage::on_host("/proc/sys/kernel/cap_last_cap").parse().unwrap_or(40)
}

fn fewer_capabilities(stage: &Stage) -> Checked {
    let line = "setpriv --bounding-set=-all,+chown --inh-caps=-all grep CapEff /proc/self/status | cut -f2";
    equal("by setpriv", &stage.sh(ONE, line)?, "0000000000000001")?;
    let few = ["create", "few", "--runtime", "sysbox", "--network", "none", "--cap-drop", "ALL", "--cap-add", "CHOWN"];
    stage.yard.ok(&few);
    let sets = stage.sh("few", "grep -E '^Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2 | sort -u");
    stage.yard.ok(&["rm", "-f", "few"]);
    equal("by the option", &sets?, "0000000000000001")
}

fn descriptors(stage: &Stage) -> Checked {
    let open = stage.sh(ONE, "for f in /proc/self/fd/*; do readlink $f || true; done")?;
    let known = |target: &str| ["pipe:", "/dev/null", "/proc/"].iter().any(|start| target.starts_with(start));
    ensure(open.lines().all(known), format!("open: {open}"))?;
    // CVE-2024-21626.
    for number in 3..12 {
        let at = format!("/proc/self/fd/{number}");
        let done = stage.yard.garth(&["exec", "-w", &at, ONE, "--", "sh", "-c", "ls ../../../../../var/tmp"]);
        let leaks = done.code == 0 && done.text().contains("garth-test.");
        ensure(!leaks, format!("{at} as a working directory is the host's"))?;
    }
    Ok(())
}

fn helpers(stage: &Stage) -> Checked {
    let seen =
        stage.sh(ONE, "for p in /proc/[0-9]*; do cat $p/mountinfo 2>/dev/null || true; ls $p/root/ || true; done")?;
    let data = stage.yard.data_dir().to_string_lossy().into_owned();
    for word in [data.as_str(), "/stage", "stage\n"] {
        ensure(!seen.contains(word), format!("{word} is seen"))?;
    }
    Ok(())
}
