//! From what was seen to pass or fail, with the evidence in words. Pure.

mod guest;
mod jail;
mod limits;
mod mounts;

use garth_spec::{Observed, Try};
use garth_verify::Verdict;
use garth_verify::judge::{capability_set, each, errno, field, is_unreachable, name, outcome, ranges, refused};

use super::level::{Expect, Users};
use super::{Facts, Subject};

pub(super) use guest::{kernel, neighbours_on_the_wire, own_processes, refused_on_the_wire, size};
pub(super) use jail::{accelerator, jailed_user, machine_memory, open, powerless, shown, threads};
pub(super) use limits::{cpus, disk, memory, numbers, pids};
pub(super) use mounts::mounts;

/// What a check is judged by.
pub(super) type Evidence<'a> = garth_verify::Evidence<'a, Facts>;

fn expected(evidence: &Evidence<'_>, expect: Expect) -> Verdict {
    match expect {
        Expect::Refused => refused(evidence),
        Expect::Works => each(evidence, |_, observed| *observed == Observed::Done),
    }
}

/// Mounting, as the level has it.
pub(super) fn mounting(evidence: &Evidence<'_>) -> Verdict {
    // CAP_SYS_ADMIN, which a project can be without.
    let may = evidence.facts.subject.capabilities & 1 << 21 != 0;
    expected(evidence, if may { evidence.facts.subject.level.mount } else { Expect::Refused })
}

/// A new user namespace, as the level has it.
pub(super) fn user_namespace(evidence: &Evidence<'_>) -> Verdict {
    expected(evidence, evidence.facts.subject.level.user_namespace)
}

const NO_NEIGHBOUR: &str = "no other sandbox of this daemon has an address now";

/// Blocked somewhere: no answer is as good as a refusal, but not one from the other end.
pub(super) fn unreachable(evidence: &Evidence<'_>) -> Verdict {
    if evidence.tried.is_empty() {
        return Ok(NO_NEIGHBOUR.to_owned());
    }
    each(evidence, |_, observed| is_unreachable(observed))
}

/// Nobody reached this host's listeners. That a rule answers with a reset is as good: the host sees who connected.
pub(super) fn host_unreachable(evidence: &Evidence<'_>) -> Verdict {
    if let Some(peer) = evidence.facts.host.connected.first() {
        return Err(format!("this host was reached from {peer}"));
    }
    if evidence.tried.is_empty() {
        return Err("this host has no address to try".to_owned());
    }
    each(evidence, |_, observed| matches!(observed, Observed::Errno(_)))
}

/// No set of the init holds more than the level has, and none of a process in it more than the project has of that. The
/// init is the agent, which keeps what it needs; what it starts is bound as its own bounding set says.
pub(super) fn capabilities(evidence: &Evidence<'_>) -> Verdict {
    let Subject { level, capabilities: own, .. } = &evidence.facts.subject;
    let mut seen = Vec::new();
    let inside = evidence.tried.iter().map(|(_, observed)| match observed {
        Observed::Text(status) => ("a process", status.as_str()),
        _ => ("a process", ""),
    });
    for (who, status) in [("init", evidence.facts.host.status.as_str())].into_iter().chain(inside) {
        for name in ["CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            let set = capability_set(status, name).ok_or_else(|| format!("{name} of {who} cannot be read"))?;
            let allowed = if who == "init" && name != "CapBnd" { level.capabilities } else { *own };
            if set & !allowed != 0 {
                return Err(format!("{who} has {name} {set:#x}, of which {:#x} is too much", set & !allowed));
            }
            if name == "CapBnd" {
                seen.push(format!("{name} of {who} is {set:#x}"));
            }
        }
    }
    Ok(seen.join(", "))
}

