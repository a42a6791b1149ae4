use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;

use garth_spec::SandboxId;

use super::bundle::{self, Device, Parts};
use super::container::{Container, name_of};
use super::holder::Holder;
use super::mounts::{Tree, Volume};
use super::places::attached;
use super::program::Places;
use crate::channel::Channel;
use crate::disk::{self, Disk, Owners};
use crate::error::{Doing, ErrorKind, Result};
use crate::handshake::{Order, Report};
use crate::sandboxes::Shared;
use crate::slots::{PATIENCE, Process, SLOT, SOCKET, start_time};
use crate::{Policy, SandboxPlan};

/// The namespaces that a container will run in. Dropped unused, they go.
#[derive(Debug)]
pub struct PreparedContainer {
    holder: Option<Holder>,
    shared: Arc<Shared>,
}

impl PreparedContainer {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self> {
        let holder = Holder::start(&shared.agent, shared.claim_ids()?);
        let holder = holder.doing(|| "make the namespaces of a container".to_owned())?;
        Ok(Self { holder: Some(holder), shared })
    }

    /// Its network namespace, with nothing in it but loopback, down.
    pub fn netns(&self) -> Option<BorrowedFd<'_>> {
        Some(self.holder.as_ref()?.netns.as_fd())
    }

    /// Starts the sandbox. Returns when its agent has carried out the plan. After an error nothing of it is left.
    pub fn start(mut self, id: SandboxId, plan: &SandboxPlan) -> Result<Container> {
        plan.check_container().doing(|| "carry out the plan".to_owned())?;
        let directory = self.shared.directory(id);
        match fs::create_dir(&directory) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Err(ErrorKind::Exists),
            result => result.map_err(ErrorKind::from),
        }
        .doing(|| format!("make {}", directory.display()))?;
        let holder = self.holder.take().ok_or(ErrorKind::Spawner).doing(|| "start the container".to_owned())?;
        let mut start =
            Start { shared: &self.shared, name: name_of(self.shared.tag(), id), directory: &directory, holder };
        match start.carry_out(plan) {
            Ok((init, started)) => {
                self.shared.adopt(id, &start.name);
                Ok(Container::new(id, init, started, start.holder, disk::uppers(plan), Arc::clone(&self.shared)))
            }
            Err(e) => {
                start.undo(plan);
                Err(e)
            }
        }
    }
}

impl Drop for PreparedContainer {
    fn drop(&mut self) {
        if let Some(holder) = self.holder.take() {
            let _ = holder.end();
        }
    }
}

struct Start<'a> {
    shared: &'a Shared,
    name: String,
    directory: &'a Path,
    holder: Holder,
}

impl Start<'_> {
    fn carry_out(&mut self, plan: &SandboxPlan) -> Result<(Process, u64)> {
        let listener = self.listen().doing(|| format!("listen in {}", self.directory.display()))?;
        let (channel, theirs) = Channel::pair().doing(|| "make a channel".to_owned())?;
        channel.set_patience(PATIENCE).doing(|| "make a channel".to_owned())?;
        let owners = Owners::Mapped { users: self.holder.users.as_fd(), first: self.holder.claim.first };
        let disk = Disk::open(plan, &self.shared.layers, owners)?;
        let begun = self.run(plan, &disk, theirs);
        let begun = begun.and_then(|init| {
            self.holder.stay(init.pidfd.as_fd())?;
            self.enter(plan, &channel, &listener, &disk)?;
            Ok((start_time(init.pid)?, init))
        });
        // From here on the container alone holds its mounts.
        drop(disk);
        let doing = || "start the container".to_owned();
        let (started, init) = begun.doing(doing).inspect_err(|_| self.shared.layers.end(&disk::uppers(plan)))?;
        Ok((init, started))
    }

    fn listen(&self) -> std::io::Result<UnixListener> {
        std::os::unix::fs::symlink(&self.name, self.directory.join(SLOT))?;
        UnixListener::bind(self.directory.join(SOCKET))
    }

    /// Has the runtime make the container; its process 1 waits for the order.
    fn run(&self, plan: &SandboxPlan, disk: &Disk, channel: Channel) -> std::result::Result<Process, ErrorKind> {
        let policy = Policy::of_container().map_err(std::io::Error::other)?;
        let directory = attached(&self.name);
        let tree = Tree { root: disk.root(), usr: disk.usr(), first: self.holder.claim.first, directory: &directory };
        tree.make_places()?;
        let (log, pid) = (self.directory.join("log"), self.directory.join("pid"));
        let program = self.shared.program();
        tree.with(|volumes: &[Volume]| {
            let parts = Parts {
                plan,
                rootfs: tree.rootfs(),
                volumes,
                holder: self.holder.process.pid,
                first: self.holder.claim.first,
                cgroup: self.shared.places.path(&self.name),
                masked: &policy.masked,
                devices: bundle::DEVICES.into_iter().filter(is_there).collect(),
            };
            fs::write(self.directory.join("config.json"), bundle::config(&parts).to_string())?;
            let directory = self.directory.to_string_lossy();
            let pid_file = pid.to_string_lossy();
            let words = ["run", "--detach", "--bundle", &directory, "--pid-file", &pid_file, &self.name];
            let agent = self.shared.agent.0.try_clone()?;
            let places = Places(OwnedFd::from(channel).into(), Stdio::null(), agent.into());
            program.call(&log, &words, places)
        })?;
        let pid: i32 = fs::read_to_string(&pid)?.trim().parse().map_err(|_| ErrorKind::Spawner)?;
        let handle = rustix::process::Pid::from_raw(pid).ok_or(ErrorKind::Spawner)?;
        let pidfd = rustix::process::pidfd_open(handle, rustix::process::PidfdFlags::empty())?;
        Ok(Process { pid, pidfd })
    }

    fn enter(
        &self,
        plan: &SandboxPlan,
        channel: &Channel,
        listener: &UnixListener,
        disk: &Disk,
    ) -> std::result::Result<(), ErrorKind> {
        channel.send(&Order::of(plan), &[listener.as_fd(), disk.state()])?;
        match channel.receive::<Report>()? {
            Some((Report::Entered { .. }, _)) => Ok(()),
            Some((Report::Failed(failure), _)) => Err(failure.into_kind()),
            _ => Err(ErrorKind::Spawner),
        }
    }

    fn undo(self, plan: &SandboxPlan) {
        let log = self.directory.join("log");
        // What the runtime has not made, it cannot delete.
        let _ = self.shared.program().call(&log, &["delete", "--force", &self.name], Places::none());
        let _ = super::container::end_all(self.shared, &self.name);
        let _ = self.holder.end();
        let _ = self.shared.places.remove(&self.name);
        self.shared.unmount(crate::recycler::Unmount::Namespace(None, disk::uppers(plan)));
        let _ = fs::remove_dir_all(self.directory);
    }
}

fn is_there(device: &Device) -> bool {
    let (major, minor) = device.number;
    fs::metadata(device.path)
        .is_ok_and(|found| found.file_type().is_char_device() && found.rdev() == rustix::fs::makedev(major, minor))
}
