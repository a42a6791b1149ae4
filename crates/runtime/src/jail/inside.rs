//! The side of the process that makes a jail and becomes the program in it.
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;

use garth_kernel::namespace::{self, Fork, Namespaces, SingleThreaded};
use garth_kernel::{descriptors, signal};
use rustix::process::{WaitId, WaitIdOptions};

use super::steps::{jail_steps, server_steps};
use super::{JailPlan, Network, Order, Served, Told};
use crate::channel::Channel;
use crate::disk::{self, Owners};
use crate::handshake::Failure;
use crate::ids::{FirstId, IDS};
use crate::inside::failed;
use crate::steps::{Fds, apply};
use crate::{Policy, Volume};

/// Makes the jail that the daemon asks for on `channel`. Returns only in the process that clones, or on an error, which
/// is reported.
///
/// Call it first thing: the process must have one thread. Needs root.
pub fn run(channel: OwnedFd) {
    let channel = Channel::from(channel);
    let Ok(Some((order, fds))) = channel.receive::<Order>() else { return };
    let failure = match clone(&order, &channel) {
        Ok(Made::Parent) => return,
        Ok(Made::Child(served)) => become_program(&order, fds, served, &channel),
        Err(failure) => failure,
    };
    // A daemon that is gone needs no word.
    let _ = channel.send(&Told::Failed(failure), &[]);
}

enum Made {
    Parent,
    Child(Option<Mounted>),
}

/// A directory to be served, as a detached mount, and whose it is there.
struct Mounted {
    volume: OwnedFd,
    users: OwnedFd,
}

fn clone(order: &Order, channel: &Channel) -> Result<Made, Failure> {
    let single = SingleThreaded::check().map_err(failed("count threads"))?;
    signal::unblock_all().map_err(failed("unblock signals"))?;
    for directory in &order.cgroups {
        let entered = std::fs::write(directory.join("cgroup.procs"), "0");
        entered.map_err(failed(&format!("enter {}", directory.display())))?;
    }
    let served = match &order.served {
        None => None,
        Some(served) => match map_users(&single, order.user).map_err(failed("map users"))? {
            Some(users) => Some(mount(served, order.user, users)?),
            None => return Ok(Made::Parent),
        },
    };
    match namespace::fork(&single, Namespaces::SANDBOX, None).map_err(failed("clone the jail"))? {
        Fork::Child => Ok(Made::Child(served)),
        Fork::Parent { pid, pidfd } => {
            let made = Told::Made { pid: pid.as_raw_nonzero().get() };
            channel.send(&made, &[pidfd.as_fd()]).map_err(failed("tell who was made"))?;
            Ok(Made::Parent)
        }
    }
}

/// A user namespace whose root is this user of the host. It is made by a child, which waits until it is mapped, for whom
/// `None` is returned.
fn map_users(single: &SingleThreaded, first: u32) -> io::Result<Option<OwnedFd>> {
    let (mut mapped, mapping) = io::pipe()?;
    let (pid, pidfd) = match namespace::fork(single, Namespaces::USERS, None)? {
        Fork::Child => {
            drop(mapping);
            mapped.read_to_end(&mut Vec::new())?;
            return Ok(None);
        }
        Fork::Parent { pid, pidfd } => (pid.as_raw_nonzero().get(), pidfd),
    };
    drop(mapped);
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{map}"), format!("0 {first} {IDS}\n"))?;
    }
    let users = std::fs::File::open(format!("/proc/{pid}/ns/user"))?;
    drop(mapping);
    rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    Ok(Some(users.into()))
}

fn mount(served: &Served, first: u32, users: OwnedFd) -> Result<Mounted, Failure> {
    let owners = Owners::Mapped { users: users.as_fd(), first: FirstId::of(first) };
    let Volume { host, .. } = &served.volume;
    let opened = disk::open_volume(&served.volume, &served.hidden, owners);
    let volume = opened.map_err(|error| failed(&format!("take {} as a mount", host.display()))(errno(&error)))?;
    Ok(Mounted { volume, users })
}

/// What the system said, where it did.
fn errno(error: &(dyn std::error::Error + 'static)) -> io::Error {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(number) = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(number);
        }
        next = cause.source();
    }
    io::Error::other(error.to_string())
}

/// Returns on failure only.
fn become_program(order: &Order, mut fds: Vec<OwnedFd>, served: Option<Mounted>, channel: &Channel) -> Failure {
    let netns = match order.network {
        Network::Joined if fds.len() > 1 => Some(fds.remove(1)),
        _ => None,
    };
    let (steps, policy) = match &served {
        Some(_) => (server_steps(&order.plan, order.user), Policy::server()),
        None => (jail_steps(&order.plan, order.user, order.network), Policy::jail()),
    };
    let policy = match policy.map_err(|error| failed("read the policy")(io::Error::other(error))) {
        Ok(policy) => policy,
        Err(failure) => return failure,
    };
    let (volumes, users) = served.map_or((Vec::new(), None), |served| (vec![served.volume], Some(served.users)));
    if let Err(failure) = apply(&steps, &policy, &mut Fds { netns, volumes, users, ..Fds::default() }) {
        return failure;
    }
    if let Err(failure) = pass(&fds, channel) {
        return failure;
    }
    let given: Vec<i32> = fds.iter().skip(1).map(|fd| fd.as_raw_fd()).collect();
    let error = std::process::Command::new(&order.plan.program).env_clear().args(arguments(&order.plan, &given)).exec();
    failed(&format!("execute {}", order.plan.program))(error)
}

/// What came along stays open, and nothing else: the channel goes with the program's start.
fn pass(fds: &[OwnedFd], channel: &Channel) -> Result<(), Failure> {
    let kept: Vec<_> = fds.iter().map(|fd| fd.as_fd()).chain([channel.as_fd()]).collect();
    descriptors::close_all_but(&kept).map_err(failed("close descriptors"))?;
    for fd in fds {
        let stays = rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty());
        stays.map_err(|error| failed("pass descriptors")(error.into()))?;
    }
    Ok(())
}

fn arguments(plan: &JailPlan, given: &[i32]) -> Vec<String> {
    let fill = |argument: &String| {
        given
            .iter()
            .enumerate()
            .fold(argument.clone(), |text, (index, number)| text.replace(&format!("%fd{index}%"), &number.to_string()))
    };
    plan.arguments.iter().map(fill).collect()
}
