//! System call filters: from a table of verdicts to the kernel's filter program, and its installation.
//!
//! ```text
//! number -> Verdict  --Program::compile-->  classic BPF, a balanced tree over the numbers  --install-->  kernel
//! ```
//!
//! A tree, because the kernel runs a new filter once per system call number to find the ones that are always allowed
//! (kernel/seccomp.c, seccomp_cache_prepare): a chain of 200 comparisons costs 0.9 ms to install here, a tree of them
//! a tenth. What is allowed needs no list of its own afterwards: such calls skip the filter altogether.
//!
//! This module does not decide what is allowed.
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

pub mod notify;
#[cfg(target_arch = "x86_64")]
mod x86_64;
#[cfg(target_arch = "x86_64")]
use x86_64::TABLE;

/// AUDIT_ARCH_X86_64 of linux/audit.h.
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xC000_003E;

/// Every system call of this architecture that this version knows.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|(name, _)| *name)
}

/// The number of a system call.
pub fn number(name: &str) -> Option<u32> {
    TABLE.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

/// What a filter does with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Lets the kernel do it.
    Allow,
    /// Returns this error number instead; 0 pretends success.
    Errno(u16),
    /// Ends the whole process with SIGSYS.
    Kill,
    /// Waits for what the holder of the filter's [`notify::Listener`] says.
    Notify,
}

/// A test of one argument (0 to 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Test {
    /// Its low 32 bits equal this: for arguments that the kernel reads as `int`, whatever the upper half holds.
    Equals(u32),
    /// Those of its low 32 bits that are in the mask equal this.
    Masked {
        /// The bits that count.
        mask: u32,
        /// What they are.
        value: u32,
    },
    /// Its low 32 bits have one of these set.
    AnyBit(u32),
    /// It is not zero in all its 64 bits: a pointer is given.
    Given,
}

/// When all tests hold, this action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Tests by argument number.
    pub when: Vec<(u8, Test)>,
    /// What then.
    pub action: Action,
}

/// What to do with one system call: the first case that holds, or else `otherwise`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Exceptions by argument.
    pub cases: Vec<Case>,
    /// The rule.
    pub otherwise: Action,
}

impl Verdict {
    /// The same action whatever the arguments.
    pub const fn always(action: Action) -> Self {
        Self { cases: Vec::new(), otherwise: action }
    }
}

/// A filter program, ready for the kernel.
#[derive(Clone)]
pub struct Program(Vec<libc::sock_filter>);

// Offsets in `struct seccomp_data`: nr, arch, instruction pointer, then six arguments of 64 bits, low half first.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const fn low_half(argument: u8) -> u32 {
    16 + 8 * argument as u32
}

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const AND: u16 = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
const ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const JUMP: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

const fn statement(code: u16, k: u32) -> libc::sock_filter {
    libc::sock_filter { code, jt: 0, jf: 0, k }
}

impl Program {
    /// Compiles the verdicts; calls without one get `unknown`. Calls by another architecture's entry (i386 by
    /// `int 0x80`) end the process; numbers of x32 are above all others and so are unknown.
    pub fn compile(verdicts: &BTreeMap<u32, Verdict>, unknown: Action) -> Self {
        let mut code = vec![
            statement(LOAD, ARCH),
            libc::sock_filter { code: EQUAL, jt: 1, jf: 0, k: NATIVE },
            ret(Action::Kill),
            statement(LOAD, NUMBER),
        ];
        code.extend(tree(&ranges(verdicts, unknown)));
        Self(code)
    }

    /// How many instructions it has; the kernel takes up to 4096.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has no instruction at all; never so after [`Program::compile`].
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts the filter on the calling thread and its future children, for good. Needs CAP_SYS_ADMIN, so that it works
    /// without `no_new_privs`.
    pub fn install(&self) -> io::Result<()> {
        self.install_with(0).map(drop)
    }

