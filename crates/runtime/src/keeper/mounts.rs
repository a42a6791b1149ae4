//! Mounting and unmounting the virtual proc and sysfs in namespaces of the sandbox: done by a child of the keeper, which
//! is root of the sandbox's outer user namespace and so may work in all namespaces below.
//!
//! ```text
//!  fork --> own mounts: proc of the caller's pids, masks, virtual files
//!             fork --> user and mount namespace: a copy, in which all that is on it is locked --descriptor--+
//!  the caller's mount namespace, root and working directory: the target, and the locked tree on it  <-------+
//! ```
//!
//! A tree that is copied out of a mount namespace of another user namespace keeps its locks, so the sandbox cannot take
//! a virtual file off and look at the host's below. The tree as a whole it may unmount: that shows what was there.
use std::os::fd::{AsFd, OwnedFd};

use garth_kernel::namespace::{self, Fork, Join, Namespaces, SingleThreaded};
use garth_kernel::{idmap, netns};
use garth_procview::Place;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, StatxAttributes, StatxFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::calls::Outcome;
use super::{VIEW, detached, open, shown};
use crate::Policy;
use crate::channel::Channel;
use crate::steps::mapped::{HOST_PROC, helper_network_steps};
use crate::steps::{Fds, Step, apply};

/// What a caller wants.
pub(super) enum Change {
    Mount { what: Virtual, target: Vec<u8>, flags: u64 },
    Unmount { target: Vec<u8>, flags: u64 },
}

/// A virtual file system.
pub(super) enum Virtual {
    Proc { options: Vec<u8> },
    Sys,
}

/// MS_RDONLY, MS_NOSUID, MS_NODEV and MS_NOEXEC have the numbers of MOUNT_ATTR_*.
const RESTRICTIONS: u64 = 0xf;
/// CAP_SYS_ADMIN's number.
const SYS_ADMIN: u32 = 21;

/// Does it. Call it in a child: it changes namespaces and directories.
pub(super) fn carry_out(
    change: &Change,
    thread: Pid,
    still_waits: impl Fn() -> bool,
    policy: &Policy,
    single: &SingleThreaded,
) -> Outcome {
    let result = Caller::open(thread).and_then(|caller| {
        // What was opened by the thread's number is the caller's if that still waits.
        if !still_waits() {
            return Err(Errno::SRCH);
        }
        match change {
            Change::Mount { what, target, flags } => {
                caller.check_mount(what)?;
                let tree = build(what, &caller, policy, single)?;
                if flags & RESTRICTIONS != 0 {
                    idmap::restrict(tree.as_fd(), flags & RESTRICTIONS).map_err(errno)?;
                }
                caller.enter()?;
                let target = caller.find_as_caller(target)?;
                let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
                rustix::mount::move_mount(&tree, "", &target, "", flags)?;
                Ok(Outcome::Done)
            }
            Change::Unmount { target, flags } => unmount(&caller, target, *flags),
        }
    });
    match (result, change) {
        (Ok(outcome), _) => outcome,
        // Whatever could not be found out here: the kernel decides by itself, as it may.
        (Err(_), Change::Unmount { .. }) => Outcome::GoOn,
        (Err(e), Change::Mount { .. }) => Outcome::Error(e.raw_os_error()),
    }
}

/// A tree of virtual files is busy for a plain umount, as other mounts are on it: all goes at once. Anything else is for
/// the kernel to do.
fn unmount(caller: &Caller, target: &[u8], flags: u64) -> Result<Outcome, Errno> {
    let sys = rustix::fs::stat("stage/sys")?.st_dev;
    caller.check(&caller.mounts)?;
    caller.enter()?;
    let follow = if flags & 8 == 0 { OFlags::empty() } else { OFlags::NOFOLLOW };
    let found = rustix::fs::open(target, OFlags::PATH | OFlags::CLOEXEC | follow, Mode::empty())?;
    // The file system is asked nothing: it can be a FUSE one of the caller, who answers no more.
    let how = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC | AtFlags::NO_AUTOMOUNT;
    let about = rustix::fs::statx(&found, "", how, StatxFlags::MNT_ID)?;
    let is_root = about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    let is_sys = rustix::fs::makedev(about.stx_dev_major, about.stx_dev_minor) == sys;
    if !is_root || !(is_sys || is_proc(&caller.mount_list, about.stx_mnt_id)) {
        return Ok(Outcome::GoOn);
    }
    match rustix::mount::unmount(target, UnmountFlags::DETACH) {
        Ok(()) => Ok(Outcome::Done),
        Err(e) => Ok(Outcome::Error(e.raw_os_error())),
    }
}

