//! The least that the kernel needs to run a program in namespaces of its own: what every runtime is measured against.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Runs `/bin/true` of a root filesystem: clone3 with new mount, pid, net, ipc, uts and cgroup namespaces, pivot_root,
/// execve, wait. No cgroup, no filter, no /proc. For benchmarks only.
///
/// Needs CAP_SYS_ADMIN. Errors: what clone3(2) or wait4(2) said, or `Other` when the program did not exit with 0.
pub fn run_true(rootfs: &Path) -> io::Result<()> {
    let root = CString::new(rootfs.as_os_str().as_bytes())?;
    let flags = libc::CLONE_NEWNS
        | libc::CLONE_NEWPID
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWCGROUP;
    // SAFETY: all-zero is a valid clone_args (clone(2): "zero means absent").
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = u64::from(flags.unsigned_abs());
    args.exit_signal = u64::from(libc::SIGCHLD.unsigned_abs());
    // SAFETY: `args` lives over the call; without CLONE_VM the child has its own copy of this address space, and runs
    // only `enter`, which makes nothing but system calls: no lock that another thread held at the clone is taken.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => enter(&root),
        pid => wait(pid as libc::pid_t),
    }
}

/// The child's half: never returns.
fn enter(root: &CString) -> ! {
    let program = c"/bin/true".as_ptr();
    let argv = [program, std::ptr::null()];
    let none = std::ptr::null();
    // SAFETY: every pointer is to a NUL-terminated string or array that lives until execve replaces the program.
    unsafe {
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
