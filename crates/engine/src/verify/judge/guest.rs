//! What is seen inside a guest: a kernel, processes and a size of its own.

use garth_spec::{Observed, Try};
use garth_verify::Verdict;
use garth_verify::judge::{another_kernel, bytes_of, each, errno, field, is_local, release_of, text};

use super::limits::in_list;
use super::{Evidence, NO_NEIGHBOUR};

/// Another boot than this host's.
pub(in crate::verify) fn kernel(evidence: &Evidence<'_>) -> Verdict {
    let host = &evidence.facts.host;
    another_kernel(evidence, "host", host.boot_id.trim(), release_of(&host.version).unwrap_or_default())
}

/// This daemon and the hypervisor are not among its processes. A number proves nothing, since the guest counts from 1
/// as well: the same process has the same name and was started at the same tick.
pub(in crate::verify) fn own_processes(evidence: &Evidence<'_>) -> Verdict {
    let [(_, Observed::Text(list)), stats @ ..] = evidence.tried else {
        return Err("the processes could not be listed".to_owned());
    };
    let count = list.lines().filter(|name| name.parse::<i32>().is_ok()).count();
    if count == 0 {
        return Err("it sees no process, not even its own".to_owned());
    }
    // ENOENT: nobody has that number.
    each(&Evidence { tried: stats, ..*evidence }, |_, observed| {
        matches!(observed, Observed::Text(_) | Observed::Errno(errno::NOENT))
    })?;
    for (one, observed) in stats {
        let (Try::Read(path), Observed::Text(inside)) = (one, observed) else { continue };
        let host = evidence.facts.host.processes_of_ours.iter().find(|(of, _)| of == path);
        let host = host.and_then(|(_, stat)| birth(stat)).ok_or_else(|| format!("{path} cannot be read here"))?;
        if birth(inside).ok_or_else(|| format!("{path} says nothing of a process"))? == host {
            return Err(format!("{path} is that of the host: {} is seen", host.0));
        }
    }
    Ok(format!("{count} processes, and neither this daemon nor the hypervisor"))
}

/// Refused by the host's rules on the wire, which answer with a reset: a guest's own routes would prove nothing. Of one
/// address that could be the one who lives there; that each of these is refused, and none is silent, is a rule's doing.
/// Whose is not told: a network that resets all of them itself looks the same.
pub(in crate::verify) fn refused_on_the_wire(evidence: &Evidence<'_>) -> Verdict {
    each(evidence, |_, observed| *observed == Observed::Errno(errno::CONNREFUSED) || is_local(observed))
}

/// The rules answer for neighbours as they do for the private networks that these are part of: there nobody lives who
/// could have answered, and the check of those shows it.
pub(in crate::verify) fn neighbours_on_the_wire(evidence: &Evidence<'_>) -> Verdict {
    if evidence.tried.is_empty() {
        return Ok(NO_NEIGHBOUR.to_owned());
    }
    each(evidence, |_, observed| {
        matches!(observed, Observed::Errno(errno::CONNREFUSED | errno::TIMEDOUT)) || is_local(observed)
    })
}

/// Name and start of a process, from its `stat` (proc_pid_stat(5)). The name is in parentheses and may have some itself.
fn birth(stat: &str) -> Option<(&str, u64)> {
    let (before, after) = stat.rsplit_once(") ")?;
    // The first word after the name is field 3; the start is field 22.
    Some((before.split_once('(')?.1, after.split(' ').nth(19)?.trim().parse().ok()?))
}

/// The guest has no more memory and processors than it was given.
pub(in crate::verify) fn size(evidence: &Evidence<'_>) -> Verdict {
    let (meminfo, online) = (text(evidence, 0)?, text(evidence, 1)?);
    let limits = &evidence.facts.subject.limits;
    let total = field(meminfo, "MemTotal").and_then(|total| total.split(' ').next()?.parse::<u64>().ok());
    let total = total.and_then(|kib| kib.checked_mul(1024)).ok_or_else(|| "it does not say its memory".to_owned())?;
    if total > limits.memory.bytes() {
        return Err(format!("MemTotal is {}, above the limit of {}", bytes_of(total), limits.memory));
    }
    let (count, most) = (in_list(online), u64::from(limits.cpus.millis()).div_ceil(1000));
    if count == 0 {
        return Err("it does not say its processors".to_owned());
    }
    Ok(match count > most {
        // The cgroup holds them to the limit since it was changed: more of them, none faster.
        true => format!("{} KiB of memory; {count} processors, held to the time of {most}", total >> 10),
        false => format!("{} KiB of memory, {count} processors", total >> 10),
    })
}
