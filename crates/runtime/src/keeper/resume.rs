//! A keeper in place of one that died: on the same descriptors, in namespaces of its own below the same users.
use std::os::fd::AsFd;

use garth_kernel::namespace::{self, Join, SingleThreaded};
use garth_kernel::netns;
use garth_kernel::seccomp::notify::Listener;
use garth_procview::{Cgroup, Owner, Server, Sources, View};
use rustix::fs::CWD;
use rustix::mount::MoveMountFlags;

use super::calls::Calls;
use super::children::Children;
use super::{Keeper, Received, VIEW, become_root, hide, open_directory, send, show_in_sys, started, take_views};
use crate::Policy;
use crate::channel::Channel;
use crate::handshake::{Failure, Identity, KeeperReport};
use crate::inside::failed;
use crate::steps::mapped::{self, HOST_PROC};
use crate::steps::{Fds, Step, apply};

pub(super) fn resume(
    daemon: &Channel,
    owner: u32,
    cgroup: Cgroup,
    identity: Identity,
    mut fds: Received,
    policy: &Policy,
    single: &SingleThreaded,
) -> Result<Keeper, Failure> {
    let (fuse, listener, view) = (fds.take()?, Listener::from(fds.take()?), fds.take()?);
    let (users, network, ids) = (fds.take()?, fds.take()?, fds.take()?);
    apply(&mapped::device_steps(owner), policy, &mut Fds::default())?;
    netns::enter(network.as_fd()).map_err(failed("join the network namespace"))?;
    namespace::join(users.as_fd(), Join::Users).map_err(failed("join the user namespace"))?;
    become_root().map_err(failed("become root of the user namespace"))?;
    apply(&[Step::OwnMounts], policy, &mut Fds::default())?;
    // A mount that is attached nowhere can be attached once. What the sandbox's init holds may be used up: then the files
    // that are in their places come back, and new mounts of proc fail.
    let placed = rustix::mount::move_mount(&view, "", CWD, VIEW, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH).is_ok();

    let proc = open_directory(HOST_PROC).map_err(failed("open the host's proc"))?;
    let numbers = View::new(Sources { proc, cgroup }, started(identity));
    let held_fuse = fuse.try_clone().map_err(failed("hold the virtual files"))?;
    let mut server = Server::new(fuse, numbers.map_err(failed("read the limits"))?, Owner::default());
    // What the one before took and did not answer comes again; before Linux 6.9 it is lost.
    server.resend().map_err(|_| super::protocol("take what was not answered"))?;
    let view = if placed {
        let (views, root) = take_views(&mut server, single)?;
        // Those of /proc are in their places in the sandbox.
        show_in_sys(views)?;
        root
    } else {
        view
    };
    hide()?;
    let keeper = Keeper {
        sandbox: None,
        server,
        calls: Calls::new(listener),
        children: Children::watch().map_err(failed("watch the children"))?,
        fds: Fds::default(),
        view,
        fuse: held_fuse,
        _ids: ids,
    };
    send(daemon, &KeeperReport::Resumed { held: keeper.held() }, &[])?;
    Ok(keeper)
}
