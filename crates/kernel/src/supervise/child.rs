//! What runs in the supervisor and in the leader before its exec. Both share the agent's memory (`CLONE_VM`), so this
//! code allocates nothing, unwinds nowhere, takes no lock, and calls the kernel through [`raw`] only.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;

use super::Step;
use super::raw::{self, call};

/// What to do, as plain pointers into memory that the agent keeps until both tasks are done with it.
#[repr(C)]
pub struct Order {
    pub programs: *const *const c_char,
    pub argv: *const *const c_char,
    pub env: *const *const c_char,
    pub cwd: *const c_char,
    pub groups: *const u32,
    pub group_count: usize,
    pub uid: u32,
    pub gid: u32,
    pub stdio: [c_int; 3],
    pub terminal: u32,
    pub no_new_privs: u32,
    pub nice: c_int,
    pub oom_score_adj: *const c_char,
    pub oom_score_adj_length: usize,
    /// Written by the leader when that many bytes were taken.
    pub stands_back: u32,
    /// Bit n-1 for signal n.
    pub ignored_signals: u64,
    pub report: c_int,
    pub leader_stack_top: *mut u8,
    /// Written by the leader first of all: its program may kill the supervisor before that could report it.
    pub leader: c_int,
    /// Written by the leader when it could not become the program.
    pub failed_step: u32,
    pub failed_errno: c_int,
}

/// One message of the supervisor to the agent; short enough for a pipe to keep it whole (pipe(7), PIPE_BUF).
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Message {
    pub kind: u32,
    pub value: c_int,
    pub errno: c_int,
}

pub const STARTED: u32 = 1;
pub const FAILED: u32 = 2;
pub const EXITED: u32 = 3;

/// Kernel signal sets are 64 bits on all 64-bit machines.
pub const SIGNAL_SET: usize = 8;

/// The supervisor: starts the leader, reports, then reaps all that descends from it until nothing is left.
pub extern "C" fn supervise(order: *mut c_void) -> ! {
    let order: *mut Order = order.cast();
    // SAFETY: `Supervisor::spawn` passes a live Order and keeps it until Started or Failed was reported.
    let report = unsafe { (*order).report };
    // SAFETY: prctl(2) with plain numbers, and a name that ends in NUL.
    unsafe {
        call(libc::SYS_prctl, [libc::PR_SET_CHILD_SUBREAPER as usize, 1, 0, 0, 0]);
        call(libc::SYS_prctl, [libc::PR_SET_NAME as usize, c"garth-process".as_ptr() as usize, 0, 0, 0]);
    }
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the leader has a stack of its own in the same mapping; CLONE_VFORK suspends this task until the leader has
    // execed or ended, so nobody else touches the Order meanwhile.
    let leader = unsafe { raw::clone(flags, (*order).leader_stack_top, lead, order.cast()) };
    if leader < 0 {
        send(report, Message { kind: FAILED, value: Step::Fork as c_int, errno: -leader as c_int });
        exit(1);
    }
    // SAFETY: the leader no longer runs in this memory, and the Order is live until the report below.
    let (step, errno) = unsafe { (ptr::read_volatile(&raw const (*order).failed_step), (*order).failed_errno) };
    if step != 0 {
        send(report, Message { kind: FAILED, value: step as c_int, errno });
        exit(1);
    }
    // From here on the Order may be gone.
    send(report, Message { kind: STARTED, value: leader as c_int, errno: 0 });
    close_all_but(report);
    reap(leader, report)
}

fn reap(leader: isize, report: c_int) -> ! {
    loop {
        let mut status: c_int = 0;
        // SAFETY: wait4(2) with a status that lives on this stack and no rusage.
        let pid = unsafe { call(libc::SYS_wait4, [usize::MAX, &raw mut status as usize, libc::__WALL as usize, 0, 0]) };
        if pid == leader {
            send(report, Message { kind: EXITED, value: status, errno: 0 });
        } else if pid == -(libc::ECHILD as isize) {
            exit(0);
        }
    }
}

