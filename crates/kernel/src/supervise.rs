//! Starts a program under a supervisor of its own: a task without memory of its own that adopts whatever the program
//! leaves behind, so that the whole tree can be found and killed, daemons included.
//!
//! ```text
//! agent --clone(VM)--> supervisor (child subreaper) --clone(VM|VFORK)--> leader --execve--> program
//!   ^                       | pipe: Started | Failed, then Exited, then end of file (nothing is left)
//!   +-----------------------+
//! ```
//!
//! Neither clone copies page tables, so a start costs less than fork and exec, and an idle supervisor costs the kernel's
//! task structures and one page of stack. The program's descendants are found below the supervisor's pid in /proc; killing
//! them is the caller's business. When memory or processor time runs short, the program stands back behind the agent: its
//! `oom_score_adj` is 600 higher, its nice value 0 where the agent's is below (proc(5), setpriority(2)).
//!
//! Needs no privilege but for a change of user (CAP_SETUID, CAP_SETGID).

mod child;
mod raw;

use std::ffi::{CString, c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags};
use rustix::process::Pid;

use child::{Message, Order};

/// Puts the calling thread, and those that it starts, before the programs of its supervisors when processor time runs
/// short: they are back at a nice value of 0. It counts within one cgroup only, so it takes nothing from others. Where
/// that is not allowed (no CAP_SYS_NICE, as in a container) nothing changes.
pub fn come_first() -> io::Result<()> {
    match rustix::process::setpriority_process(None, NICE) {
        Err(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => Ok(()),
        result => Ok(result?),
    }
}

/// By the kernel's table of weights (sched_prio_to_weight) as much processor time as 28 programs.
const NICE: i32 = -15;
/// How much sooner a program is ended than this process when memory runs out: proc(5) counts in thousandths of it.
const OOM_SCORE_ADJ_RAISE: i32 = 600;
/// proc(5).
const OOM_SCORE_ADJ_MAX: i32 = 1000;

/// What to run, and as whom. Everything is prepared before the clone: afterwards nothing can be allocated.
#[derive(Debug)]
pub struct Command {
    /// The program's file, or several to try in turn, as with PATH.
    pub programs: Vec<CString>,
    /// Its arguments, its own name first.
    pub argv: Vec<CString>,
    /// Its environment, `NAME=value`.
    pub env: Vec<CString>,
    /// The directory it starts in.
    pub cwd: CString,
    /// The user it runs as.
    pub identity: Identity,
    /// Its descriptors 0, 1 and 2.
    pub stdio: Stdio,
    /// Whether set-user-id programs gain anything.
    pub privileges: Privileges,
}

/// User, group and supplementary groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user id.
    pub uid: u32,
    /// The group id.
    pub gid: u32,
    /// All supplementary groups.
    pub groups: Vec<u32>,
}

/// A program's standard descriptors. They are closed in the caller when the start is under way.
#[derive(Debug)]
pub enum Stdio {
    /// Three descriptors.
    Separate {
        /// Descriptor 0.
        input: OwnedFd,
        /// Descriptor 1.
        output: OwnedFd,
        /// Descriptor 2.
        error: OwnedFd,
    },
    /// One terminal for all three; it becomes the controlling terminal.
    Terminal(OwnedFd),
}

/// Whether execve may add privileges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privileges {
    /// As the program file says.
    Gainable,
    /// Never: prctl(PR_SET_NO_NEW_PRIVS).
    Fixed,
}

/// The step at which a start failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Making the leader's task.
    Fork = 1,
    /// A session of its own and its terminal.
    Session,
    /// Descriptors and signals.
    Stdio,
    /// The change of user and groups.
    Identity,
    /// PR_SET_NO_NEW_PRIVS.
    Privileges,
    /// The change of directory.
    WorkingDirectory,
    /// The program itself.
    Exec,
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// From the status word of wait(2).
    pub fn from_status(status: c_int) -> Self {
        if libc::WIFSIGNALED(status) {
            Self::Signal(libc::WTERMSIG(status))
        } else {
            Self::Code(libc::WEXITSTATUS(status))
        }
    }
}