/// Whether the mount of this number is a proc, by the text of mountinfo: `36 35 98:0 /root /point options - type …`.
fn is_proc(mount_list: &str, id: u64) -> bool {
    let id = id.to_string();
    let line = mount_list.lines().find(|line| line.split(' ').next() == Some(&id));
    line.and_then(|line| line.split_once(" - ")).is_some_and(|(_, rest)| rest.starts_with("proc "))
}

/// The namespaces and directories of who called.
struct Caller {
    /// Its mountinfo.
    mount_list: String,
    mounts: OwnedFd,
    users: OwnedFd,
    pids: OwnedFd,
    network: OwnedFd,
    root: OwnedFd,
    directory: OwnedFd,
    leader: Pid,
    capabilities: u64,
    /// By which its rights to files are judged.
    user: Uid,
    group: Gid,
    groups: Vec<Gid>,
}

impl Caller {
    fn open(thread: Pid) -> Result<Self, Errno> {
        let at = format!("{HOST_PROC}/{}", thread.as_raw_nonzero());
        let link = |name: &str| open(&format!("{at}/{name}")).map_err(errno);
        let directory = |name: &str| {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(format!("{at}/{name}"), flags, Mode::empty())
        };
        let status = std::fs::read_to_string(format!("{at}/status")).map_err(errno)?;
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let leader = field("Tgid:").and_then(|id| id.parse().ok()).and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        let capabilities = field("CapEff:").and_then(|hex| u64::from_str_radix(hex, 16).ok()).ok_or(Errno::SRCH)?;
        // The fourth of each: the file system's.
        let fourth = |name: &str| field(name).and_then(|ids| ids.split_whitespace().nth(3)?.parse().ok());
        let (user, group) = (fourth("Uid:").ok_or(Errno::SRCH)?, fourth("Gid:").ok_or(Errno::SRCH)?);
        let groups = field("Groups:").unwrap_or_default().split_whitespace();
        let groups = groups.filter_map(|id| id.parse().ok()).map(Gid::from_raw).collect();
        Ok(Self {
            user: Uid::from_raw(user),
            group: Gid::from_raw(group),
            groups,
            mount_list: std::fs::read_to_string(format!("{at}/mountinfo")).map_err(errno)?,
            mounts: link("ns/mnt")?,
            users: link("ns/user")?,
            pids: link("ns/pid")?,
            network: link("ns/net")?,
            root: directory("root")?,
            directory: directory("cwd")?,
            leader,
            capabilities,
        })
    }

    /// What the kernel asks of who mounts: CAP_SYS_ADMIN over the user namespaces that own the mount namespace
    /// (`may_mount`) and, for proc, the pid namespace and, for sysfs, the network namespace.
    fn check_mount(&self, what: &Virtual) -> Result<(), Errno> {
        self.check(&self.mounts)?;
        self.check(match what {
            Virtual::Proc { .. } => &self.pids,
            Virtual::Sys => &self.network,
        })
    }

    /// Whether it has CAP_SYS_ADMIN in the user namespace that owns this namespace, or in one above that.
    fn check(&self, namespace: &OwnedFd) -> Result<(), Errno> {
        if self.capabilities & (1 << SYS_ADMIN) == 0 {
            return Err(Errno::PERM);
        }
        let own = rustix::fs::fstat(&self.users)?.st_ino;
        let mut above = namespace::owner(namespace.as_fd()).map_err(errno)?;
        while rustix::fs::fstat(&above)?.st_ino != own {
            // Ends with EPERM above the keeper's own.
            above = namespace::parent(above.as_fd()).map_err(errno)?;
        }
        Ok(())
    }

    /// Sees the files that the caller sees, by the same names.
    fn enter(&self) -> Result<(), Errno> {
        namespace::join(self.mounts.as_fd(), Join::Mounts).map_err(errno)?;
        rustix::process::fchdir(&self.root)?;
        rustix::process::chroot(".")?;
        rustix::process::fchdir(&self.directory)
    }

