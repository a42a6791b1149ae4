//! Limits: that they are set, and that they hold.

use garth_spec::Observed;
use garth_verify::Verdict;
use garth_verify::judge::{bytes_of, errno, field, name, outcome};

use super::Evidence;

/// The cgroup has the limit, and where it was tried, taking more ends whoever does.
pub(in crate::verify) fn memory(evidence: &Evidence<'_>) -> Verdict {
    const PAGE: u64 = 4096;
    let wanted = evidence.facts.subject.limits.memory.bytes();
    let set = evidence.facts.host.memory.ok_or_else(|| "the limit cannot be read".to_owned())?;
    // The kernel counts in pages.
    if set / PAGE != wanted / PAGE {
        return Err(format!("the limit is {}, not {}", bytes_of(set), bytes_of(wanted)));
    }
    match evidence.tried {
        [] => Ok(format!("the limit is {}", bytes_of(set))),
        [(_, Observed::Killed)] if evidence.facts.host.oom_kills > 0 => {
            Ok(format!("the limit is {}, and who takes more is killed", bytes_of(set)))
        }
        [(one, observed), ..] => Err(format!("{} under {}: {}", name(one), bytes_of(set), outcome(observed))),
    }
}

/// The cgroup has the limit, and where it was tried, the kernel refuses one more.
pub(in crate::verify) fn pids(evidence: &Evidence<'_>) -> Verdict {
    let wanted = u64::from(evidence.facts.subject.limits.pids);
    let set = evidence.facts.host.pids.ok_or_else(|| "the limit cannot be read".to_owned())?;
    // On cgroup v1 the spawner is in there too.
    if set != wanted && set != wanted + 1 {
        return Err(format!("the limit is {set}, not {wanted}"));
    }
    match evidence.tried {
        [] => Ok(format!("the limit is {wanted}")),
        [(_, Observed::Errno(errno::AGAIN))] => Ok(format!("the limit is {wanted}, and more are refused")),
        [(one, observed), ..] => Err(format!("{} under {wanted}: {}", name(one), outcome(observed))),
    }
}

/// The cgroup has the limit.
pub(in crate::verify) fn cpus(evidence: &Evidence<'_>) -> Verdict {
    let wanted = u64::from(evidence.facts.subject.limits.cpus.millis());
    let words = |millis: u64| format!("{}.{:03}", millis / 1000, millis % 1000);
    match evidence.facts.host.cpus {
        Some(set) if set == wanted => Ok(format!("the limit is {} processors", words(set))),
        Some(set) => Err(format!("the limit is {} processors, not {}", words(set), words(wanted))),
        None => Err("the limit cannot be read, or there is none".to_owned()),
    }
}

/// The disk has the limit.
pub(in crate::verify) fn disk(evidence: &Evidence<'_>) -> Verdict {
    let wanted = evidence.facts.subject.limits.disk;
    match evidence.facts.host.disk.map(|disk| disk.limit) {
        Some(Some(set)) if set == wanted => Ok(format!("the limit is {set}")),
        Some(Some(set)) => Err(format!("the limit is {set}, not {wanted}")),
        Some(None) => Err("the pool has no limits here (overlay driver): see garth doctor".to_owned()),
        None => Err("the disk cannot be looked at".to_owned()),
    }
}

/// `/proc` shows what the sandbox may use and how long it has been there, not the machine's.
pub(in crate::verify) fn numbers(evidence: &Evidence<'_>) -> Verdict {
    let text = |at: usize| match evidence.tried.get(at) {
        Some((_, Observed::Text(text))) => Ok(text.as_str()),
        Some((one, observed)) => Err(format!("{}: {}", name(one), outcome(observed))),
        None => Err("nothing was read".to_owned()),
    };
    let (meminfo, cpuinfo, stat, online, uptime) = (text(0)?, text(1)?, text(2)?, text(3)?, text(4)?);
    let limits = &evidence.facts.subject.limits;
    let kib = field(meminfo, "MemTotal").and_then(|total| total.split(' ').next()?.parse::<u64>().ok());
    match kib {
        Some(kib) if kib << 10 <= limits.memory.bytes() => {}
        _ => return Err(format!("MemTotal is {kib:?} KiB, above the limit of {}", limits.memory)),
    }
    let most = u64::from(limits.cpus.millis()).div_ceil(1000);
    let processors = cpuinfo.lines().filter(|line| line.starts_with("processor")).count() as u64;
    let counted = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count() as u64;
    for (what, count) in [("cpuinfo", processors), ("stat", counted), ("cpu/online", in_list(online))] {
        if count == 0 || count > most {
            return Err(format!("{what} shows {count} processors, the limit is {most}"));
        }
    }
    let up = uptime.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok());
    match (up, evidence.facts.host.age) {
        (Some(up), Some(age)) if up <= age.as_secs() + 5 => {}
        _ => return Err(format!("uptime is {up:?} s, the sandbox is {:?} old", evidence.facts.host.age)),
    }
    Ok(format!("{} KiB of memory, {processors} processors, up {} s", kib.unwrap_or(0), up.unwrap_or(0)))
}

/// How many numbers a list such as `0-3,7` names.
pub(super) fn in_list(list: &str) -> u64 {
    let part = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        last.checked_sub(first).map(|more| more + 1)
    };
    list.split(',').filter_map(part).sum()
}