/// What a supervisor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// The program runs.
    Started {
        /// Its pid.
        leader: Pid,
    },
    /// The program does not run, and the supervisor ends.
    Failed {
        /// The step.
        step: Step,
        /// Its `errno`.
        errno: i32,
    },
    /// The program ended; what it left behind may still run.
    Exited(Exit),
    /// Nothing of the process is left, or the supervisor itself was killed.
    Gone,
}

/// A running supervisor. Its descriptor is readable when there is a [`Report`].
///
/// Dropping it before [`Report::Gone`] was read leaks the two stacks, for the supervisor goes on.
#[derive(Debug)]
pub struct Supervisor {
    pid: Pid,
    reports: OwnedFd,
    /// Until Started or Failed.
    prepared: Option<Prepared>,
    /// Until Gone.
    stacks: Option<Stacks>,
}

impl Supervisor {
    /// Starts a supervisor and returns at once; its first report says whether the program runs.
    pub fn spawn(command: Command) -> io::Result<Self> {
        let (reports, report) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        rustix::fs::fcntl_setfl(&reports, rustix::fs::OFlags::NONBLOCK)?;
        let stacks = Stacks::map()?;
        let report = above_stdio(report)?;
        let mut prepared = Prepared::new(command, &report, &stacks)?;
        let flags = libc::CLONE_VM | libc::SIGCHLD;
        let order: *mut c_void = (&raw mut *prepared.order).cast();
        let pid = with_signals_blocked(|| {
            // SAFETY: the stack's top half is the supervisor's alone; `prepared` and `stacks` live in the returned
            // Supervisor until its reports say that nobody uses them, and are leaked otherwise. `supervise` touches
            // nothing but them and its own task.
            unsafe { raw::clone(flags, stacks.supervisor_top(), child::supervise, order) }
        })?;
        if pid < 0 {
            return Err(io::Error::from_raw_os_error(-pid as i32));
        }
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        prepared.close_stdio();
        Ok(Self { pid, reports, prepared: Some(prepared), stacks: Some(stacks) })
    }

    /// The supervisor's own pid: the root of the tree. Wait for it as for any child.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The next report; `WouldBlock` when there is none yet.
    pub fn report(&mut self) -> io::Result<Report> {
        let mut bytes = [0u8; size_of::<Message>()];
        let count = rustix::io::retry_on_intr(|| rustix::io::read(&self.reports, &mut bytes))?;
        if count == 0 {
            // The last copy of the pipe's other end is closed, so neither task runs in our memory any more: the leader
            // closes it in execve or exit, the supervisor in exit, after it gave up the memory (do_exit: exit_mm, then
            // exit_files).
            self.stacks.take();
            let leader = self.prepared.take().and_then(|prepared| prepared.unreported_leader());
            return Ok(leader.map_or(Report::Gone, |leader| Report::Started { leader }));
        }
        let number = |at: usize| i32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (kind, value, errno) = (number(0) as u32, number(4), number(8));
        match kind {
            child::EXITED => Ok(Report::Exited(Exit::from_status(value))),
            child::STARTED => {
                let leader = Pid::from_raw(value).ok_or(io::ErrorKind::InvalidData)?;
                if self.prepared.take().is_some_and(|prepared| !prepared.stands_back()) {
                    // Where users are mapped only a program of its own memory may: until then its files in /proc are
                    // the machine's root's. Best effort, as in the leader itself.
                    stand_back(leader);
                }
                Ok(Report::Started { leader })
            }
            _ => {
                self.prepared.take();
                Ok(Report::Failed { step: step(value), errno })
            }
        }
    }
}

impl AsFd for Supervisor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reports.as_fd()
    }
}

impl AsRawFd for Supervisor {
    fn as_raw_fd(&self) -> RawFd {
        self.reports.as_raw_fd()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        std::mem::forget(self.prepared.take());
        std::mem::forget(self.stacks.take());
    }
}