    /// As [`Caller::find`], through directories that the caller may search: with its user, groups and those of its
    /// capabilities that count for that.
    fn find_as_caller(&self, target: &[u8]) -> Result<OwnedFd, Errno> {
        let own = rustix::thread::capabilities(None)?;
        let counting = CapabilitySet::DAC_OVERRIDE | CapabilitySet::DAC_READ_SEARCH;
        let kept = !counting | CapabilitySet::from_bits_retain(self.capabilities);
        rustix::thread::set_thread_groups(&self.groups)?;
        garth_kernel::credentials::set_file_user(self.user, self.group);
        rustix::thread::set_capabilities(None, CapabilitySets { effective: own.effective & kept, ..own })?;
        let found = self.find(target);
        garth_kernel::credentials::set_file_user(Uid::ROOT, Gid::ROOT);
        rustix::thread::set_capabilities(None, own)?;
        found
    }

    /// The place that the caller names. Its own descriptors, by which container runtimes name places that nobody can
    /// swap for others, are taken from it; all else is looked up.
    fn find(&self, target: &[u8]) -> Result<OwnedFd, Errno> {
        let text = std::str::from_utf8(target).unwrap_or_default();
        let number = ["/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"]
            .iter()
            .find_map(|prefix| text.strip_prefix(prefix))
            .and_then(|number| number.parse().ok());
        match number {
            Some(number) => {
                let process = rustix::process::pidfd_open(self.leader, PidfdFlags::empty())?;
                rustix::process::pidfd_getfd(process, number, PidfdGetfdFlags::empty())
            }
            None => rustix::fs::open(target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()),
        }
    }
}

/// The tree as a detached mount with everything on it locked.
fn build(what: &Virtual, caller: &Caller, policy: &Policy, single: &SingleThreaded) -> Result<OwnedFd, Errno> {
    namespace::unshare(namespace::Own::Mounts).map_err(errno)?;
    let at = match what {
        Virtual::Proc { options } => {
            let proc = crate::steps::open_proc(caller.pids.as_fd(), &parse(options)?).map_err(errno)?;
            rustix::mount::move_mount(proc, "", CWD, "stage/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
            let mut steps: Vec<Step> = policy.masked.iter().cloned().map(Step::Mask).collect();
            steps.push(Step::ShowViews);
            put(&steps, policy, &mut Fds { views: views_of_proc()?, ..Fds::default() })?;
            "stage/proc"
        }
        Virtual::Sys => {
            netns::enter(caller.network.as_fd()).map_err(errno)?;
            put(&helper_network_steps(policy), policy, &mut Fds::default())?;
            "stage/sys"
        }
    };
    locked_copy(at, single)
}

fn put(steps: &[Step], policy: &Policy, fds: &mut Fds) -> Result<(), Errno> {
    apply(steps, policy, fds).map_err(|failure| Errno::from_raw_os_error(failure.errno))
}

fn views_of_proc() -> Result<Vec<(&'static str, OwnedFd)>, Errno> {
    let of_proc = shown().filter_map(|(name, place)| match place {
        Place::Proc(path) => Some((path, name)),
        Place::Sys(_) => None,
    });
    of_proc.map(|(path, name)| Ok((path, detached(&format!("{VIEW}/{name}")).map_err(errno)?))).collect()
}

fn locked_copy(at: &str, single: &SingleThreaded) -> Result<OwnedFd, Errno> {
    let (ours, theirs) = Channel::pair().map_err(errno)?;
    match namespace::fork(single, Namespaces::LOCKED_MOUNTS, None).map_err(errno)? {
        Fork::Child => {
            let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
            if let Ok(tree) = rustix::mount::open_tree(CWD, at, flags) {
                // Who asked sees the channel end without a message otherwise.
                let _ = theirs.send(&(), &[tree.as_fd()]);
            }
            garth_kernel::descriptors::exit(0)
        }
        Fork::Parent { .. } => drop(theirs),
    }
    let received = ours.receive::<()>().map_err(errno)?;
    received.and_then(|((), fds)| fds.into_iter().next()).ok_or(Errno::IO)
}

/// `hidepid=2,subset=pid` and the like.
fn parse(options: &[u8]) -> Result<Vec<(String, String)>, Errno> {
    let text = std::str::from_utf8(options).map_err(|_| Errno::INVAL)?;
    let pairs = text.split(',').filter(|option| !option.is_empty());
    pairs.map(|option| option.split_once('=').ok_or(Errno::INVAL).map(|(k, v)| (k.to_owned(), v.to_owned()))).collect()
}

fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
