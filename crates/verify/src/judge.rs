//! From what was tried to pass or fail, with the evidence in words. Pure.

use std::collections::BTreeSet;

use garth_spec::{ByteSize, Observed, Try};

use crate::{Evidence, Verdict};

/// Error numbers as the kernel has them on every machine that Garth runs on.
pub mod errno {
    /// Operation not permitted.
    pub const PERM: i32 = 1;
    /// No such file or directory.
    pub const NOENT: i32 = 2;
    /// No such process.
    pub const SRCH: i32 = 3;
    /// Permission denied.
    pub const ACCES: i32 = 13;
    /// Try again.
    pub const AGAIN: i32 = 11;
    /// Read-only file system.
    pub const ROFS: i32 = 30;
    /// Function not implemented.
    pub const NOSYS: i32 = 38;
    /// Network is unreachable.
    pub const NETUNREACH: i32 = 101;
    /// Connection timed out.
    pub const TIMEDOUT: i32 = 110;
    /// Connection refused.
    pub const CONNREFUSED: i32 = 111;
    /// No route to host.
    pub const HOSTUNREACH: i32 = 113;
    /// Cannot assign requested address.
    pub const ADDRNOTAVAIL: i32 = 99;
}

/// Characters of evidence that are kept.
const LONGEST: usize = 200;

/// Evidence on one line, without characters that move a cursor, and not too long.
pub fn printable(text: &str) -> String {
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
pub fn name(one: &Try) -> String {
    match one {
        Try::Read(path) => format!("read {path}"),
        Try::OpenForWrite(path) => format!("write {path}"),
        Try::Entries(path) | Try::Devices(path) => format!("list {path}"),
        Try::Link(path) => format!("readlink {path}"),
        Try::Identity(path) => format!("stat {path}"),
        Try::BlockDevice { major, minor } => format!("mknod b {major}:{minor}"),
        Try::Call(call) => call.name().to_owned(),
        Try::Mount(kind) => format!("mount {kind}"),
        Try::RemountWritable(path) => format!("remount {path} writable"),
        Try::Signal(pid) => format!("signal {pid}"),
        Try::Connect(address) => format!("connect {address}"),
        Try::Loopback => "connect to loopback".to_owned(),
        Try::Allocate(bytes) => format!("allocate {}", bytes_of(*bytes)),
        Try::Threads(count) => format!("{count} threads"),
    }
}

/// A number of bytes in words.
pub fn bytes_of(bytes: u64) -> String {
    ByteSize::from_bytes(bytes).map_or_else(|_| format!("{bytes} B"), |size| size.to_string())
}

/// What came of a try, in a few words.
pub fn outcome(observed: &Observed) -> String {
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
pub fn each<F>(evidence: &Evidence<'_, F>, fine: impl Fn(&Try, &Observed) -> bool) -> Verdict {
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
pub fn is_refusal(observed: &Observed) -> bool {
    const NO: [i32; 5] = [errno::PERM, errno::ACCES, errno::ROFS, errno::NOSYS, errno::NOENT];
    matches!(observed, Observed::Errno(number) if NO.contains(number))
}

/// Every try was refused.
pub fn refused<F>(evidence: &Evidence<'_, F>) -> Verdict {
    each(evidence, |_, observed| is_refusal(observed))
}

/// Every try was refused, or had nothing to show: a file that is covered by an empty one.
pub fn refused_or_empty<F>(evidence: &Evidence<'_, F>) -> Verdict {
    each(evidence, |_, observed| is_refusal(observed) || matches!(observed, Observed::Text(text) if text.is_empty()))
}

/// As [`refused_or_empty`], or the addresses in it are zeroes.
pub fn no_addresses<F>(evidence: &Evidence<'_, F>) -> Verdict {
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

/// Everything works.
pub fn works<F>(evidence: &Evidence<'_, F>) -> Verdict {
    each(evidence, |_, observed| *observed == Observed::Done)
}

/// Refused by a rule of the sandbox's own: at once, and not by whoever is at that address.
pub fn refused_locally<F>(evidence: &Evidence<'_, F>) -> Verdict {
    each(evidence, |_, observed| is_local(observed))
}

/// Whether something of the sandbox's own said no: it has no way there, or a rule refuses.
pub fn is_local(observed: &Observed) -> bool {
    const LOCAL: [i32; 5] = [errno::ACCES, errno::PERM, errno::NETUNREACH, errno::HOSTUNREACH, errno::ADDRNOTAVAIL];
    matches!(observed, Observed::Errno(number) if LOCAL.contains(number))
}

/// Whether nobody answered, or something on the way refused.
pub fn is_unreachable(observed: &Observed) -> bool {
    is_refusal(observed) || is_local(observed) || *observed == Observed::Errno(errno::TIMEDOUT)
}

/// The value of a line `Name:\tvalue` of `/proc/PID/status`.
pub fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
}

/// A set of capabilities of `/proc/PID/status`.
pub fn capability_set(status: &str, name: &str) -> Option<u64> {
    u64::from_str_radix(field(status, name)?, 16).ok()
}

/// What was read by one of the tries, without space around it.
pub fn text<'a, F>(evidence: &Evidence<'a, F>, at: usize) -> Result<&'a str, String> {
    match evidence.tried.get(at) {
        Some((_, Observed::Text(text))) => Ok(text.trim()),
        Some((one, observed)) => Err(format!("{}: {}", name(one), outcome(observed))),
        None => Err("nothing was read".to_owned()),
    }
}

/// Another boot than that of the machine below, by `boot_id` and `version` of [`crate::tries::boot`]. The version is told and
/// not judged: both may run the same distribution's kernel, but never the same boot of it.
pub fn another_kernel<F>(evidence: &Evidence<'_, F>, whose: &str, boot_id: &str, release: &str) -> Verdict {
    let (boot, version) = (text(evidence, 0)?, text(evidence, 1)?);
    // 8-4-4-4-12 (random(4)).
    if boot.len() != 36 || !boot.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()) {
        return Err(format!("its boot has no id: {boot:?}"));
    }
    if boot_id.is_empty() {
        return Err(format!("the id of the {whose}'s boot cannot be read"));
    }
    if boot == boot_id {
        return Err(format!("its boot is the {whose}'s: the kernel is shared"));
    }
    let own = release_of(version).ok_or_else(|| format!("its kernel has no version: {version:?}"))?;
    let same = if own == release { format!(", the version that the {whose} runs too") } else { String::new() };
    Ok(format!("another boot, of Linux {own}{same}"))
}