/// The leader: becomes the program, or says at which step it could not.
extern "C" fn lead(order: *mut c_void) -> ! {
    let order: *mut Order = order.cast();
    // SAFETY: getpid(2) takes nothing; nobody else touches the Order meanwhile, see `supervise`.
    unsafe { ptr::write_volatile(&raw mut (*order).leader, call(libc::SYS_getpid, [0; 5]) as c_int) };
    // SAFETY: as above; the strings that it points to live as long.
    unsafe { stand_back(order) };
    // SAFETY: as in `supervise`, which is suspended while this runs.
    let (step, errno) = become_program(unsafe { &*order });
    // SAFETY: nobody else touches the Order, see above; volatile, because the reader is another task.
    unsafe {
        (*order).failed_errno = errno as c_int;
        ptr::write_volatile(&raw mut (*order).failed_step, step as u32);
    }
    exit(127)
}

/// Returns only on failure.
fn become_program(order: &Order) -> (Step, isize) {
    type Action = fn(&Order) -> isize;
    let steps: [(Step, Action); 6] = [
        (Step::Session, session),
        (Step::Stdio, stdio),
        (Step::Identity, identity),
        (Step::Privileges, privileges),
        (Step::WorkingDirectory, working_directory),
        (Step::Exec, exec),
    ];
    for (step, action) in steps {
        let result = action(order);
        if result < 0 {
            return (step, -result);
        }
    }
    (Step::Exec, libc::ENOEXEC as isize)
}

/// When processor time or memory runs short, the agent comes first. Where the kernel refuses that, nothing is lost.
///
/// # Safety
///
/// Nobody else touches the Order.
unsafe fn stand_back(order: *mut Order) {
    // SAFETY: by the caller. setpriority(2) takes numbers; open(2) a C string, write(2) as many bytes as there are. All of them are this
    // task's own: as a vfork child it shares no oom_score_adj with the agent (Linux 4.9, `__set_oom_adj`).
    unsafe {
        call(libc::SYS_setpriority, [libc::PRIO_PROCESS as usize, 0, (*order).nice as usize, 0, 0]);
        let path = c"/proc/self/oom_score_adj".as_ptr() as usize;
        // Root in a sandbox with users of its own may have put something else there; it shall hold nobody up.
        let flags = (libc::O_WRONLY | libc::O_NONBLOCK | libc::O_NOFOLLOW) as usize;
        let file = call(libc::SYS_openat, [libc::AT_FDCWD as usize, path, flags, 0, 0]);
        if file >= 0 {
            let (text, length) = ((*order).oom_score_adj as usize, (*order).oom_score_adj_length);
            let written = call(libc::SYS_write, [file as usize, text, length, 0, 0]);
            ptr::write_volatile(&raw mut (*order).stands_back, u32::from(written == length as isize));
            call(libc::SYS_close, [file as usize, 0, 0, 0, 0]);
        }
    }
}

/// A session of its own: signals to the process group and the terminal's job control reach this process only.
fn session(order: &Order) -> isize {
    // SAFETY: setsid(2) takes nothing; TIOCSCTTY takes a descriptor and a number.
    unsafe {
        let result = call(libc::SYS_setsid, [0; 5]);
        if result < 0 || order.terminal == 0 {
            return result;
        }
        call(libc::SYS_ioctl, [order.stdio[0] as usize, libc::TIOCSCTTY as usize, 0, 0, 0])
    }
}

/// Descriptors 0 to 2, default signal actions and an empty signal mask; all else is closed.
fn stdio(order: &Order) -> isize {
    for (target, source) in order.stdio.iter().enumerate() {
        // SAFETY: dup3(2) with plain numbers; `spawn` made sure that no source is below 3, so none is overwritten.
        let result = unsafe { call(libc::SYS_dup3, [*source as usize, target, 0, 0, 0]) };
        if result < 0 {
            return result;
        }
    }
    // struct sigaction of the kernel, all zero: SIG_DFL, no flags, no restorer, empty mask.
    let default = [0usize; 4];
    // Execve(2) resets handlers by itself, but not what is ignored.
    for signal in (1..=64).filter(|signal| order.ignored_signals >> (signal - 1) & 1 == 1) {
        // SAFETY: rt_sigaction(2) reads `default`. The actions are this task's own, for neither clone had CLONE_SIGHAND.
        unsafe { call(libc::SYS_rt_sigaction, [signal, default.as_ptr() as usize, 0, SIGNAL_SET, 0]) };
    }
    let none = 0u64;
    // SAFETY: rt_sigprocmask(2) reads 8 bytes; close_range(2) takes numbers (Linux 5.9; below that, close-on-exec does it).
    unsafe {
        call(libc::SYS_close_range, [3, u32::MAX as usize, 0, 0, 0]);
        call(libc::SYS_rt_sigprocmask, [libc::SIG_SETMASK as usize, &raw const none as usize, 0, SIGNAL_SET, 0])
    }
}