fn step(value: c_int) -> Step {
    [Step::Fork, Step::Session, Step::Stdio, Step::Identity, Step::Privileges, Step::WorkingDirectory]
        .into_iter()
        .find(|step| *step as c_int == value)
        .unwrap_or(Step::Exec)
}

/// An Order and all that it points to.
#[derive(Debug)]
struct Prepared {
    order: Box<Order>,
    stdio: Vec<OwnedFd>,
    /// Keeps the strings alive.
    _strings: Vec<Vec<CString>>,
    _arrays: Vec<Vec<*const c_char>>,
    _cwd: CString,
    _groups: Vec<u32>,
}

// SAFETY: the pointers lead to memory that this value owns, and only the two tasks of its supervisor follow them.
unsafe impl Send for Prepared {}

impl std::fmt::Debug for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Order").finish_non_exhaustive()
    }
}

impl Prepared {
    fn new(command: Command, report: &OwnedFd, stacks: &Stacks) -> io::Result<Self> {
        let Command { programs, argv, env, cwd, identity, stdio, privileges } = command;
        let terminal = u32::from(matches!(stdio, Stdio::Terminal(_)));
        let stdio = match stdio {
            Stdio::Separate { input, output, error } => {
                vec![above_stdio(input)?, above_stdio(output)?, above_stdio(error)?]
            }
            Stdio::Terminal(terminal) => vec![above_stdio(terminal)?],
        };
        let numbers = [0, 1, 2].map(|at: usize| stdio[at.min(stdio.len() - 1)].as_raw_fd());
        let standing = standing();
        let strings = vec![programs, argv, env];
        let arrays: Vec<Vec<*const c_char>> = strings.iter().map(|list| pointers(list)).collect();
        let order = Box::new(Order {
            programs: arrays[0].as_ptr(),
            argv: arrays[1].as_ptr(),
            env: arrays[2].as_ptr(),
            cwd: cwd.as_ptr(),
            groups: identity.groups.as_ptr(),
            group_count: identity.groups.len(),
            uid: identity.uid,
            gid: identity.gid,
            stdio: numbers,
            terminal,
            no_new_privs: u32::from(privileges == Privileges::Fixed),
            nice: standing.nice,
            oom_score_adj: standing.oom_score_adj.as_ptr().cast(),
            oom_score_adj_length: standing.oom_score_adj.len(),
            stands_back: 0,
            ignored_signals: ignored_signals(),
            report: report.as_raw_fd(),
            leader_stack_top: stacks.leader_top(),
            leader: 0,
            failed_step: 0,
            failed_errno: 0,
        });
        Ok(Self { order, stdio, _strings: strings, _arrays: arrays, _cwd: cwd, _groups: identity.groups })
    }

    /// The leader that became the program and killed the supervisor before that could say so. Only to be called when
    /// nobody else uses this memory.
    fn unreported_leader(&self) -> Option<Pid> {
        if self.order.failed_step != 0 {
            return None;
        }
        // SAFETY: the field is live and initialised; volatile, because another task wrote it.
        Pid::from_raw(unsafe { ptr::read_volatile(&raw const self.order.leader) })
    }

    fn stands_back(&self) -> bool {
        // SAFETY: the field is live and initialised; volatile, because another task wrote it.
        unsafe { ptr::read_volatile(&raw const self.order.stands_back) != 0 }
    }

    /// The supervisor has copies; the process's output ends only when the caller's are gone.
    fn close_stdio(&mut self) {
        self.stdio.clear();
    }
}

fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect()
}

/// The descriptor, moved to 3 or above, so that no dup2 onto 0, 1 or 2 overwrites it.
fn above_stdio(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() > 2 { Ok(fd) } else { Ok(rustix::io::fcntl_dupfd_cloexec(&fd, 3)?) }
}

