//! The process beside each sandbox of mapped users, outside of its pid namespace: root of the sandbox's outer user
//! namespace, nobody on the host.
//!
//! ```text
//!  daemon --Prepare--> keeper: user namespace 1, mounts, virtual files  --clone--> porter: user namespace 2, network
//!  daemon --Order----> porter --clone--> init        porter --Born--> keeper
//!  daemon --Disk-----> init --Assemble--> keeper: disk, proc, virtual files   init: copies the mounts, becomes the agent
//!                      from then on keeper: answers reads of virtual files, and the calls that the filter holds back
//! ```
//!
//! It holds no descriptor of the host but the cgroup's files and the host's /proc, and can open nothing there that
//! everyone may not read. It keeps no state that cannot be made again: the virtual files' and the filter's descriptors
//! are held by the sandbox's init too, and a keeper that died is replaced by another on the same ones.
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use garth_kernel::namespace::{self, Fork, Namespaces, SingleThreaded};
use garth_kernel::netns;
use garth_kernel::seccomp::notify::Listener;
use garth_procview::{Cgroup, DIRECTORIES, NODES, Owner, Place, Served, Server, Sources, Started, View};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::DumpableBehavior;
use rustix::time::{ClockId, clock_gettime};

use crate::Policy;
use crate::channel::Channel;
use crate::handshake::{
    CgroupDirs, Failure, FromKeeper, HeldNumbers, Identity, KeeperReport, KeeperRequest, Parts, ToKeeper,
};
use crate::ids::IDS;
use crate::inside::{Entered, failed};
use crate::porter::Porter;
use crate::steps::mapped::{self, HOST_PROC};
use crate::steps::{Fds, apply};

mod calls;
mod children;
mod mounts;
mod resume;

use calls::Calls;
use children::Children;

/// Where the virtual files are, for the keeper alone.
const VIEW: &str = "stage/view";

/// What a keeper has become.
enum Made {
    Keeper(Box<Keeper>),
    /// The child that will clone the init.
    Porter(Porter),
}

/// Makes the keeper of a sandbox of this process. Returns in the sandbox's init; `None` in all other processes, when
/// they are done.
pub(crate) fn run(daemon: Channel, policy: &Policy, single: &SingleThreaded) -> Option<Entered> {
    match prepare(&daemon, policy, single) {
        Ok(Made::Keeper(keeper)) => garth_kernel::descriptors::exit(keeper.keep(policy, single)),
        Ok(Made::Porter(porter)) => {
            drop(daemon);
            porter.carry(policy, single)
        }
        Err(failure) => {
            // Nobody is left to tell when the daemon is gone.
            let _ = daemon.send(&KeeperReport::Failed(failure), &[]);
            None
        }
    }
}

struct Keeper {
    /// The porter, then the init, until that has entered.
    sandbox: Option<Channel>,
    server: Server,
    calls: Calls,
    children: Children,
    fds: Fds,
    /// The virtual files' file system, to be held by the init.
    view: OwnedFd,
    fuse: OwnedFd,
    /// The claim on the range of ids.
    _ids: OwnedFd,
}

