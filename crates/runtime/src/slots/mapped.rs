//! Making a slot of mapped users ready, seen from the daemon, which is the one that may map users.
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use garth_kernel::namespace;
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::{Keeper, PATIENCE, Process, Spawner, start_time};
use crate::cgroups::Cgroups;
use crate::channel::Channel;
use crate::error::ErrorKind;
use crate::handshake::{HeldNumbers, Identity, KeeperReport, KeeperRequest, Request};
use crate::ids::{Claim, FirstId, IDS};
use crate::sandbox::MappedRecord;

/// A keeper, the porter beside it and the porter's channel. After an error no process is left.
pub(super) fn warm(
    spawner: &Spawner,
    ids: &Claim,
    cgroups: &Cgroups,
    slot: &str,
    listener: &UnixListener,
) -> Result<(Keeper, Process, Channel), ErrorKind> {
    let (keeper_channel, keepers) = Channel::pair()?;
    let (init_channel, inits) = Channel::pair()?;
    keeper_channel.set_patience(PATIENCE)?;
    init_channel.set_patience(PATIENCE)?;
    let process = spawner.child(&Request::Keeper, &[keepers.as_fd()]).map_err(|e| e.kind)?;
    drop(keepers);
    let (dirs, directories) = cgroups.readable(slot)?;
    let prepare = KeeperRequest::Prepare { owner: ids.first.get(), cgroup: dirs };
    let mut fds: Vec<BorrowedFd<'_>> = directories.iter().map(AsFd::as_fd).collect();
    fds.extend([inits.as_fd(), listener.as_fd(), ids.lock.as_fd()]);
    let made = keeper_channel.send(&prepare, &fds).map_err(ErrorKind::from).and_then(|()| {
        drop(inits);
        finish(&keeper_channel, &process, ids, cgroups, slot)
    });
    match made {
        Ok(Made { porter, users, netns, held }) => {
            let (started, first) = (start_time(process.pid)?, ids.first);
            // Known once its sandbox is.
            let identity = Identity::default();
            Ok((Keeper { process, started, users, netns, first, held, identity }, porter, init_channel))
        }
        Err(kind) => {
            let _ = process.end();
            Err(kind)
        }
    }
}

fn finish(channel: &Channel, keeper: &Process, ids: &Claim, cgroups: &Cgroups, slot: &str) -> Result<Made, ErrorKind> {
    let (KeeperReport::Unmapped, _) = hear(channel)? else { return Err(ErrorKind::Spawner) };
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", keeper.pid), format!("0 {} {IDS}\n", ids.first.get()))?;
    }
    channel.send(&KeeperRequest::Mapped, &[])?;
    let (KeeperReport::Ready { porter, held }, fds) = hear(channel)? else { return Err(ErrorKind::Spawner) };
    let Ok([pidfd, users, netns]) = <[OwnedFd; 3]>::try_from(fds) else { return Err(ErrorKind::Spawner) };
    cgroups.enter(slot, porter, keeper.pid)?;
    Ok(Made { porter: Process { pid: porter, pidfd }, users, netns, held })
}

/// What a keeper has made.
struct Made {
    porter: Process,
    users: OwnedFd,
    netns: OwnedFd,
    held: HeldNumbers,
}

/// What is needed to put another keeper in the place of one.
#[derive(Debug)]
pub(crate) struct Succession {
    /// The FUSE connection, the filter's calls and the mount of the virtual files.
    held: [OwnedFd; 3],
    users: OwnedFd,
    netns: OwnedFd,
    pub(crate) first: FirstId,
    pub(crate) identity: Identity,
}

impl Succession {
    /// Of a keeper that lives.
    pub(crate) fn of(keeper: &Keeper) -> io::Result<Self> {
        Ok(Self {
            held: held_by(&keeper.process, keeper.held)?,
            users: keeper.users.try_clone()?,
            netns: keeper.netns.try_clone()?,
            first: keeper.first,
            identity: keeper.identity,
        })
    }

    /// Of a keeper that died: from what its sandbox's init holds.
    pub(crate) fn from_init(init: &Process, record: &MappedRecord) -> io::Result<Self> {
        let (users, netns) = namespaces(init)?;
        let held = held_by(init, record.held_by_init)?;
        Ok(Self { held, users, netns, first: record.first, identity: record.identity })
    }

    /// Puts another in its place, who also claims the ids.
    pub(crate) fn succeed(
        &self,
        root: &Spawner,
        lock: BorrowedFd<'_>,
        cgroups: &Cgroups,
        slot: &str,
    ) -> Result<Keeper, ErrorKind> {
        let (channel, theirs) = Channel::pair()?;
        channel.set_patience(PATIENCE)?;
        let process = root.child(&Request::Keeper, &[theirs.as_fd()]).map_err(|e| e.kind)?;
        drop(theirs);
        cgroups.enter_beside(slot, process.pid)?;
        let (cgroup, directories) = cgroups.readable(slot)?;
        let resume = KeeperRequest::Resume { owner: self.first.get(), cgroup, identity: self.identity };
        let mut fds: Vec<BorrowedFd<'_>> = directories.iter().chain(&self.held).map(AsFd::as_fd).collect();
        fds.extend([self.users.as_fd(), self.netns.as_fd(), lock]);
        let told = channel.send(&resume, &fds).map_err(ErrorKind::from).and_then(|()| hear(&channel));
        match told {
            Ok((KeeperReport::Resumed { held }, _)) => Ok(Keeper {
                started: start_time(process.pid)?,
                process,
                users: self.users.try_clone()?,
                netns: self.netns.try_clone()?,
                first: self.first,
                held,
                identity: self.identity,
            }),
            other => {
                let _ = process.end();
                Err(other.err().unwrap_or(ErrorKind::Spawner))
            }
        }
    }
}

fn hear(channel: &Channel) -> Result<(KeeperReport, Vec<OwnedFd>), ErrorKind> {
    match channel.receive()? {
        Some((KeeperReport::Failed(failure), _)) => Err(failure.into_kind()),
        Some(report) => Ok(report),
        None => Err(ErrorKind::Spawner),
    }
}

impl Keeper {
    /// One that an earlier daemon made, if it lives.
    pub(crate) fn find(record: &MappedRecord, init: &Process) -> io::Result<Option<Self>> {
        let Some(process) = Process::find(record.keeper, record.keeper_started) else { return Ok(None) };
        let (users, netns) = namespaces(init)?;
        let (first, held, identity) = (record.first, record.held_by_keeper, record.identity);
        Ok(Some(Self { process, started: record.keeper_started, users, netns, first, held, identity }))
    }
}

/// The outer user namespace and the network namespace of a sandbox.
fn namespaces(init: &Process) -> io::Result<(OwnedFd, OwnedFd)> {
    let open = |name: &str| fs::File::open(format!("/proc/{}/ns/{name}", init.pid));
    Ok((namespace::parent(open("user")?.as_fd())?, open("net")?.into()))
}

fn held_by(process: &Process, numbers: HeldNumbers) -> io::Result<[OwnedFd; 3]> {
    let copy = |number| pidfd_getfd(&process.pidfd, number, PidfdGetfdFlags::empty());
    let [fuse, calls, view] = numbers;
    Ok([copy(fuse)?, copy(calls)?, copy(view)?])
}
