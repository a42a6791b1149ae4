//! The processes that clone the inits of sandboxes: single-threaded, without host mounts, ended by the daemon's end.
//!
//! ```text
//!  root spawner --fork--> slot spawner (in the slot's cgroups) --clone3--> init --order--> sandbox
//! ```
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use garth_kernel::namespace::{self, Fork, Namespaces, SingleThreaded};
use garth_kernel::signal;
use rustix::fs::CWD;
use rustix::mount::MoveMountFlags;

use crate::cgroups::how_shown;
use crate::channel::Channel;
use crate::handshake::{Failure, Reply, Request};
use crate::inside::{Entered, become_sandbox};
use crate::keeper;
use crate::policy::Nodes;
use crate::steps::{Fds, apply, base_steps};
use crate::{Level, Policy};

/// Serves the daemon's requests on `channel` until it closes. In a child that became the init of a sandbox, calls
/// `serve` and returns what it returns; in the spawner itself returns `None`.
///
/// Call it first thing: the process must have one thread. Needs root.
pub fn run<R>(level: Level, channel: OwnedFd, serve: impl FnOnce(Entered) -> R) -> Option<R> {
    let nodes = if namespace::has_machines_users().ok()? { Nodes::Made } else { Nodes::Shown };
    let policy = Policy { nodes, ..Policy::load(level).ok()? };
    let single = SingleThreaded::check().ok()?;
    signal::unblock_all().ok()?;
    signal::children(signal::ChildEnds::Reaped).ok()?;
    // A session of its own: an interrupt at the daemon's terminal is for the daemon. A subreaper: inits of slot
    // spawners that ended early are reaped here, whatever the host's own init does.
    rustix::process::setsid().ok()?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).ok()?;
    let mut spawner = Spawner { channel: channel.into(), cgroups: Vec::new(), single, policy };
    let child = spawner.serve()?;
    // The parent's end.
    let Spawner { channel, single, policy, .. } = spawner;
    drop(channel);
    let entered = match child {
        Child::Init(init) => become_sandbox(init.channel, init.listener, &policy),
        Child::Keeper(channel) => keeper::run(channel, &policy, &single),
    }?;
    go_on(entered, &single, serve)
}

/// Process 1 of a finished sandbox becomes what it is to be: the agent, or the image's own init beside it.
pub(crate) fn go_on<R>(entered: Entered, single: &SingleThreaded, serve: impl FnOnce(Entered) -> R) -> Option<R> {
    match &entered.config.init {
        None => Some(serve(entered)),
        Some(init) => match namespace::fork(single, Namespaces::NONE, None).ok()? {
            Fork::Child => Some(serve(entered)),
            Fork::Parent { .. } => become_init(init),
        },
    }
}

/// Process 1 becomes the image's own init; the agent goes on as its child.
fn become_init<R>(init: &str) -> Option<R> {
    use std::os::unix::process::CommandExt as _;
    // What containers are told by (systemd's CONTAINER_INTERFACE.md), and a search path. It returns on failure only, at
    // which the sandbox ends.
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let _ = std::process::Command::new(init).env_clear().env("container", "garth").env("PATH", path).exec();
    None
}

/// What a process that left the spawner's loop is to become.
enum Child {
    Init(Init),
    Keeper(Channel),
}

struct Spawner {
    channel: Channel,
    /// Directories below `/sys/fs/cgroup`, in the order that mounts for them come.
    cgroups: Vec<String>,
    single: SingleThreaded,
    policy: Policy,
}

/// What the child of an `Init` request starts with.
struct Init {
    channel: Channel,
    listener: OwnedFd,
}

/// What a request led to.
enum Outcome {
    Reply(Reply, Option<OwnedFd>),
    /// This is the forked slot spawner: it serves the new channel.
    Slot(Channel),
    /// This is a new process that is not a spawner.
    Child(Child),
}

impl Spawner {
    /// Returns in a child that is no spawner, or `None` when the daemon closed the channel.
    fn serve(&mut self) -> Option<Child> {
        loop {
            let (request, fds) = self.channel.receive::<Request>().ok()??;
            match self.handle(request, fds) {
                Ok(Outcome::Reply(reply, fd)) => self.reply(&reply, fd.as_ref())?,
                Ok(Outcome::Slot(channel)) => self.channel = channel,
                Ok(Outcome::Child(child)) => return Some(child),
                Err(failure) => self.reply(&Reply::Failed(failure), None)?,
            }
        }
    }