    /// The same, and returns the descriptor on which calls with [`Action::Notify`] are answered. Between being asked
    /// for and answered, a call is ended by fatal signals only (Linux 5.19; SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV), so
    /// that no answer is lost to a handler that restarts it.
    pub fn install_with_listener(&self) -> io::Result<notify::Listener> {
        const WAIT_KILLABLE: libc::c_ulong = 1 << 5;
        let fd = self.install_with(libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | WAIT_KILLABLE)?;
        let fd = i32::try_from(fd).map_err(|_| io::ErrorKind::InvalidData)?;
        // SAFETY: with NEW_LISTENER a result that is no error is a new descriptor that nobody else owns.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
    }

    fn install_with(&self, flags: libc::c_ulong) -> io::Result<libc::c_long> {
        let len = u16::try_from(self.0.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let program = libc::sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: `program` points to `len` instructions that live as long as `self`; the kernel copies them and does
        // not write.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
        match result {
            0.. => Ok(result),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl std::fmt::Debug for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Program({} instructions)", self.0.len())
    }
}

/// Neighbouring numbers with the same verdict, as one: the first number of each and what to do from there on.
fn ranges(verdicts: &BTreeMap<u32, Verdict>, unknown: Action) -> Vec<(u32, Verdict)> {
    let unknown = Verdict::always(unknown);
    let mut ranges: Vec<(u32, Verdict)> = Vec::new();
    let mut push = |first: u32, verdict: &Verdict| {
        if ranges.last().is_none_or(|(_, last)| last != verdict) {
            ranges.push((first, verdict.clone()));
        }
    };
    let mut next = 0;
    for (number, verdict) in verdicts {
        if *number > next {
            push(next, &unknown);
        }
        push(*number, verdict);
        next = number + 1;
    }
    push(next, &unknown);
    ranges
}

fn tree(ranges: &[(u32, Verdict)]) -> Vec<libc::sock_filter> {
    if let [(_, verdict)] = ranges {
        return leaf(verdict);
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let (first_high, low, high) = (high[0].0, tree(low), tree(high));
    // A conditional jump reaches 255 instructions, a plain one any number.
    let mut code = match u8::try_from(low.len()) {
        Ok(over) => vec![libc::sock_filter { code: AT_LEAST, jt: over, jf: 0, k: first_high }],
        Err(_) => {
            vec![libc::sock_filter { code: AT_LEAST, jt: 0, jf: 1, k: first_high }, statement(JUMP, low.len() as u32)]
        }
    };
    code.extend(low);
    code.extend(high);
    code
}

fn leaf(verdict: &Verdict) -> Vec<libc::sock_filter> {
    let mut code = Vec::new();
    for case in &verdict.cases {
        code.extend(tests(&case.when, case.action));
    }
    code.push(ret(verdict.otherwise));
    code
}

/// The tests of one case and its action; a test that fails jumps behind the action.
fn tests(when: &[(u8, Test)], action: Action) -> Vec<libc::sock_filter> {
    let mut code = vec![ret(action)];
    for (argument, test) in when.iter().rev() {
        let behind = u8::try_from(code.len()).unwrap_or(u8::MAX);
        let (low, high) = (low_half(*argument), low_half(*argument) + 4);
        let check = match *test {
            Test::Equals(value) => {
                vec![statement(LOAD, low), libc::sock_filter { code: EQUAL, jt: 0, jf: behind, k: value }]
            }
            Test::Masked { mask, value } => vec![
                statement(LOAD, low),
                statement(AND, mask),
                libc::sock_filter { code: EQUAL, jt: 0, jf: behind, k: value },
            ],
            Test::AnyBit(bits) => {
                vec![statement(LOAD, low), libc::sock_filter { code: ANY_BIT, jt: 0, jf: behind, k: bits }]
            }
            Test::Given => vec![
                statement(LOAD, low),
                libc::sock_filter { code: EQUAL, jt: 0, jf: 2, k: 0 },
                statement(LOAD, high),
                libc::sock_filter { code: EQUAL, jt: behind, jf: 0, k: 0 },
            ],
        };
        code.splice(0..0, check);
    }
    code
}

fn ret(action: Action) -> libc::sock_filter {
    statement(
        RETURN,
        match action {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
            Action::Kill => libc::SECCOMP_RET_KILL_PROCESS,
            Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
        },
    )
}

#[cfg(test)]
mod tests;