fn identity(order: &Order) -> isize {
    let (uid, gid) = (order.uid as usize, order.gid as usize);
    // SAFETY: setgroups(2) reads `group_count` ids; the other two take numbers. By raw call they change this task only,
    // not the agent's threads.
    unsafe {
        for (number, arguments) in [
            (libc::SYS_setgroups, [order.group_count, order.groups as usize, 0, 0, 0]),
            (libc::SYS_setresgid, [gid, gid, gid, 0, 0]),
            (libc::SYS_setresuid, [uid, uid, uid, 0, 0]),
        ] {
            let result = call(number, arguments);
            // Without CAP_SETGID nobody changes groups, and whoever is that user already keeps the ones it has.
            if result == -(libc::EPERM as isize) && number == libc::SYS_setgroups && is(order) {
                continue;
            }
            if result < 0 {
                return result;
            }
        }
    }
    0
}

/// Whether this task runs as that user and group already.
fn is(order: &Order) -> bool {
    // SAFETY: the two calls take and change nothing.
    let (uid, gid) = unsafe { (call(libc::SYS_geteuid, [0; 5]), call(libc::SYS_getegid, [0; 5])) };
    uid == order.uid as isize && gid == order.gid as isize
}

fn privileges(order: &Order) -> isize {
    if order.no_new_privs == 0 {
        return 0;
    }
    // SAFETY: prctl(2) with plain numbers.
    unsafe { call(libc::SYS_prctl, [libc::PR_SET_NO_NEW_PRIVS as usize, 1, 0, 0, 0]) }
}

/// After the change of user: a directory that the user may not enter is refused.
fn working_directory(order: &Order) -> isize {
    // SAFETY: `cwd` is a C string that `spawn` keeps alive.
    unsafe { call(libc::SYS_chdir, [order.cwd as usize, 0, 0, 0, 0]) }
}

/// Tries the programs in turn, as execvp(3) does with PATH.
fn exec(order: &Order) -> isize {
    let mut refused = false;
    let mut error = -(libc::ENOENT as isize);
    let mut next = order.programs;
    // SAFETY: `programs`, `argv` and `env` are null-terminated arrays of C strings that `spawn` keeps alive.
    unsafe {
        while !(*next).is_null() {
            error = call(libc::SYS_execve, [*next as usize, order.argv as usize, order.env as usize, 0, 0]);
            match -error as c_int {
                libc::EACCES => refused = true,
                libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
                _ => return error,
            }
            next = next.add(1);
        }
    }
    if refused { -(libc::EACCES as isize) } else { error }
}

fn send(report: c_int, message: Message) {
    // SAFETY: write(2) reads the message from this stack. When the agent is gone (EPIPE; SIGPIPE is blocked) nobody cares.
    unsafe { call(libc::SYS_write, [report as usize, &raw const message as usize, size_of::<Message>(), 0, 0]) };
}

/// Without this the supervisor would hold the agent's connections and the process's pipes open.
fn close_all_but(report: c_int) {
    let report = report as usize;
    // SAFETY: close_range(2) takes numbers; this task's descriptor table is its own (no CLONE_FILES), `report` is above 2.
    unsafe {
        call(libc::SYS_close_range, [0, report.wrapping_sub(1), 0, 0, 0]);
        call(libc::SYS_close_range, [report.wrapping_add(1), u32::MAX as usize, 0, 0, 0]);
    }
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: exit_group(2) ends this task only, which is alone in its thread group, and does not return.
        unsafe { call(libc::SYS_exit_group, [code, 0, 0, 0, 0]) };
    }
}