    fn reply(&self, reply: &Reply, fd: Option<&OwnedFd>) -> Option<()> {
        let fds: Vec<BorrowedFd<'_>> = fd.iter().map(|fd| fd.as_fd()).collect();
        self.channel.send(reply, &fds).ok()
    }

    fn handle(&mut self, request: Request, fds: Vec<OwnedFd>) -> Result<Outcome, Failure> {
        match request {
            Request::Base { cgroups, links } => {
                apply(&base_steps(&self.policy, &cgroups, &links), &self.policy, &mut Fds::default())?;
                self.cgroups = cgroups;
                Ok(Outcome::Reply(Reply::Done, None))
            }
            Request::Slot => self.fork_slot(fds),
            Request::Cgroups => {
                self.show_cgroups(&fds)?;
                Ok(Outcome::Reply(Reply::Done, None))
            }
            Request::Init => self.clone_init(fds),
            Request::Keeper => self.clone_keeper(fds),
        }
    }

    fn fork_slot(&self, fds: Vec<OwnedFd>) -> Result<Outcome, Failure> {
        let channel = fds.into_iter().next().ok_or_else(|| failure("take the channel", None))?;
        let fork = namespace::fork(&self.single, Namespaces::NONE, None).map_err(|e| failure("fork", Some(&e)))?;
        Ok(match fork {
            Fork::Child => Outcome::Slot(channel.into()),
            Fork::Parent { pid, pidfd } => {
                Outcome::Reply(Reply::Child { pid: pid.as_raw_nonzero().get() }, Some(pidfd))
            }
        })
    }

    fn show_cgroups(&self, mounts: &[OwnedFd]) -> Result<(), Failure> {
        namespace::unshare(namespace::Own::Mounts).map_err(|e| failure("leave the base's mounts", Some(&e)))?;
        let directory = "stage/sys/fs/cgroup";
        let places: Vec<String> = match self.cgroups.as_slice() {
            [] => vec![directory.to_owned()],
            names => names.iter().map(|name| format!("{directory}/{name}")).collect(),
        };
        for (mount, place) in mounts.iter().zip(&places) {
            rustix::mount::move_mount(mount, "", CWD, place, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
                .and_then(|()| rustix::mount::mount_remount(place, how_shown(self.policy.level), c""))
                .map_err(|e| failure(&format!("show {place}"), Some(&e.into())))?;
        }
        Ok(())
    }

    fn clone_init(&self, fds: Vec<OwnedFd>) -> Result<Outcome, Failure> {
        let mut fds = fds.into_iter();
        let missing = || failure("take the init's descriptors", None);
        let (channel, listener) = (fds.next().ok_or_else(missing)?, fds.next().ok_or_else(missing)?);
        let cgroup = fds.next();
        let fork = namespace::fork(&self.single, Namespaces::SANDBOX, cgroup.as_ref().map(AsFd::as_fd));
        Ok(match fork.map_err(|e| failure("clone the init", Some(&e)))? {
            Fork::Child => Outcome::Child(Child::Init(Init { channel: channel.into(), listener })),
            Fork::Parent { pid, pidfd } => {
                Outcome::Reply(Reply::Child { pid: pid.as_raw_nonzero().get() }, Some(pidfd))
            }
        })
    }

    fn clone_keeper(&self, fds: Vec<OwnedFd>) -> Result<Outcome, Failure> {
        let channel = fds.into_iter().next().ok_or_else(|| failure("take the keeper's channel", None))?;
        let fork = namespace::fork(&self.single, Namespaces::MOUNTS, None);
        Ok(match fork.map_err(|e| failure("clone the keeper", Some(&e)))? {
            Fork::Child => Outcome::Child(Child::Keeper(channel.into())),
            Fork::Parent { pid, pidfd } => {
                Outcome::Reply(Reply::Child { pid: pid.as_raw_nonzero().get() }, Some(pidfd))
            }
        })
    }
}

fn failure(step: &str, error: Option<&std::io::Error>) -> Failure {
    let errno = error.and_then(std::io::Error::raw_os_error);
    Failure { step: step.to_owned(), errno: errno.unwrap_or(rustix::io::Errno::INVAL.raw_os_error()) }
}