/// Root in a sandbox with users of its own may have put something else there; it shall hold nobody up.
fn stand_back(leader: Pid) {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(format!("/proc/{leader}/oom_score_adj"), flags, Mode::empty()) {
        let _ = rustix::io::write(file, standing().oom_score_adj.as_bytes());
    }
}

/// What a program has of the kernel's regard, less than this process.
#[derive(Debug)]
struct Standing {
    nice: c_int,
    /// The number in digits.
    oom_score_adj: String,
}

/// Asked for once: whoever starts this process settles its own.
fn standing() -> &'static Standing {
    static STANDING: OnceLock<Standing> = OnceLock::new();
    STANDING.get_or_init(|| {
        let own = std::fs::read_to_string("/proc/self/oom_score_adj").ok();
        let own: i32 = own.and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let nice = rustix::process::getpriority_process(None).unwrap_or(0).max(0);
        Standing { nice, oom_score_adj: (own + OOM_SCORE_ADJ_RAISE).min(OOM_SCORE_ADJ_MAX).to_string() }
    })
}

/// The signals that this process ignores, bit n-1 for signal n. Asked for once: a program settles that when it starts.
fn ignored_signals() -> u64 {
    static IGNORED: OnceLock<u64> = OnceLock::new();
    *IGNORED
        .get_or_init(|| (1..=64).filter(|signal| is_ignored(*signal)).fold(0, |set, signal| set | 1 << (signal - 1)))
}

fn is_ignored(signal: usize) -> bool {
    // The kernel's struct sigaction: handler, flags, restorer, mask. By raw call, for libc hides its own signals 32 and 33.
    let mut action = [0usize; 4];
    let arguments = [signal, 0, &raw mut action as usize, child::SIGNAL_SET, 0];
    // SAFETY: rt_sigaction(2) only asks, and writes to `action`, which lives on this stack.
    let result = unsafe { raw::call(libc::SYS_rt_sigaction, arguments) };
    result == 0 && action[0] == libc::SIG_IGN
}

/// No handler of ours may run in a task that shares our memory: it would run there as well.
fn with_signals_blocked<T>(action: impl FnOnce() -> T) -> io::Result<T> {
    // SAFETY: plain data, for which zero is valid, filled by sigfillset(3) and pthread_sigmask(3).
    let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
    // SAFETY: both sets live on this stack.
    let error = unsafe {
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before)
    };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let result = action();
    // SAFETY: `before` was filled above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    Ok(result)
}

/// Two stacks in one mapping, above a page that faults.
#[derive(Debug)]
struct Stacks {
    base: *mut c_void,
}

// SAFETY: the mapping belongs to this value alone, and to the two tasks of its supervisor.
unsafe impl Send for Stacks {}

const GUARD: usize = 64 << 10; // The largest page of any machine we run on.
const STACK: usize = 64 << 10;
const MAPPING: usize = GUARD + 2 * STACK;

impl Stacks {
    fn map() -> io::Result<Self> {
        use rustix::mm::{MapFlags, MprotectFlags, ProtFlags, mmap_anonymous, mprotect};
        // SAFETY: a new private mapping at an address of the kernel's choice replaces nothing.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), MAPPING, ProtFlags::empty(), MapFlags::PRIVATE)? };
        let stacks = Self { base };
        // SAFETY: the range is within the mapping made above.
        unsafe { mprotect(base.byte_add(GUARD), 2 * STACK, MprotectFlags::READ | MprotectFlags::WRITE)? };
        Ok(stacks)
    }

    fn leader_top(&self) -> *mut u8 {
        // SAFETY: within the mapping.
        unsafe { self.base.byte_add(GUARD + STACK).cast() }
    }

    fn supervisor_top(&self) -> *mut u8 {
        // SAFETY: one past the mapping's end.
        unsafe { self.base.byte_add(MAPPING).cast() }
    }
}

impl Drop for Stacks {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and by the rule of Supervisor no task uses it any more. A failure leaves it mapped.
        let _ = unsafe { rustix::mm::munmap(self.base, MAPPING) };
    }
}

#[cfg(test)]
mod tests;
