//! The least that the kernel needs to run a program in namespaces of its own: what every runtime is measured against.

use std::ffi::CString;
use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Whose users the program's are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Users {
    /// The caller's.
    Callers,
    /// Those of a user namespace of its own, with 65,536 ids mapped by the parent.
    Own,
}

/// Runs `/bin/true` of a root filesystem: clone3 with new mount, pid, net, ipc, uts and cgroup namespaces (and a user
/// namespace, and its maps, where asked), pivot_root, execve, wait. No cgroup, no filter, no /proc. For benchmarks only.
///
/// Needs CAP_SYS_ADMIN, and root for the maps. Errors: what clone3(2), the maps or wait4(2) said, or `Other` when the
/// program did not exit with 0.
pub fn run_true(rootfs: &Path, users: Users) -> io::Result<()> {
    let root = CString::new(rootfs.as_os_str().as_bytes())?;
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    let (flags, mapped) = match users {
        Users::Callers => (flags, None),
        Users::Own => (flags | libc::CLONE_NEWUSER, Some(io::pipe()?)),
    };
    // SAFETY: all-zero is a valid clone_args (clone(2): "zero means absent").
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(flags.unsigned_abs());
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: `args` lives over the call; without CLONE_VM the child has its own copy of this address space, and runs
    // only `enter`, which makes nothing but system calls: no lock that another thread held at the clone is taken.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => enter(&root, mapped.as_ref()),
        pid => {
            let pid = pid as libc::pid_t;
            // A child whose maps fail sees the pipe end, and is waited for all the same.
            let mapped = mapped.map_or(Ok(()), |(_, writer)| map(pid, writer));
            let ended = wait(pid);
            mapped.and(ended)
        }
    }
}

/// One to one: what it costs does not depend on which ids they are, and the root filesystem can be anyone's.
fn map(pid: libc::pid_t, mut done: PipeWriter) -> io::Result<()> {
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{map}"), "0 0 65536\n")?;
    }
    done.write_all(b"m")
}

/// The child's half: never returns.
fn enter(root: &CString, mapped: Option<&(PipeReader, PipeWriter)>) -> ! {
    let program = c"/bin/true".as_ptr();
    let argv = [program, std::ptr::null()];
    let none = std::ptr::null();
    let mut byte = 0u8;
    // SAFETY: every pointer is to a NUL-terminated string or array that lives until execve replaces the program, or to
    // `byte`; the descriptor that is closed is the child's copy, which the child never drops, because it never returns.
    unsafe {
        if let Some((reader, writer)) = mapped {
            libc::close(writer.as_raw_fd());
            if libc::read(reader.as_raw_fd(), (&raw mut byte).cast(), 1) != 1 {
                libc::_exit(126)
            }
        }
        let slash = c"/".as_ptr();
        let dot = c".".as_ptr();
        let ok = libc::mount(none, slash, none, libc::MS_REC | libc::MS_PRIVATE, none.cast()) == 0
            && libc::mount(root.as_ptr(), root.as_ptr(), none, libc::MS_BIND, none.cast()) == 0
            && libc::chdir(root.as_ptr()) == 0
            && libc::syscall(libc::SYS_pivot_root, dot, dot) == 0
            && libc::umount2(dot, libc::MNT_DETACH) == 0;
        if ok {
            libc::execv(program, argv.as_ptr());
        }
        libc::_exit(127)
    }
}

fn wait(pid: libc::pid_t) -> io::Result<()> {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result; `pid` is our own unreaped child.
    if unsafe { libc::waitpid(pid, &raw mut status, 0) } != pid {
        return Err(io::Error::last_os_error());
    }
    if status == 0 { Ok(()) } else { Err(io::Error::other(format!("/bin/true ended with status {status:#x}"))) }
}
