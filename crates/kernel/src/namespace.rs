//! New namespaces: for this process (`unshare`) and for a child that goes on in the same program (`clone3`).
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Proof that this process had one thread when asked.
///
/// A child of a process with several threads has one, and finds every lock that another thread held locked for ever;
/// so [`fork`] asks for this. Whoever holds it starts no thread.
#[derive(Debug)]
pub struct SingleThreaded(());

impl SingleThreaded {
    /// Counts this process's threads (needs /proc).
    pub fn check() -> io::Result<Self> {
        match std::fs::read_dir("/proc/self/task")?.count() {
            1 => Ok(Self(())),
            count => Err(io::Error::other(format!("{count} threads where there must be one"))),
        }
    }
}

/// The namespaces a child gets of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces(u64);

impl Namespaces {
    /// None: an ordinary fork.
    pub const NONE: Self = Self(0);
    /// What a sandbox's init is born with: mount, pid, ipc and uts. Its cgroup namespace comes after it is in its
    /// cgroup (a clone takes the parent's cgroup as the root), its network namespace when it is given one.
    pub const SANDBOX: Self =
        Self((libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64);
    /// Mounts alone.
    pub const MOUNTS: Self = Self(libc::CLONE_NEWNS as u64);
    /// Users alone.
    pub const USERS: Self = Self(libc::CLONE_NEWUSER as u64);
    /// Process ids alone.
    pub const PIDS: Self = Self(libc::CLONE_NEWPID as u64);
    /// A user namespace and mounts that it owns: every mount copied into it is locked (`mount_namespaces(7)`).
    pub const LOCKED_MOUNTS: Self = Self((libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as u64);
    /// A user namespace, and the network, ipc and uts namespaces that it owns.
    pub const OWNED: Self =
        Self((libc::CLONE_NEWUSER | libc::CLONE_NEWNET | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS) as u64);
}

/// Which side of a [`fork`] this is.
#[derive(Debug)]
pub enum Fork {
    /// The new process.
    Child,
    /// The process that called.
    Parent {
        /// The child's id in the caller's pid namespace.
        pid: Pid,
        /// A handle on the child that no pid reuse can confuse.
        pidfd: OwnedFd,
    },
}

/// CLONE_INTO_CGROUP of linux/sched.h; the C library crate's constant is too narrow.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Makes a child in new namespaces and, on cgroup v2, directly in a cgroup (`clone3(2)`, Linux 5.7 for the cgroup).
///
/// Both sides return. The child ends with SIGCHLD to the parent.
pub fn fork(_single: &SingleThreaded, new: Namespaces, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Fork> {
    let mut pidfd: libc::c_int = -1;
    // SAFETY: `clone_args` is plain integers, for which all zeroes is a value (and means "unset" to the kernel).
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = new.0 | libc::CLONE_PIDFD as u64;
    args.pidfd = (&raw mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: `args` and `pidfd` outlive the call. Without CLONE_VM and without a stack this is fork(2): the child gets
    // a copy of the whole address space. `SingleThreaded` (upheld by its holder) says that no other thread can have
    // left a lock of the C library or ours in a held state in that copy.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<libc::clone_args>()) };
    match pid {
        0 => Ok(Fork::Child),
        1.. => {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
            // SAFETY: CLONE_PIDFD succeeded, so the kernel stored a new descriptor there that nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Fork::Parent { pid, pidfd })
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// A namespace that a process can give itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Own {
    /// Mounts (needs CAP_SYS_ADMIN, as all of them).
    Mounts,
    /// The cgroup root: what is the process's cgroup now is `/` from then on.
    Cgroups,
    /// Network devices, addresses and ports.
    Network,
    /// Users, groups and capabilities: all capabilities in the new one, none outside. Not when there are threads.
    Users,
    /// The clocks of the children from now on (`time_namespaces(7)`, Linux 5.6).
    ChildrensTime,
}

/// Moves the calling thread into a new namespace (`unshare(2)`).
pub fn unshare(own: Own) -> io::Result<()> {
    let flags = match own {
        Own::Mounts => UnshareFlags::NEWNS,
        Own::Cgroups => UnshareFlags::NEWCGROUP,
        Own::Network => UnshareFlags::NEWNET,
        Own::Users => UnshareFlags::NEWUSER,
        Own::ChildrensTime => UnshareFlags::NEWTIME,
    };
    // SAFETY: the function is unsafe because of UnshareFlags::FILES, which no variant of `Own` maps to.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(Into::into)
}

/// A namespace of another process that this one joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Its mounts: the root and working directories become that namespace's root.
    Mounts,
    /// Its users: all capabilities in it, as whatever user this process is. Not when there are threads.
    Users,
    /// Its process ids, for the children from now on.
    Pids,
}

/// Moves this process into the namespace of `descriptor` (`setns(2)`). Needs CAP_SYS_ADMIN over it.
pub fn join(descriptor: BorrowedFd<'_>, which: Join) -> io::Result<()> {
    let kind = match which {
        Join::Mounts => LinkNameSpaceType::Mount,
        Join::Users => LinkNameSpaceType::User,
        Join::Pids => LinkNameSpaceType::ProcessID,
    };
    rustix::thread::move_into_link_name_space(descriptor, Some(kind)).map_err(Into::into)
}

/// PROC_USER_INIT_INO of linux/proc_ns.h: the one user namespace whose number never changes.
const MACHINES_USERS: u64 = 0xefff_fffd;

/// Whether this process is in the user namespace that the machine began with. In any other, whatever its root may do,
/// the kernel makes no device nodes, loads no program that judges devices, and shows no `trusted.` attributes.
pub fn has_machines_users() -> io::Result<bool> {
    Ok(rustix::fs::stat("/proc/self/ns/user")?.st_ino == MACHINES_USERS)
}

/// NS_GET_USERNS and NS_GET_PARENT of linux/nsfs.h.
const GET_OWNER: libc::c_ulong = 0xb701;
const GET_PARENT: libc::c_ulong = 0xb702;

/// The user namespace that owns this namespace (`ioctl_ns(2)`). EPERM when it is not below the caller's own.
pub fn owner(of: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    related(of, GET_OWNER)
}

/// The parent of this user or pid namespace. EPERM when that is not the caller's own or below it.
pub fn parent(of: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    related(of, GET_PARENT)
}

fn related(of: BorrowedFd<'_>, request: libc::c_ulong) -> io::Result<OwnedFd> {
    // SAFETY: both requests take no argument.
    match unsafe { libc::ioctl(of.as_raw_fd(), request as _) } {
        // SAFETY: the kernel just made this descriptor, and nobody else owns it.
        fd @ 0.. => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
