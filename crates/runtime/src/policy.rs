//! What a sandbox may see and do, read from the data files: each entry there has its reason.
use std::collections::BTreeMap;

use garth_kernel::seccomp::{self, Action, Case, Program, Test, Verdict};
use rustix::thread::CapabilitySet;
use serde::{Deserialize, Serialize};

/// Which boundary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Level {
    /// `default/native`: the host's user namespace, few capabilities, a narrow filter.
    Default,
    /// `sysbox/native`: user namespaces of its own, virtual /proc and /sys.
    Sysbox,
}

impl Level {
    /// As a word on a command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Sysbox => "sysbox",
        }
    }

    /// The capabilities that processes of this level can have, as bits.
    pub fn capabilities(self) -> Result<u64, String> {
        Policy::load(self).map(|policy| policy.capabilities.bits())
    }

    /// The level of this word.
    pub fn of_word(word: &str) -> Option<Self> {
        [Self::Default, Self::Sysbox].into_iter().find(|level| level.word() == word)
    }
}

/// How sandboxes come by the nodes of their devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nodes {
    /// They are made.
    Made,
    /// Those of this machine are shown: it is a sandbox itself, where the kernel lets nobody make any.
    Shown,
}

/// The boundary of a level.
#[derive(Debug)]
pub struct Policy {
    /// Which.
    pub level: Level,
    /// How devices come into /dev.
    pub nodes: Nodes,
    /// Nodes of /proc that are covered.
    pub masked: Vec<String>,
    /// Nodes of /proc that cannot be written; where users are mapped, the kernel sees to that.
    pub read_only: Vec<String>,
    /// Directories of /sys that are shown.
    pub shown: Vec<String>,
    /// Directories of /sys, as seen from the sandbox's network namespace, that are shown.
    pub shown_of_network: Vec<String>,
    /// Directories of /sys that are there and empty.
    pub empty: Vec<String>,
    /// Capabilities that processes can have; all others are out of reach.
    pub capabilities: CapabilitySet,
    /// The system call filter, but for the calls that making a sandbox needs; with users mapped, all of it.
    pub early: Program,
    /// The rest of it.
    pub late: Program,
}

/// What differs where users are mapped.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sysbox {
    proc_unmasked: Vec<Node>,
    sys_empty: Vec<Node>,
    seccomp: Replaced,
}

/// What differs from that where an OCI runtime makes the sandbox.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SysboxRunc {
    seccomp: Replaced,
}

