//! The side of a sandbox's init: makes itself ready, waits for its order, and enters the sandbox.
//!
//! Used by the agent binary alone, through [`crate::spawner::run`].
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;

use garth_spec::AgentConfig;
use serde::de::DeserializeOwned;

use crate::Policy;
use crate::channel::Channel;
use crate::handshake::{Disk, Failure, Order, Report};
use crate::steps::{Fds, apply, container_steps, enter_steps, network_steps, warm_steps};

/// What the agent starts with, once it is the init of a finished sandbox.
#[derive(Debug)]
pub struct Entered {
    /// Made by the daemon before the sandbox was, so that requests can wait here already.
    pub listener: UnixListener,
    /// The project's directory for the agent's records: a mount of its own that no path of the sandbox leads to, and
    /// whose `..` is itself. Opened with O_PATH.
    pub state_dir: OwnedFd,
    /// What the agent is told.
    pub config: AgentConfig,
}

/// Runs in the new init, in the base. `None` when it was not needed (the daemon is gone) or failed, which is reported.
pub(crate) fn become_sandbox(channel: Channel, listener: OwnedFd, policy: &Policy) -> Option<Entered> {
    let mut fds = Fds { channel: Some(channel), listener: Some(listener), ..Fds::default() };
    match enter(&mut fds, policy) {
        Ok(config) => entered(fds, Ok(config)),
        Err(failure) => entered(fds, Err(failure?)),
    }
}

/// Runs as process 1 of a container that an OCI runtime made. As [`become_sandbox`].
pub(crate) fn become_container(channel: Channel) -> Option<Entered> {
    let mut fds = Fds { channel: Some(channel), ..Fds::default() };
    let (order, received) = receive::<Order>(&fds)?;
    let mut received = received.into_iter();
    (fds.listener, fds.state) = (received.next(), received.next());
    let done = Policy::of_container()
        .map_err(|_| Failure { step: "read the filter".to_owned(), errno: rustix::io::Errno::INVAL.raw_os_error() });
    let done = done.and_then(|policy| apply(&container_steps(&order), &policy, &mut fds));
    entered(fds, done.map(|()| order.agent))
}

/// Reports how it went; what the agent starts with when it went well.
pub(crate) fn entered(mut fds: Fds, result: Result<AgentConfig, Failure>) -> Option<Entered> {
    match result {
        Ok(config) => {
            let numbers: Vec<i32> = fds.held.iter().map(AsRawFd::as_raw_fd).collect();
            report(&fds, &Report::Entered { held: numbers.try_into().ok() })?;
            // Held for ever: see `Fds`.
            std::mem::forget(std::mem::take(&mut fds.held));
            Some(Entered { listener: fds.listener.take()?.into(), state_dir: fds.state.take()?, config })
        }
        Err(failure) => {
            report(&fds, &Report::Failed(failure))?;
            None
        }
    }
}

/// An error of a system call as that of a step.
pub(crate) fn failed(step: &str) -> impl FnOnce(std::io::Error) -> Failure {
    move |error| {
        let errno = error.raw_os_error().unwrap_or(rustix::io::Errno::IO.raw_os_error());
        Failure { step: step.to_owned(), errno }
    }
}

fn report(fds: &Fds, report: &Report) -> Option<()> {
    fds.channel.as_ref()?.send(report, &[]).ok()
}

/// An error of `None`: there is nobody to report to.
fn enter(fds: &mut Fds, policy: &Policy) -> Result<AgentConfig, Option<Failure>> {
    apply(&warm_steps(policy), policy, fds)?;
    report(fds, &Report::Warm).ok_or(None)?;
    let (order, received) = receive::<Order>(fds).ok_or(None)?;
    fds.netns = received.into_iter().next();
    apply(&network_steps(policy), policy, fds)?;
    let (Disk, received) = receive(fds).ok_or(None)?;
    let mut received = received.into_iter();
    (fds.root, fds.state) = (received.next(), received.next());
    fds.usr = order.usr.then(|| received.next()).flatten();
    fds.volumes = received.collect();
    apply(&enter_steps(&order), policy, fds)?;
    Ok(order.agent)
}

fn receive<T: DeserializeOwned>(fds: &Fds) -> Option<(T, Vec<OwnedFd>)> {
    fds.channel.as_ref()?.receive().ok()?
}