/// A filter decides about system calls.
pub(super) fn filtered(evidence: &Evidence<'_>) -> Verdict {
    match field(&evidence.facts.host.status, "Seccomp") {
        Some("2") => {
            Ok(format!("init has {} filters", field(&evidence.facts.host.status, "Seccomp_filters").unwrap_or("some")))
        }
        Some(mode) => Err(format!("seccomp mode of init is {mode}, not 2")),
        None => Err("the seccomp mode of init cannot be read".to_owned()),
    }
}

/// The ids inside are the host's, or a range of its own, as the level has it.
pub(super) fn users(evidence: &Evidence<'_>) -> Verdict {
    let host = &evidence.facts.host;
    let init = field(&host.status, "Uid").and_then(|ids| ids.split_whitespace().next()?.parse::<u64>().ok());
    let init = init.ok_or_else(|| "the user of init cannot be read".to_owned())?;
    let mut seen = vec![format!("init is uid {init} on the host")];
    for (what, map) in [("uids", &host.uid_map), ("gids", &host.gid_map)] {
        let ranges = ranges(map).ok_or_else(|| format!("the map of {what} cannot be read"))?;
        match evidence.facts.subject.level.users {
            Users::Hosts if ranges == [(0, 0, u64::from(u32::MAX))] => seen.push(format!("{what} are the host's")),
            Users::Own { from, count } if is_own(&ranges, from, count) && init >= from => {
                seen.push(format!("{what} are {count} from {} on", ranges[0].1));
            }
            _ => return Err(format!("{}, {what} are mapped {ranges:?}", seen.join(", "))),
        }
    }
    Ok(seen.join(", "))
}

fn is_own(ranges: &[(u64, u64, u64)], from: u64, count: u64) -> bool {
    ranges.iter().all(|(_, outside, _)| *outside >= from)
        && ranges.iter().map(|(_, _, count)| *count).sum::<u64>() == count
}

/// No namespace of the level is the host's.
pub(super) fn namespaces(evidence: &Evidence<'_>) -> Verdict {
    let wanted = evidence.facts.subject.level.namespaces;
    for kind in wanted {
        match evidence.facts.host.shared.iter().find(|(name, _)| name == kind) {
            Some((_, false)) => {}
            Some((_, true)) => return Err(format!("the {kind} namespace is the host's")),
            None => return Err(format!("the {kind} namespace cannot be read")),
        }
    }
    // The last number of NSpid is the id in the innermost namespace.
    let ids: Vec<&str> = field(&evidence.facts.host.status, "NSpid").unwrap_or_default().split_whitespace().collect();
    match ids[..] {
        [_, .., "1"] => Ok(format!("{} are its own, and init is pid 1", wanted.join(" "))),
        _ => Err(format!("the ids of init are {ids:?}, not 1 in a namespace of its own")),
    }
}

/// Only device nodes of the level.
pub(super) fn devices(evidence: &Evidence<'_>) -> Verdict {
    garth_verify::judge::devices(evidence, evidence.facts.subject.level.devices)
}

/// Nothing of the host is in the list of processes, and none of the host's can be signalled.
pub(super) fn processes(evidence: &Evidence<'_>) -> Verdict {
    let [(_, Observed::Text(list)), signals @ ..] = evidence.tried else {
        return Err("the processes could not be listed".to_owned());
    };
    let pids: Vec<i32> = list.lines().filter_map(|name| name.parse().ok()).collect();
    let known = evidence.facts.host.processes.ok_or_else(|| "the host cannot count its processes".to_owned())?;
    // Some may have ended since.
    if pids.len() as u64 > known + SLACK {
        return Err(format!("{} processes are seen, but {known} are its own", pids.len()));
    }
    for (one, observed) in signals {
        let own = matches!(one, Try::Signal(pid) if pids.contains(pid));
        if !own && *observed != Observed::Errno(errno::SRCH) {
            return Err(format!("{}: {}", name(one), outcome(observed)));
        }
    }
    Ok(format!("{} processes, all its own; the host's cannot be signalled", pids.len()))
}

/// Processes that may come and go between the look from inside and the look from outside.
const SLACK: u64 = 8;