/// Rules that stand in place of those of the default level.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replaced {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Proc {
    masked: Vec<Node>,
    read_only: Vec<Node>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sys {
    shown: Vec<Node>,
    shown_of_own_network: Vec<Node>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Node {
    path: String,
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Capabilities {
    kept: Vec<Capability>,
    #[serde(rename = "dropped_from_docker")]
    _dropped: Vec<Capability>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Capability {
    name: String,
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Calls {
    unknown: Unknown,
    late: Late,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unknown {
    action: Word,
    #[serde(rename = "reason")]
    _reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Late {
    #[serde(rename = "reason")]
    _reason: String,
    calls: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    #[serde(rename = "reason")]
    _reason: String,
    action: Word,
    calls: String,
    #[serde(default)]
    cases: Vec<RuleCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleCase {
    when: Vec<RuleTest>,
    action: Word,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleTest {
    arg: u8,
    equals: Option<String>,
    mask: Option<String>,
    any_bit: Option<String>,
    #[serde(default)]
    given: bool,
}

#[derive(Deserialize, Clone, Copy)]
enum Word {
    #[serde(rename = "allow")]
    Allow,
    #[serde(rename = "notify")]
    Notify,
    #[serde(rename = "success")]
    Success,
    #[serde(rename = "EPERM")]
    Eperm,
    #[serde(rename = "ENOSYS")]
    Enosys,
    #[serde(rename = "EAFNOSUPPORT")]
    Eafnosupport,
    #[serde(rename = "EPROTONOSUPPORT")]
    Eprotonosupport,
    #[serde(rename = "ENOTTY")]
    Enotty,
}

impl From<Word> for Action {
    fn from(word: Word) -> Self {
        use rustix::io::Errno;
        let errno = |e: Errno| Self::Errno(e.raw_os_error() as u16);
        match word {
            Word::Allow => Self::Allow,
            Word::Notify => Self::Notify,
            Word::Success => Self::Errno(0),
            Word::Eperm => errno(Errno::PERM),
            Word::Enosys => errno(Errno::NOSYS),
            Word::Eafnosupport => errno(Errno::AFNOSUPPORT),
            Word::Eprotonosupport => errno(Errno::PROTONOSUPPORT),
            Word::Enotty => errno(Errno::NOTTY),
        }
    }
}

impl Policy {
    /// Of a sandbox that Sysbox makes: its filter, and what is covered in the bundle besides what Sysbox covers.
    pub(crate) fn of_container() -> Result<Self, String> {
        let covered = Self::load(Level::Default)?.masked;
        Ok(Self { early: sysbox_runc()?, masked: covered, ..Self::load(Level::Sysbox)? })
    }

    /// The built-in policy of a level. An error is a mistake in the data files, which the tests find.
    pub fn load(level: Level) -> Result<Self, String> {
        let proc: Proc = parse(include_str!("../data/proc.json"))?;
        let sys: Sys = parse(include_str!("../data/sys.json"))?;
        let (mut verdicts, late, unknown) = verdicts(include_str!("../data/seccomp.json"))?;
        let policy = Self {
            level,
            nodes: Nodes::Made,
            masked: paths(proc.masked),
            read_only: paths(proc.read_only),
            shown: paths(sys.shown),
            shown_of_network: paths(sys.shown_of_own_network),
            empty: Vec::new(),
            capabilities: capabilities(include_str!("../data/capabilities.json"))?,
            early: Program::compile(&BTreeMap::new(), Action::Allow),
            late: Program::compile(&BTreeMap::new(), Action::Allow),
        };
        match level {
            Level::Default => {
                let (early, late) = split(verdicts, &late);
                let (early, late) = (Program::compile(&early, unknown), Program::compile(&late, Action::Allow));
                Ok(Self { early, late, ..policy })
            }
            Level::Sysbox => {
                let sysbox: Sysbox = parse(include_str!("../data/sysbox.json"))?;
                verdicts.extend(decided(sysbox.seccomp.rules)?);
                let unmasked = paths(sysbox.proc_unmasked);
                let masked = policy.masked.into_iter().filter(|path| !unmasked.contains(path)).collect();
                let early = Program::compile(&verdicts, unknown);
                Ok(Self {
                    masked,
                    read_only: Vec::new(),
                    empty: paths(sysbox.sys_empty),
                    capabilities: CapabilitySet::all(),
                    early,
                    ..policy
                })
            }
        }
    }

    /// Of a program that serves a directory as root of its own user namespace: it makes files of every user's there, and
    /// goes into the directory for good (CHOWN DAC_OVERRIDE FOWNER FSETID SETGID SETUID SETPCAP SYS_CHROOT MKNOD SETFCAP).
    pub fn server() -> Result<Self, String> {
        let of_files = CapabilitySet::CHOWN
            | CapabilitySet::DAC_OVERRIDE
            | CapabilitySet::FOWNER
            | CapabilitySet::FSETID
            | CapabilitySet::MKNOD
            | CapabilitySet::SETFCAP;
        let of_itself =
            CapabilitySet::SETGID | CapabilitySet::SETUID | CapabilitySet::SETPCAP | CapabilitySet::SYS_CHROOT;
        Ok(Self { capabilities: of_files | of_itself, ..Self::jail()? })
    }

    /// Of a jail: no capability, nothing of /proc or /sys, and no more of the kernel than a sandbox of the default level
    /// has, whatever filter the program brings.
    pub fn jail() -> Result<Self, String> {
        let (verdicts, _, unknown) = verdicts(include_str!("../data/seccomp.json"))?;
        Ok(Self {
            level: Level::Default,
            nodes: Nodes::Made,
            masked: Vec::new(),
            read_only: Vec::new(),
            shown: Vec::new(),
            shown_of_network: Vec::new(),
            empty: Vec::new(),
            capabilities: CapabilitySet::empty(),
            early: Program::compile(&BTreeMap::new(), Action::Allow),
            late: Program::compile(&verdicts, unknown),
        })
    }
}

/// The filter of a sandbox that Sysbox makes: that of `sysbox/native`, without what a keeper would answer. Sysbox takes
/// the rules of a bundle's own filter apart (its list of allowed calls wins), so that the agent installs it.
fn sysbox_runc() -> Result<Program, String> {
    let (mut verdicts, _, unknown) = verdicts(include_str!("../data/seccomp.json"))?;
    let sysbox: Sysbox = parse(include_str!("../data/sysbox.json"))?;
    let runc: SysboxRunc = parse(include_str!("../data/sysbox-runc.json"))?;
    verdicts.extend(decided(sysbox.seccomp.rules)?);
    verdicts.extend(decided(runc.seccomp.rules)?);
    Ok(Program::compile(&verdicts, unknown))
}

fn paths(nodes: Vec<Node>) -> Vec<String> {
    nodes.into_iter().map(|node| node.path).collect()
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

fn capabilities(text: &str) -> Result<CapabilitySet, String> {
    let list: Capabilities = parse(text)?;
    let mut set = CapabilitySet::empty();
    for capability in list.kept {
        set |= CapabilitySet::from_name(&capability.name).ok_or(capability.name)?;
    }
    Ok(set)
}

type Verdicts = BTreeMap<u32, Verdict>;

/// All verdicts, the numbers of the late calls, and what is done with unknown calls.
fn verdicts(text: &str) -> Result<(Verdicts, Vec<u32>, Action), String> {
    let calls: Calls = parse(text)?;
    let late = numbers(&calls.late.calls).collect::<Result<_, _>>()?;
    Ok((decided(calls.rules)?, late, calls.unknown.action.into()))
}

fn decided(rules: Vec<Rule>) -> Result<Verdicts, String> {
    let mut verdicts = BTreeMap::new();
    for rule in rules {
        let cases = rule.cases.iter().map(case).collect::<Result<_, _>>()?;
        let verdict = Verdict { cases, otherwise: rule.action.into() };
        for number in numbers(&rule.calls) {
            if verdicts.insert(number?, verdict.clone()).is_some() {
                return Err(format!("a call is in two rules: {}", rule.calls));
            }
        }
    }
    Ok(verdicts)
}

fn numbers(calls: &str) -> impl Iterator<Item = Result<u32, String>> {
    calls.split_whitespace().map(|name| seccomp::number(name).ok_or_else(|| format!("no system call {name}")))
}

/// The early filter allows the late calls; the late one has rules for them alone. Of two filters the stricter answer
/// counts (`seccomp(2)`), so that both together are the whole.
fn split(verdicts: Verdicts, late: &[u32]) -> (Verdicts, Verdicts) {
    let (of_late, mut early): (Verdicts, Verdicts) =
        verdicts.into_iter().partition(|(number, _)| late.contains(number));
    early.extend(of_late.keys().map(|number| (*number, Verdict::always(Action::Allow))));
    (early, of_late)
}

fn case(case: &RuleCase) -> Result<Case, String> {
    let when = case.when.iter().map(test).collect::<Result<_, _>>()?;
    Ok(Case { when, action: case.action.into() })
}

fn test(test: &RuleTest) -> Result<(u8, Test), String> {
    let number = |text: &str| match text.strip_prefix("0x") {
        Some(hex) => u32::from_str_radix(hex, 16).map_err(|e| format!("{text}: {e}")),
        None => text.parse().map_err(|e| format!("{text}: {e}")),
    };
    let check = match (&test.equals, &test.mask, &test.any_bit, test.given) {
        (Some(value), None, None, false) => Test::Equals(number(value)?),
        (Some(value), Some(mask), None, false) => Test::Masked { mask: number(mask)?, value: number(value)? },
        (None, None, Some(bits), false) => Test::AnyBit(number(bits)?),
        (None, None, None, true) => Test::Given,
        _ => return Err("a test is one of equals, equals with mask, any_bit and given".to_owned()),
    };
    Ok((test.arg, check))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_files_are_read() {
        for level in [Level::Default, Level::Sysbox] {
            let policy = Policy::load(level).expect("policy");
            assert!(policy.masked.iter().any(|path| path == "kcore"));
            assert!(policy.early.len() + policy.late.len() < 600);
        }
        assert!(sysbox_runc().expect("data").len() < 600);
        assert!(Policy::server().expect("policy").late.len() < 600);
    }

    #[test]
    fn both_filters_together_are_the_whole() {
        let (verdicts, late, _) = verdicts(include_str!("../data/seccomp.json")).expect("data");
        let (early, of_late) = split(verdicts.clone(), &late);
        for (number, verdict) in &verdicts {
            let in_both = (early.get(number), of_late.get(number));
            let allow = Verdict::always(Action::Allow);
            assert!(in_both == (Some(verdict), None) || in_both == (Some(&allow), Some(verdict)), "{number}");
        }
    }

    #[test]
    fn every_known_system_call_is_decided() {
        let calls: Calls = parse(include_str!("../data/seccomp.json")).expect("data");
        let decided: Vec<&str> = calls.rules.iter().flat_map(|rule| rule.calls.split_whitespace()).collect();
        for name in seccomp::names() {
            assert!(decided.contains(&name), "{name}");
        }
    }

    #[test]
    fn capabilities_are_fewer_than_dockers() {
        let docker = [
            "AUDIT_WRITE",
            "CHOWN",
            "DAC_OVERRIDE",
            "FOWNER",
            "FSETID",
            "KILL",
            "MKNOD",
            "NET_BIND_SERVICE",
            "NET_RAW",
            "SETFCAP",
            "SETGID",
            "SETPCAP",
            "SETUID",
            "SYS_CHROOT",
        ];
        let docker =
            docker.iter().filter_map(|name| CapabilitySet::from_name(name)).fold(CapabilitySet::empty(), |a, b| a | b);
        let ours = Policy::load(Level::Default).expect("policy").capabilities;
        assert!(docker.contains(ours) && docker != ours);
        assert!(!ours.intersects(CapabilitySet::MKNOD | CapabilitySet::NET_RAW | CapabilitySet::SYS_ADMIN));
    }
}
