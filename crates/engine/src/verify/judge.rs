//! From what was seen to pass or fail, with the evidence in words. Pure.

mod guest;
mod jail;
mod limits;
mod mounts;

use std::collections::BTreeSet;

use garth_spec::{ByteSize, Observed, Try};

use super::Subject;
use super::host::HostFacts;
use super::level::{Expect, Users};

pub(super) use guest::{kernel, neighbours_on_the_wire, own_processes, refused_on_the_wire, size};
pub(super) use jail::{accelerator, jailed_user, machine_memory, open, powerless, shown, threads};
pub(super) use limits::{cpus, disk, memory, numbers, pids};
pub(super) use mounts::mounts;

/// What was seen, either way.
pub(super) type Verdict = Result<String, String>;

/// What a check is judged by.
#[derive(Debug, Clone, Copy)]
pub(super) struct Evidence<'a> {
    pub(super) subject: &'a Subject,
    pub(super) host: &'a HostFacts,
    /// The check's own tries, with what came of each.
    pub(super) tried: &'a [(Try, Observed)],
}

/// Characters of evidence that are kept.
const LONGEST: usize = 200;

/// Error numbers as the kernel has them on every machine that Garth runs on.
mod errno {
    pub(super) const PERM: i32 = 1;
    pub(super) const NOENT: i32 = 2;
    pub(super) const SRCH: i32 = 3;
    pub(super) const ACCES: i32 = 13;
    pub(super) const AGAIN: i32 = 11;
    pub(super) const ROFS: i32 = 30;
    pub(super) const NOSYS: i32 = 38;
    pub(super) const NETUNREACH: i32 = 101;
    pub(super) const TIMEDOUT: i32 = 110;
    pub(super) const CONNREFUSED: i32 = 111;
    pub(super) const HOSTUNREACH: i32 = 113;
    pub(super) const ADDRNOTAVAIL: i32 = 99;
}

/// Evidence on one line, without characters that move a cursor, and not too long.
pub(super) fn printable(text: &str) -> String {
    let escaped = text.chars().take(LONGEST + 1).flat_map(|c| match c.is_control() {
        true => c.escape_default().collect::<Vec<_>>(),
        false => vec![c],
    });
    let mut short: Vec<char> = escaped.take(LONGEST + 1).collect();
    if short.len() > LONGEST {
        short.truncate(LONGEST - 1);
        short.push('…');
    }
    short.into_iter().collect()
}

/// A try in a few words.
fn name(one: &Try) -> String {
    match one {
        Try::Read(path) => format!("read {path}"),
        Try::OpenForWrite(path) => format!("write {path}"),
        Try::Entries(path) | Try::Devices(path) => format!("list {path}"),
        Try::Link(path) => format!("readlink {path}"),
        Try::Identity(path) => format!("stat {path}"),
        Try::BlockDevice { major, minor } => format!("mknod b {major}:{minor}"),
        Try::Call(call) => {
            serde_json::to_value(call).ok().and_then(|name| Some(name.as_str()?.to_owned())).unwrap_or_default()
        }
        Try::Mount(kind) => format!("mount {kind}"),
        Try::RemountWritable(path) => format!("remount {path} writable"),
        Try::Signal(pid) => format!("signal {pid}"),
        Try::Connect(address) => format!("connect {address}"),
        Try::Loopback => "connect to loopback".to_owned(),
        Try::Allocate(bytes) => format!("allocate {}", bytes_of(*bytes)),
        Try::Threads(count) => format!("{count} threads"),
    }
}

fn bytes_of(bytes: u64) -> String {
    ByteSize::from_bytes(bytes).map_or_else(|_| format!("{bytes} B"), |size| size.to_string())
}

fn outcome(observed: &Observed) -> String {
    match observed {
        Observed::Done => "it worked".to_owned(),
        Observed::Errno(number) => {
            let words = std::io::Error::from_raw_os_error(*number).to_string();
            words.split(" (os error").next().unwrap_or_default().to_lowercase()
        }
        Observed::Text(text) => format!("{text:?}"),
        Observed::Killed => "killed".to_owned(),
    }
}