fn prepare(daemon: &Channel, policy: &Policy, single: &SingleThreaded) -> Result<Made, Failure> {
    let (request, fds) = receive::<KeeperRequest>(daemon)?;
    let mut fds = Received(fds.into_iter());
    let (owner, cgroup) = match request {
        KeeperRequest::Prepare { owner, cgroup } => (owner, cgroup),
        KeeperRequest::Resume { owner, cgroup, identity } => {
            let cgroup = fds.cgroup(cgroup)?;
            let resumed = resume::resume(daemon, owner, cgroup, identity, fds, policy, single);
            return resumed.map(|keeper| Made::Keeper(Box::new(keeper)));
        }
        KeeperRequest::Mapped => return Err(protocol("be told what to prepare")),
    };
    let cgroup = fds.cgroup(cgroup)?;
    let (init_channel, listener, ids) = (Channel::from(fds.take()?), fds.take()?, fds.take()?);

    apply(&mapped::device_steps(owner), policy, &mut Fds::default())?;
    become_mapped(daemon)?;
    apply(&mapped::keeper_steps(), policy, &mut Fds::default())?;
    let fuse = mount_view().map_err(failed("mount the virtual files"))?;
    let proc = open_directory(HOST_PROC).map_err(failed("open the host's proc"))?;
    let view = View::new(Sources { proc, cgroup }, Started::default()).map_err(failed("read the limits"))?;
    let held_fuse = fuse.try_clone().map_err(failed("hold the virtual files"))?;
    let mut server = Server::new(fuse, view, Owner::default());
    let (views, root) = take_views(&mut server, single)?;

    // When the porter ends, the init is this process's child.
    let me = Some(rustix::process::getpid());
    rustix::process::set_child_subreaper(me).map_err(|e| failed("become the init's parent")(e.into()))?;
    let (ours, theirs) = Channel::pair().map_err(failed("make a channel"))?;
    let fork = namespace::fork(single, Namespaces::OWNED, None).map_err(failed("clone the porter"))?;
    let (porter, porter_pidfd) = match fork {
        Fork::Child => return Ok(Made::Porter(Porter { daemon: init_channel, keeper: theirs, listener })),
        Fork::Parent { pid, pidfd } => (pid.as_raw_nonzero().get(), pidfd),
    };
    drop((init_channel, listener, theirs));
    map_porter(porter).map_err(failed("map the porter's users"))?;
    send(&ours, &FromKeeper::Mapped, &[])?;
    let (ToKeeper::Listener, listener) = receive(&ours)? else { return Err(protocol("take the filter")) };
    let listener = Listener::from(listener.into_iter().next().ok_or_else(|| protocol("take the filter"))?);
    listener.wake_synchronously();

    let users = open(&format!("{HOST_PROC}/self/ns/user")).map_err(failed("open the user namespace"))?;
    let network = open(&format!("{HOST_PROC}/{porter}/ns/net")).map_err(failed("open the network namespace"))?;
    netns::enter(network.as_fd()).map_err(failed("join the network namespace"))?;
    apply(&mapped::keeper_network_steps(policy), policy, &mut Fds::default())?;
    let shown = show_in_sys(views)?;
    hide()?;
    let keeper = Keeper {
        sandbox: Some(ours),
        server,
        calls: Calls::new(listener),
        children: Children::watch().map_err(failed("watch the children"))?,
        fds: Fds { views: shown, ..Fds::default() },
        view: root,
        fuse: held_fuse,
        _ids: ids,
    };
    let ready = KeeperReport::Ready { porter, held: keeper.held() };
    send(daemon, &ready, &[porter_pidfd.as_fd(), users.as_fd(), network.as_fd()])?;
    Ok(Made::Keeper(Box::new(keeper)))
}

/// Nobody without the host's capabilities can look into this process from now on.
fn hide() -> Result<(), Failure> {
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    hidden.map_err(|e| failed("become undumpable")(e.into()))
}

/// Descriptors that came with a request, in its order.
struct Received(std::vec::IntoIter<OwnedFd>);

impl Received {
    fn take(&mut self) -> Result<OwnedFd, Failure> {
        self.0.next().ok_or_else(|| protocol("take the descriptors"))
    }

    fn cgroup(&mut self, dirs: CgroupDirs) -> Result<Cgroup, Failure> {
        Ok(match dirs {
            CgroupDirs::V1 => {
                Cgroup::V1 { memory: self.take()?, cpu: self.take()?, cpuacct: self.take()?, blkio: None }
            }
            CgroupDirs::V2 => Cgroup::V2(self.take()?),
        })
    }
}

/// Root of a new user namespace, and of nothing else.
fn become_mapped(daemon: &Channel) -> Result<(), Failure> {
    namespace::unshare(namespace::Own::Users).map_err(failed("make a user namespace"))?;
    send(daemon, &KeeperReport::Unmapped, &[])?;
    let (KeeperRequest::Mapped, _) = receive(daemon)? else { return Err(protocol("wait for the users' map")) };
    become_root().map_err(failed("become root of the user namespace"))
}

/// User and group 0 of the user namespace. Its files in /proc belong to it until it is undumpable again: it writes some.
pub(crate) fn become_root() -> io::Result<()> {
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?)
}

