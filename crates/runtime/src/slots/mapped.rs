//! Making a slot of mapped users ready, seen from the daemon, which is the one that may map users.
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;

use super::{Keeper, PATIENCE, Process, Spawner, start_time};
use crate::cgroups::Cgroups;
use crate::channel::Channel;
use crate::error::ErrorKind;
use crate::handshake::{KeeperReport, KeeperRequest, Request};
use crate::ids::{Claim, IDS};

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
    let prepare = KeeperRequest::Prepare { owner: ids.first.get(), cgroup: dirs, uuid: random_uuid()? };
    let mut fds = vec![inits.as_fd(), listener.as_fd(), ids.lock.as_fd()];
    fds.extend(directories.iter().map(AsFd::as_fd));
    let made = keeper_channel.send(&prepare, &fds).map_err(ErrorKind::from).and_then(|()| {
        drop(inits);
        finish(&keeper_channel, &process, ids, cgroups, slot)
    });
    match made {
        Ok((porter, users, netns)) => {
            let started = start_time(process.pid)?;
            Ok((Keeper { process, started, users, netns, first: ids.first }, porter, init_channel))
        }
        Err(kind) => {
            let _ = process.end();
            Err(kind)
        }
    }
}

fn finish(
    channel: &Channel,
    keeper: &Process,
    ids: &Claim,
    cgroups: &Cgroups,
    slot: &str,
) -> Result<(Process, OwnedFd, OwnedFd), ErrorKind> {
    let (KeeperReport::Unmapped, _) = hear(channel)? else { return Err(ErrorKind::Spawner) };
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/{}/{map}", keeper.pid), format!("0 {} {IDS}\n", ids.first.get()))?;
    }
    channel.send(&KeeperRequest::Mapped, &[])?;
    let (KeeperReport::Ready { porter }, fds) = hear(channel)? else { return Err(ErrorKind::Spawner) };
    let Ok([pidfd, users, netns]) = <[OwnedFd; 3]>::try_from(fds) else { return Err(ErrorKind::Spawner) };
    cgroups.enter(slot, porter, keeper.pid)?;
    Ok((Process { pid: porter, pidfd }, users, netns))
}

fn hear(channel: &Channel) -> Result<(KeeperReport, Vec<OwnedFd>), ErrorKind> {
    match channel.receive()? {
        Some((KeeperReport::Failed(failure), _)) => Err(failure.into_kind()),
        Some(report) => Ok(report),
        None => Err(ErrorKind::Spawner),
    }
}

/// Version 4, RFC 9562.
fn random_uuid() -> Result<[u8; 16], ErrorKind> {
    let mut uuid = [0; 16];
    rustix::rand::getrandom(&mut uuid[..], rustix::rand::GetRandomFlags::empty())?;
    uuid[6] = uuid[6] & 0x0f | 0x40;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Ok(uuid)
}