/// Passes when `fine` holds of every try. The evidence names those of which it does not, else the ways it held.
fn each(evidence: &Evidence<'_>, fine: impl Fn(&Try, &Observed) -> bool) -> Verdict {
    let wrong: Vec<String> = evidence
        .tried
        .iter()
        .filter(|(one, observed)| !fine(one, observed))
        .map(|(one, observed)| format!("{}: {}", name(one), outcome(observed)))
        .collect();
    if !wrong.is_empty() {
        return Err(wrong.join("; "));
    }
    let ways: BTreeSet<String> = evidence.tried.iter().map(|(_, observed)| outcome(observed)).collect();
    let count = evidence.tried.len();
    let ways = ways.into_iter().collect::<Vec<_>>().join(", ");
    Ok(if count == 1 { format!("{}: {ways}", name(&evidence.tried[0].0)) } else { format!("{count} tries: {ways}") })
}

/// Whether the kernel said no, or there is nothing there.
fn is_refusal(observed: &Observed) -> bool {
    const NO: [i32; 5] = [errno::PERM, errno::ACCES, errno::ROFS, errno::NOSYS, errno::NOENT];
    matches!(observed, Observed::Errno(number) if NO.contains(number))
}

/// Every try was refused.
pub(super) fn refused(evidence: &Evidence<'_>) -> Verdict {
    each(evidence, |_, observed| is_refusal(observed))
}

/// Every try was refused, or had nothing to show: a file that is covered by an empty one.
pub(super) fn refused_or_empty(evidence: &Evidence<'_>) -> Verdict {
    each(evidence, |_, observed| is_refusal(observed) || matches!(observed, Observed::Text(text) if text.is_empty()))
}

/// As [`refused_or_empty`], or the addresses in it are zeroes.
pub(super) fn no_addresses(evidence: &Evidence<'_>) -> Verdict {
    let hidden = |text: &str| text.lines().all(|line| line.split(' ').next().is_some_and(is_zero));
    let seen =
        each(evidence, |_, observed| is_refusal(observed) || matches!(observed, Observed::Text(text) if hidden(text)));
    // The list of symbols itself is no evidence worth reading.
    seen.map(
        |seen| if seen.contains('"') && !seen.contains("\"\"") { "all addresses are zero".to_owned() } else { seen },
    )
}

fn is_zero(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|digit| digit == b'0')
}

fn expected(evidence: &Evidence<'_>, expect: Expect) -> Verdict {
    match expect {
        Expect::Refused => refused(evidence),
        Expect::Works => each(evidence, |_, observed| *observed == Observed::Done),
    }
}

/// Mounting, as the level has it.
pub(super) fn mounting(evidence: &Evidence<'_>) -> Verdict {
    // CAP_SYS_ADMIN, which a project can be without.
    let may = evidence.subject.capabilities & 1 << 21 != 0;
    expected(evidence, if may { evidence.subject.level.mount } else { Expect::Refused })
}

/// A new user namespace, as the level has it.
pub(super) fn user_namespace(evidence: &Evidence<'_>) -> Verdict {
    expected(evidence, evidence.subject.level.user_namespace)
}

/// Everything works.
pub(super) fn works(evidence: &Evidence<'_>) -> Verdict {
    expected(evidence, Expect::Works)
}

/// Refused by a rule of the sandbox's own: at once, and not by whoever is at that address.
pub(super) fn refused_locally(evidence: &Evidence<'_>) -> Verdict {
    each(evidence, |_, observed| is_local(observed))
}

fn is_local(observed: &Observed) -> bool {
    const LOCAL: [i32; 5] = [errno::ACCES, errno::PERM, errno::NETUNREACH, errno::HOSTUNREACH, errno::ADDRNOTAVAIL];
    matches!(observed, Observed::Errno(number) if LOCAL.contains(number))
}

const NO_NEIGHBOUR: &str = "no other sandbox of this daemon has an address now";