/// The porter's ids are the keeper's, one to one.
fn map_porter(pid: i32) -> io::Result<()> {
    for map in ["uid_map", "gid_map"] {
        let file =
            rustix::fs::open(format!("{HOST_PROC}/{pid}/{map}"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
        rustix::io::write(file, format!("0 0 {IDS}\n").as_bytes())?;
    }
    Ok(())
}

fn mount_view() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fuse = rustix::fs::open("stage/dev/fuse", flags, Mode::empty())?;
    let fs = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let options = [
        ("source", "garth".to_owned()),
        ("fd", fuse.as_raw_fd().to_string()),
        ("rootmode", "40000".to_owned()),
        ("user_id", "0".to_owned()),
        ("group_id", "0".to_owned()),
    ];
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(&fs, key, value)?;
    }
    // All users of the sandbox may read, as the mode says.
    for flag in ["allow_other", "default_permissions"] {
        rustix::mount::fsconfig_set_flag(&fs, flag)?;
    }
    rustix::mount::fsconfig_create(&fs)?;
    let inert =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let mount = rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, inert)?;
    rustix::mount::move_mount(mount, "", CWD, VIEW, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(fuse)
}

/// What is put over files and directories of /proc and /sys, and where: directories as a whole.
fn shown() -> impl Iterator<Item = (&'static str, Place)> {
    let files = NODES.iter().filter(|(_, path, _)| !path.contains('/')).map(|(_, path, place)| (*path, *place));
    DIRECTORIES.iter().copied().chain(files)
}

/// Every virtual file as a detached mount, and the directory of them. A child looks them up, because this process
/// answers.
fn take_views(server: &mut Server, single: &SingleThreaded) -> Result<(Vec<OwnedFd>, OwnedFd), Failure> {
    let (ours, theirs) = Channel::pair().map_err(failed("make a channel"))?;
    match namespace::fork(single, Namespaces::NONE, None).map_err(failed("fork"))? {
        Fork::Child => {
            let taken = shown().map(|(name, _)| detached(&format!("{VIEW}/{name}"))).chain([detached(VIEW)]);
            let sent = taken.collect::<io::Result<Vec<_>>>().map_err(failed("look up the virtual files"));
            let _ = match sent {
                Ok(views) => theirs.send(&Ok::<(), Failure>(()), &views.iter().map(AsFd::as_fd).collect::<Vec<_>>()),
                Err(failure) => theirs.send(&Err::<(), _>(failure), &[]),
            };
            garth_kernel::descriptors::exit(0)
        }
        Fork::Parent { .. } => drop(theirs),
    }
    loop {
        let fuse = server.as_fd();
        let mut waiting = [PollFd::new(&fuse, PollFlags::IN), PollFd::new(&ours, PollFlags::IN)];
        wait(&mut waiting).map_err(failed("wait"))?;
        let answered = !waiting[1].revents().is_empty();
        if answered {
            let (result, mut views) = receive::<Result<(), Failure>>(&ours)?;
            result?;
            let root = views.pop().ok_or_else(|| protocol("take the virtual files"))?;
            return Ok((views, root));
        }
        server.serve().map_err(|_| protocol("serve the virtual files"))?;
    }
}

fn detached(path: &str) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// Puts the virtual files of /sys in their places; returns those of /proc.
fn show_in_sys(views: Vec<OwnedFd>) -> Result<Vec<(&'static str, OwnedFd)>, Failure> {
    let mut of_proc = Vec::new();
    for ((_, place), view) in shown().zip(views) {
        match place {
            Place::Proc(path) => of_proc.push((path, view)),
            Place::Sys(path) => {
                let at = format!("stage/sys/{path}");
                match rustix::mount::move_mount(view, "", CWD, &at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH) {
                    Ok(()) | Err(Errno::NOENT) => {}
                    Err(e) => return Err(failed(&format!("show /sys/{path}"))(e.into())),
                }
            }
        }
    }
    Ok(of_proc)
}

impl Keeper {
    /// Until no process of the sandbox is left. The exit status.
    fn keep(mut self: Box<Self>, policy: &Policy, single: &SingleThreaded) -> i32 {
        loop {
            let (from_sandbox, calls_ended) = match self.wait() {
                Ok(events) => events,
                Err(_) => return 0,
            };
            if calls_ended {
                return self.children.last_word();
            }
            if !matches!(self.server.serve(), Ok(Served::Waiting)) {
                return 0;
            }
            self.children.reap();
            self.calls.serve(self.server.view(), policy, single);
            if from_sandbox && !self.hear(policy) {
                self.sandbox = None;
            }
        }
    }

