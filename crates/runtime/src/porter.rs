//! The process that waits for a sandbox's order where users are mapped, in its user and network namespaces, and clones
//! its init: so late, because a sandbox's clocks and its first process begin together.
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use garth_kernel::namespace::{self, Fork, Namespaces, SingleThreaded};
use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::Policy;
use crate::channel::Channel;
use crate::handshake::{Disk, Failure, FromKeeper, Identity, Order, Report, ToKeeper};
use crate::inside::{Entered, entered, failed};
use crate::keeper::{become_root, protocol, receive, send};
use crate::steps::mapped;
use crate::steps::{Fds, Step, apply, etc_steps};

/// What the porter, and then the init, begins with.
pub(crate) struct Porter {
    pub(crate) daemon: Channel,
    pub(crate) keeper: Channel,
    pub(crate) listener: OwnedFd,
}

impl Porter {
    /// Returns in the init, once it is the sandbox's.
    pub(crate) fn carry(self, policy: &Policy, single: &SingleThreaded) -> Option<Entered> {
        match self.wait(policy, single) {
            Ok(Some(order)) => self.enter(policy, &order),
            // The porter, whose work is done; or a daemon that is gone.
            Ok(None) => None,
            Err(failure) => {
                // Nobody is left to tell when the daemon is gone.
                let _ = self.daemon.send(&Report::Failed(failure), &[]);
                None
            }
        }
    }

    /// Makes ready, waits for the order, clones the init. The order in the init, `None` in the porter.
    fn wait(&self, policy: &Policy, single: &SingleThreaded) -> Result<Option<Order>, Failure> {
        let (FromKeeper::Mapped, _) = receive(&self.keeper)? else { return Err(protocol("wait for the users' map")) };
        become_root().map_err(failed("become root of the user namespace"))?;
        apply(&mapped::porter_steps(), policy, &mut Fds::default())?;
        let listener = policy.early.install_with_listener().map_err(failed("install the filter"))?;
        send(&self.keeper, &ToKeeper::Listener, &[listener.as_fd()])?;
        drop(listener);
        let Ok(Some((order, _))) = self.daemon.receive::<Order>() else { return Ok(None) };
        let zero = own_clocks().map_err(failed("set the clocks"))?;
        match namespace::fork(single, Namespaces::PIDS, None).map_err(failed("clone the init"))? {
            // Dumpable until it enters its sandbox: the keeper looks at its pid namespace.
            Fork::Child => Ok(Some(order)),
            Fork::Parent { pid, pidfd } => {
                let pid = pid.as_raw_nonzero().get();
                let zero = (zero.tv_sec.unsigned_abs(), u32::try_from(zero.tv_nsec).unwrap_or(0));
                let identity = Identity { uuid: order.machine, zero };
                send(&self.keeper, &ToKeeper::Born { pid, identity }, &[])?;
                send(&self.daemon, &Report::Born { pid, zero }, &[pidfd.as_fd()])?;
                Ok(None)
            }
        }
    }

    fn enter(self, policy: &Policy, order: &Order) -> Option<Entered> {
        let mut fds = Fds { channel: Some(self.daemon), listener: Some(self.listener), ..Fds::default() };
        let result = take_mounts(&mut fds, self.keeper, policy, order)
            .and_then(|()| apply(&mapped::enter_steps(order), policy, &mut fds))
            .and_then(|()| order.agent.init.as_deref().map_or(Ok(()), find));
        entered(fds, result.map(|()| order.agent.clone()))
    }
}

/// Whether the image has the init that is asked for.
fn find(init: &str) -> Result<(), Failure> {
    use rustix::fs::{Access, access};
    access(init, Access::EXEC_OK).map_err(|e| failed(&format!("find the init {init}"))(e.into()))
}

/// Takes the disk from the daemon, has the keeper put it in its place, and copies what that made.
fn take_mounts(fds: &mut Fds, keeper: Channel, policy: &Policy, order: &Order) -> Result<(), Failure> {
    let channel = fds.channel.as_ref().ok_or_else(|| protocol("take the disk"))?;
    let (Disk, received) = receive(channel)?;
    let mut received = received.into_iter();
    fds.root = Some(received.next().ok_or_else(|| protocol("take the disk"))?);
    fds.state = received.next();
    // While it is mounted nowhere: once it is, volumes can be in the way.
    apply(&etc_steps(order), policy, fds)?;
    let others: Vec<OwnedFd> = received.collect();
    let mounts: Vec<_> = fds.root.iter().chain(&others).map(AsFd::as_fd).collect();
    send(&keeper, &ToKeeper::Assemble(order.parts()), &mounts)?;
    match receive::<FromKeeper>(&keeper)? {
        (FromKeeper::Assembled, held) => fds.held = held,
        (FromKeeper::Failed(failure), _) => return Err(failure),
        (FromKeeper::Mapped, _) => return Err(protocol("take the mounts")),
    }
    fds.root = None;
    drop(others);
    apply(&[Step::OwnMounts], policy, fds)?;
    send(&keeper, &ToKeeper::Copied, &[])
}

/// Boot and monotonic time begin at zero for children (`time_namespaces(7)`). Returns the host's boot time then.
fn own_clocks() -> io::Result<Timespec> {
    namespace::unshare(namespace::Own::ChildrensTime)?;
    let (monotonic, boottime) = (clock_gettime(ClockId::Monotonic), clock_gettime(ClockId::Boottime));
    let file =
        rustix::fs::open("stage/host/proc/self/timens_offsets", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    let text = format!("monotonic {}\nboottime {}\n", negative(monotonic), negative(boottime));
    rustix::io::write(file, text.as_bytes())?;
    Ok(boottime)
}

/// Seconds and nanoseconds of the opposite; the nanoseconds count up.
fn negative(time: Timespec) -> String {
    match time.tv_nsec {
        0 => format!("{} 0", -time.tv_sec),
        nanos => format!("{} {}", -time.tv_sec - 1, 1_000_000_000 - nanos),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_offset_and_its_time_are_zero() {
        let text = negative(Timespec { tv_sec: 12, tv_nsec: 250_000_000 });
        assert_eq!(text, "-13 750000000");
        assert_eq!(negative(Timespec { tv_sec: 3, tv_nsec: 0 }), "-3 0");
    }
}
