//! The process that keeps a container's user and network namespaces from before it is made until it has ended, and the
//! claim on its ids, whatever becomes of the daemon.
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use garth_kernel::namespace::{self, Own};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::DumpableBehavior;

use crate::AgentBinary;
use crate::channel::Channel;
use crate::error::ErrorKind;
use crate::handshake::{Failure, HolderReport, HolderRequest};
use crate::ids::{Claim, IDS};
use crate::inside::failed;
use crate::keeper::become_root;
use crate::slots::{PATIENCE, Process, exec, start_time};

/// A holder, seen from the daemon. It ends with the process it stays for; before it has one, with the channel.
#[derive(Debug)]
pub(crate) struct Holder {
    channel: Option<Channel>,
    pub(crate) process: Process,
    /// As of a [`Process`] that is to be found again.
    pub(crate) started: u64,
    pub(crate) users: OwnedFd,
    pub(crate) netns: OwnedFd,
    pub(crate) claim: Claim,
}

impl Holder {
    pub(crate) fn start(agent: &AgentBinary, claim: Claim) -> Result<Self, ErrorKind> {
        let (channel, theirs) = Channel::pair()?;
        channel.set_patience(PATIENCE)?;
        let process = exec(agent, theirs, &["holder"])?;
        let made = map(&channel, process.pid, &claim).and_then(|()| {
            let open = |name: &str| File::open(format!("/proc/{}/ns/{name}", process.pid)).map(OwnedFd::from);
            Ok((start_time(process.pid)?, open("user")?, open("net")?))
        });
        match made {
            Ok((started, users, netns)) => Ok(Self { channel: Some(channel), process, started, users, netns, claim }),
            Err(kind) => {
                let _ = process.end();
                process.reap();
                Err(kind)
            }
        }
    }

    /// Has it stay as long as this process.
    pub(crate) fn stay(&mut self, container: BorrowedFd<'_>) -> Result<(), ErrorKind> {
        let channel = self.channel.take().ok_or(ErrorKind::Spawner)?;
        Ok(channel.send(&HolderRequest::Stay, &[container])?)
    }

    /// Ends it, and gives the ids back.
    pub(crate) fn end(mut self) -> Result<(), ErrorKind> {
        drop(self.channel.take());
        self.process.end()?;
        self.process.reap();
        Ok(())
    }
}

fn map(channel: &Channel, pid: i32, claim: &Claim) -> Result<(), ErrorKind> {
    expect(channel, HolderReport::Unmapped)?;
    for map in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{pid}/{map}"), format!("0 {} {IDS}\n", claim.first.get()))?;
    }
    channel.send(&HolderRequest::Mapped, &[claim.lock.as_fd()])?;
    expect(channel, HolderReport::Ready)
}

fn expect(channel: &Channel, expected: HolderReport) -> Result<(), ErrorKind> {
    match channel.receive()? {
        Some((HolderReport::Failed(failure), _)) => Err(failure.into_kind()),
        Some((report, _)) if report == expected => Ok(()),
        _ => Err(ErrorKind::Spawner),
    }
}

/// Is a holder: returns when there is nothing more to hold.
///
/// Call it first thing: the process must have one thread.
pub fn run(channel: OwnedFd) {
    let channel = Channel::from(channel);
    if let Err(failure) = hold(&channel) {
        // Nobody is left to tell when the daemon is gone.
        let _ = channel.send(&HolderReport::Failed(failure), &[]);
    }
}

fn hold(channel: &Channel) -> Result<(), Failure> {
    // A session of its own: an interrupt at the daemon's terminal is for the daemon.
    rustix::process::setsid().map_err(|e| failed("make a session")(e.into()))?;
    // It outlives the daemon, whose standard error is somebody's pipe; standard input is /dev/null since the channel came.
    rustix::stdio::dup2_stderr(rustix::stdio::stdin()).map_err(|e| failed("let go of standard error")(e.into()))?;
    namespace::unshare(Own::Users).map_err(failed("make a user namespace"))?;
    let tell = |report: HolderReport| channel.send(&report, &[]).map_err(failed("report"));
    tell(HolderReport::Unmapped)?;
    let Some((HolderRequest::Mapped, _claim)) = receive(channel)? else { return Ok(()) };
    become_root().map_err(failed("become root of the user namespace"))?;
    namespace::unshare(Own::Network).map_err(failed("make a network namespace"))?;
    let hidden = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    hidden.map_err(|e| failed("become undumpable")(e.into()))?;
    tell(HolderReport::Ready)?;
    let Some((HolderRequest::Stay, fds)) = receive(channel)? else { return Ok(()) };
    fds.iter().try_for_each(ended).map_err(failed("wait"))
}

fn receive(channel: &Channel) -> Result<Option<(HolderRequest, Vec<OwnedFd>)>, Failure> {
    channel.receive().map_err(failed("listen to the daemon"))
}

fn ended(pidfd: &OwnedFd) -> io::Result<()> {
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], None) {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result.map(drop)?),
        }
    }
}