/// Blocked somewhere: no answer is as good as a refusal, but not one from the other end.
pub(super) fn unreachable(evidence: &Evidence<'_>) -> Verdict {
    if evidence.tried.is_empty() {
        return Ok(NO_NEIGHBOUR.to_owned());
    }
    each(evidence, |_, observed| {
        is_refusal(observed)
            || matches!(
                observed,
                Observed::Errno(errno::NETUNREACH | errno::HOSTUNREACH | errno::ADDRNOTAVAIL | errno::TIMEDOUT)
            )
    })
}

/// Nobody reached this host's listeners. That a rule answers with a reset is as good: the host sees who connected.
pub(super) fn host_unreachable(evidence: &Evidence<'_>) -> Verdict {
    if let Some(peer) = evidence.host.connected.first() {
        return Err(format!("this host was reached from {peer}"));
    }
    if evidence.tried.is_empty() {
        return Err("this host has no address to try".to_owned());
    }
    each(evidence, |_, observed| matches!(observed, Observed::Errno(_)))
}

/// The value of a line `Name:\tvalue` of `/proc/PID/status`.
fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

fn capability_set(status: &str, name: &str) -> Option<u64> {
    u64::from_str_radix(field(status, name)?, 16).ok()
}

/// No set of the init holds more than the level has, and none of a process in it more than the project has of that. The
/// init is the agent, which keeps what it needs; what it starts is bound as its own bounding set says.
pub(super) fn capabilities(evidence: &Evidence<'_>) -> Verdict {
    let Subject { level, capabilities: own, .. } = evidence.subject;
    let mut seen = Vec::new();
    let inside = evidence.tried.iter().map(|(_, observed)| match observed {
        Observed::Text(status) => ("a process", status.as_str()),
        _ => ("a process", ""),
    });
    for (who, status) in [("init", evidence.host.status.as_str())].into_iter().chain(inside) {
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
    match field(&evidence.host.status, "Seccomp") {
        Some("2") => {
            Ok(format!("init has {} filters", field(&evidence.host.status, "Seccomp_filters").unwrap_or("some")))
        }
        Some(mode) => Err(format!("seccomp mode of init is {mode}, not 2")),
        None => Err("the seccomp mode of init cannot be read".to_owned()),
    }
}

/// Processes cannot gain privileges, where that was asked for.
pub(super) fn no_new_privs(evidence: &Evidence<'_>) -> Verdict {
    match evidence.tried {
        [(_, Observed::Text(status))] if field(status, "NoNewPrivs") == Some("1") => Ok("NoNewPrivs is 1".to_owned()),
        _ => Err("NoNewPrivs of a process is not 1".to_owned()),
    }
}

/// The ids inside are the host's, or a range of its own, as the level has it.
pub(super) fn users(evidence: &Evidence<'_>) -> Verdict {
    let host = evidence.host;
    let init = field(&host.status, "Uid").and_then(|ids| ids.split_whitespace().next()?.parse::<u64>().ok());
    let init = init.ok_or_else(|| "the user of init cannot be read".to_owned())?;
    let mut seen = vec![format!("init is uid {init} on the host")];
    for (what, map) in [("uids", &host.uid_map), ("gids", &host.gid_map)] {
        let ranges = ranges(map).ok_or_else(|| format!("the map of {what} cannot be read"))?;
        match evidence.subject.level.users {
            Users::Hosts if ranges == [(0, 0, u64::from(u32::MAX))] => seen.push(format!("{what} are the host's")),
            Users::Own { from, count } if is_own(&ranges, from, count) && init >= from => {
                seen.push(format!("{what} are {count} from {} on", ranges[0].1));
            }
            _ => return Err(format!("{}, {what} are mapped {ranges:?}", seen.join(", "))),
        }
    }
    Ok(seen.join(", "))
}

/// Each line of a map: first id inside, first id outside, how many.
fn ranges(map: &str) -> Option<Vec<(u64, u64, u64)>> {
    let line = |line: &str| {
        let numbers: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        <[u64; 3]>::try_from(numbers).ok().map(|[inside, outside, count]| (inside, outside, count))
    };
    let ranges: Vec<_> = map.lines().map(line).collect::<Option<_>>()?;
    (!ranges.is_empty()).then_some(ranges)
}

fn is_own(ranges: &[(u64, u64, u64)], from: u64, count: u64) -> bool {
    ranges.iter().all(|(_, outside, _)| *outside >= from)
        && ranges.iter().map(|(_, _, count)| *count).sum::<u64>() == count
}

/// No namespace of the level is the host's.
pub(super) fn namespaces(evidence: &Evidence<'_>) -> Verdict {
    let wanted = evidence.subject.level.namespaces;
    for kind in wanted {
        match evidence.host.shared.iter().find(|(name, _)| name == kind) {
            Some((_, false)) => {}
            Some((_, true)) => return Err(format!("the {kind} namespace is the host's")),
            None => return Err(format!("the {kind} namespace cannot be read")),
        }
    }
    // The last number of NSpid is the id in the innermost namespace.
    let ids: Vec<&str> = field(&evidence.host.status, "NSpid").unwrap_or_default().split_whitespace().collect();
    match ids[..] {
        [_, .., "1"] => Ok(format!("{} are its own, and init is pid 1", wanted.join(" "))),
        _ => Err(format!("the ids of init are {ids:?}, not 1 in a namespace of its own")),
    }
}

/// Only device nodes of the level.
pub(super) fn devices(evidence: &Evidence<'_>) -> Verdict {
    let [(_, Observed::Text(list))] = evidence.tried else { return each(evidence, |_, _| false) };
    let allowed = evidence.subject.level.devices;
    let fine = |line: &&str| {
        let numbers = line.strip_prefix("c ").and_then(|rest| rest.split(' ').next()?.split_once(':'));
        let numbers = numbers.and_then(|(major, minor)| Some((major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?)));
        numbers.is_some_and(|(major, minor)| {
            allowed.iter().any(|(allowed, which)| *allowed == major && which.is_none_or(|which| which == minor))
        })
    };
    let wrong: Vec<&str> = list.lines().filter(|line| !fine(line)).collect();
    match wrong.is_empty() {
        true => Ok(format!("{} nodes, each harmless", list.lines().count())),
        false => Err(format!("there is {}", wrong.join(", "))),
    }
}

/// None of these is there.
pub(super) fn absent(evidence: &Evidence<'_>) -> Verdict {
    each(evidence, |_, observed| *observed == Observed::Errno(errno::NOENT))
}

/// Nothing of the host is in the list of processes, and none of the host's can be signalled.
pub(super) fn processes(evidence: &Evidence<'_>) -> Verdict {
    let [(_, Observed::Text(list)), signals @ ..] = evidence.tried else {
        return Err("the processes could not be listed".to_owned());
    };
    let pids: Vec<i32> = list.lines().filter_map(|name| name.parse().ok()).collect();
    let known = evidence.host.processes.ok_or_else(|| "the host cannot count its processes".to_owned())?;
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

/// `/` has nothing above it.
pub(super) fn top(evidence: &Evidence<'_>) -> Verdict {
    match evidence.tried {
        [(_, Observed::Text(root)), (_, Observed::Text(above))] if root == above => Ok("/.. is /".to_owned()),
        _ => Err("/.. is not /".to_owned()),
    }
}

/// A process is given 0, 1 and 2 and nothing more; the list itself is the fourth.
pub(super) fn descriptors(evidence: &Evidence<'_>) -> Verdict {
    match evidence.tried {
        [(_, Observed::Text(list))] if list.lines().all(|name| ["0", "1", "2", "3"].contains(&name)) => {
            Ok("0, 1, 2 and that of the list".to_owned())
        }
        [(_, Observed::Text(list))] => Err(format!("open are {}", list.replace('\n', ", "))),
        _ => each(evidence, |_, _| false),
    }
}
