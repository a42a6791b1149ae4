//! The side of the process that makes a jail and becomes the program in it.
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;

use garth_kernel::namespace::{self, Fork, Namespaces, SingleThreaded};
use garth_kernel::{descriptors, signal};

use super::steps::jail_steps;
use super::{JailPlan, Network, Order, Told};
use crate::Policy;
use crate::channel::Channel;
use crate::handshake::Failure;
use crate::inside::failed;
use crate::steps::{Fds, apply};

/// Makes the jail that the daemon asks for on `channel`. Returns only in the process that clones, or on an error, which
/// is reported.
///
/// Call it first thing: the process must have one thread. Needs root.
pub fn run(channel: OwnedFd) {
    let channel = Channel::from(channel);
    let Ok(Some((order, fds))) = channel.receive::<Order>() else { return };
    let failure = match clone(&order, &channel) {
        Ok(Made::Parent) => return,
        Ok(Made::Child) => become_program(&order, fds, &channel),
        Err(failure) => failure,
    };
    // A daemon that is gone needs no word.
    let _ = channel.send(&Told::Failed(failure), &[]);
}

enum Made {
    Parent,
    Child,
}

fn clone(order: &Order, channel: &Channel) -> Result<Made, Failure> {
    let single = SingleThreaded::check().map_err(failed("count threads"))?;
    signal::unblock_all().map_err(failed("unblock signals"))?;
    for directory in &order.cgroups {
        let entered = std::fs::write(directory.join("cgroup.procs"), "0");
        entered.map_err(failed(&format!("enter {}", directory.display())))?;
    }
    match namespace::fork(&single, Namespaces::SANDBOX, None).map_err(failed("clone the jail"))? {
        Fork::Child => Ok(Made::Child),
        Fork::Parent { pid, pidfd } => {
            let made = Told::Made { pid: pid.as_raw_nonzero().get() };
            channel.send(&made, &[pidfd.as_fd()]).map_err(failed("tell who was made"))?;
            Ok(Made::Parent)
        }
    }
}

/// Returns on failure only.
fn become_program(order: &Order, mut fds: Vec<OwnedFd>, channel: &Channel) -> Failure {
    let netns = match order.network {
        Network::Joined if fds.len() > 1 => Some(fds.remove(1)),
        _ => None,
    };
    let steps = jail_steps(&order.plan, order.user, order.network);
    if let Err(failure) = apply(&steps, &Policy::jail(), &mut Fds { netns, ..Fds::default() }) {
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