/// The release in a `/proc/version`.
pub fn release_of(version: &str) -> Option<&str> {
    version.split(' ').nth(2)
}

/// Processes cannot gain privileges, where that was asked for.
pub fn no_new_privs<F>(evidence: &Evidence<'_, F>) -> Verdict {
    match evidence.tried {
        [(_, Observed::Text(status))] if field(status, "NoNewPrivs") == Some("1") => Ok("NoNewPrivs is 1".to_owned()),
        _ => Err("NoNewPrivs of a process is not 1".to_owned()),
    }
}

/// Each line of a map: first id inside, first id outside, how many.
pub fn ranges(map: &str) -> Option<Vec<(u64, u64, u64)>> {
    let line = |line: &str| {
        let numbers: Vec<u64> = line.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
        <[u64; 3]>::try_from(numbers).ok().map(|[inside, outside, count]| (inside, outside, count))
    };
    let ranges: Vec<_> = map.lines().map(line).collect::<Option<_>>()?;
    (!ranges.is_empty()).then_some(ranges)
}

/// Only character devices with these numbers; of a major number without a minor one, all.
pub fn devices<F>(evidence: &Evidence<'_, F>, allowed: &[(u32, Option<u32>)]) -> Verdict {
    let [(_, Observed::Text(list))] = evidence.tried else { return each(evidence, |_, _| false) };
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
pub fn absent<F>(evidence: &Evidence<'_, F>) -> Verdict {
    each(evidence, |_, observed| *observed == Observed::Errno(errno::NOENT))
}

/// `/` has nothing above it.
pub fn top<F>(evidence: &Evidence<'_, F>) -> Verdict {
    match evidence.tried {
        [(_, Observed::Text(root)), (_, Observed::Text(above))] if root == above => Ok("/.. is /".to_owned()),
        _ => Err("/.. is not /".to_owned()),
    }
}

/// A process is given 0, 1 and 2 and nothing more; the list itself is the fourth.
pub fn descriptors<F>(evidence: &Evidence<'_, F>) -> Verdict {
    match evidence.tried {
        [(_, Observed::Text(list))] if list.lines().all(|name| ["0", "1", "2", "3"].contains(&name)) => {
            Ok("0, 1, 2 and that of the list".to_owned())
        }
        [(_, Observed::Text(list))] => Err(format!("open are {}", list.replace('\n', ", "))),
        _ => each(evidence, |_, _| false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn evidence_is_one_short_line() {
        assert_eq!(printable("a\x1b[2J\nb"), "a\\u{1b}[2J\\nb");
        let long = printable(&"ä".repeat(5000));
        assert_eq!((long.chars().count(), long.ends_with('…')), (200, true));
        assert_eq!(printable(&"\0".repeat(300)).chars().count(), 200);
    }
}