    /// Whether the init has something to say, and whether its processes are gone.
    fn wait(&self) -> io::Result<(bool, bool)> {
        let fuse = self.server.as_fd();
        let mut fds = vec![PollFd::new(&fuse, PollFlags::IN)];
        self.calls.watch(&mut fds);
        fds.push(PollFd::new(&self.children, PollFlags::IN));
        let at = fds.len();
        fds.extend(self.sandbox.as_ref().map(|channel| PollFd::new(channel, PollFlags::IN)));
        wait(&mut fds)?;
        let heard = fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        // The filter's descriptor is the first of the calls': it hangs up when no process has the filter.
        Ok((heard, fds[1].revents().contains(PollFlags::HUP)))
    }

    /// `false` when there is no more to hear.
    fn hear(&mut self, policy: &Policy) -> bool {
        let Some(channel) = &self.sandbox else { return false };
        let Ok(Some((message, received))) = channel.receive::<ToKeeper>() else { return false };
        match message {
            ToKeeper::Listener => false,
            ToKeeper::Born { pid, identity } => {
                self.children.expect(pid);
                self.fds.pids = open(&format!("{HOST_PROC}/{pid}/ns/pid")).ok();
                self.server.view().begin(started(identity));
                true
            }
            ToKeeper::Assemble(parts) => self.assemble(policy, &parts, received),
            ToKeeper::Copied => {
                self.release();
                true
            }
        }
    }

    fn assemble(&mut self, policy: &Policy, parts: &Parts, received: Vec<OwnedFd>) -> bool {
        let mut received = received.into_iter();
        self.fds.root = received.next();
        self.fds.usr = parts.usr.then(|| received.next()).flatten();
        self.fds.volumes = received.collect();
        let steps = mapped::assemble_steps(policy, parts);
        let result = apply(&steps, policy, &mut self.fds);
        let Some(channel) = &self.sandbox else { return false };
        let held = [self.fuse.as_fd(), self.calls.as_fd(), self.view.as_fd()];
        match result {
            Ok(()) => channel.send(&FromKeeper::Assembled, &held).is_ok(),
            Err(failure) => {
                // The init that hears nothing fails as well.
                let _ = channel.send(&FromKeeper::Failed(failure), &[]);
                false
            }
        }
    }

    fn held(&self) -> HeldNumbers {
        [self.fuse.as_fd(), self.calls.as_fd(), self.view.as_fd()].map(|fd| fd.as_raw_fd())
    }

    /// The sandbox has its own mounts now: those here must not keep its disk in use.
    fn release(&mut self) {
        self.fds = Fds::default();
        let _ = rustix::mount::unmount("root", UnmountFlags::DETACH);
    }
}

fn started(identity: Identity) -> Started {
    let (seconds, nanos) = identity.zero;
    let now = clock_gettime(ClockId::Boottime);
    let zero = Duration::new(seconds, nanos);
    let since = Duration::try_from(now).unwrap_or_default().saturating_sub(zero);
    let wall = Duration::try_from(clock_gettime(ClockId::Realtime)).unwrap_or_default().saturating_sub(since);
    Started { boottime: zero, wall: wall.as_secs(), id: identity.uuid }
}

/// Waits without end.
fn wait(fds: &mut [PollFd<'_>]) -> io::Result<()> {
    loop {
        match poll(fds, None) {
            Err(Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}

fn open(path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

fn open_directory(path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

pub(crate) fn protocol(step: &str) -> Failure {
    Failure { step: step.to_owned(), errno: Errno::PROTO.raw_os_error() }
}

pub(crate) fn receive<T: serde::de::DeserializeOwned>(channel: &Channel) -> Result<(T, Vec<OwnedFd>), Failure> {
    channel.receive().map_err(failed("hear"))?.ok_or_else(|| protocol("hear"))
}

pub(crate) fn send(channel: &Channel, message: &impl serde::Serialize, fds: &[BorrowedFd<'_>]) -> Result<(), Failure> {
    channel.send(message, fds).map_err(failed("tell"))
}
