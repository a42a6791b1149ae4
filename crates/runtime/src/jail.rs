//! A program of the host in a jail of its own: the hypervisor of a guest, which a guest may have taken over.
//!
//! ```text
//!  daemon                                garth-agent jail
//!  Sandboxes::new_jail   cgroups, user, directory
//!  Jail::start --exec, plan + fds-->     enters the cgroups, clones into new namespaces, ends
//!              <-pidfd-------------        applies the steps: a root with what is shown and nothing else,
//!              <-failure, or the end--     no capability, a user of its own; then *is* the program
//! ```
//!
//! What a jail stops: the program sees no file, process, socket or network of the host or of another jail, and what it
//! makes counts against its sandbox's limits.
use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use garth_spec::{Limits, SandboxId};
use serde::{Deserialize, Serialize};

use crate::cgroups::Usage;
use crate::channel::Channel;
use crate::error::{Doing, ErrorKind, Result};
use crate::handshake::Failure;
use crate::ids::Claim;
use crate::sandboxes::Shared;
use crate::slots::{self, Init, PATIENCE, Process, SLOT, Slot, start_time};
use crate::{AgentBinary, Level, Sandbox, Sandboxes, Volume};

mod inside;
mod server;
mod steps;

pub use inside::run;

/// In a sandbox's directory: what belongs to the program in the jail.
const OWN: &str = "own";

/// A program and all that it gets to see.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JailPlan {
    /// The program's path inside.
    pub program: String,
    /// Its arguments. `%fd0%` stands for the number of the first descriptor that comes along, and so on.
    pub arguments: Vec<String>,
    /// Files and directories of the host.
    pub shown: Vec<Shown>,
    /// What it may use.
    pub limits: Limits,
}

/// A file or directory of the host as the program sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    /// On the host, absolute and trusted.
    pub from: PathBuf,
    /// Inside, absolute.
    pub at: PathBuf,
    /// What for.
    pub access: Access,
}

/// What something shown is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// To be read.
    Read,
    /// To be run or mapped as code.
    Run,
    /// To be read and written.
    Write,
    /// A device of the host. The program gets a node of its own, which it may open whatever the host's own says.
    Device,
}

/// What a program is given open.
#[derive(Debug)]
pub struct Given<'a> {
    /// With numbers for its arguments, in this order.
    pub fds: &'a [BorrowedFd<'a>],
    /// The network namespace that it is in; without, one with nothing in it.
    pub netns: Option<BorrowedFd<'a>>,
    /// Its standard output; without, nobody reads it.
    pub output: Option<OwnedFd>,
    /// Its standard error.
    pub errors: OwnedFd,
}

/// The network namespace of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Network {
    /// One of its own with nothing in it.
    Nothing,
    /// That comes along, as the second descriptor.
    Joined,
}

/// From the daemon to the process that makes the jail.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    plan: JailPlan,
    network: Network,
    /// The user and group that the program is.
    user: u32,
    /// Directories whose `cgroup.procs` it enters.
    cgroups: Vec<PathBuf>,
    /// What it serves.
    served: Option<Served>,
}

/// A directory of the host that a program serves.
#[derive(Debug, Serialize, Deserialize)]
struct Served {
    volume: Volume,
    /// Never shown, nor anything in it.
    hidden: PathBuf,
}

/// Back to the daemon.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    /// The process that will be the program is made; its pidfd comes along.
    Made {
        /// Its id on the host.
        pid: i32,
    },
    /// It did not work.
    Failed(Failure),
}

/// A jail without a program. Dropped, nothing of it is left.
#[derive(Debug)]
pub struct Jail {
    id: SandboxId,
    slot: String,
    /// Of the program: no other sandbox has it.
    user: Claim,
    directory: PathBuf,
    started: bool,
    shared: Arc<Shared>,
}

impl Sandboxes {
    /// Makes what a jail needs outside: cgroups, a user, a directory. Needs root.
    pub fn new_jail(&self, id: SandboxId) -> Result<Jail> {
        let shared = Arc::clone(self.shared());
        let user = shared.claim_ids()?;
        let directory = shared.directory(id);
        let slot = shared.name_slot();
        let jail = Jail { id, slot, user, directory, started: false, shared };
        let make = || -> std::result::Result<(), ErrorKind> {
            fs::create_dir(&jail.directory).map_err(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => ErrorKind::Exists,
                _ => error.into(),
            })?;
            rustix::fs::chmod(&jail.directory, rustix::fs::Mode::RWXU)?;
            std::os::unix::fs::symlink(&jail.slot, jail.directory.join(SLOT))?;
            fs::create_dir(jail.own())?;
            Ok(jail.give(&jail.own())?)
        };
        make().doing(|| format!("make {}", jail.directory.display()))?;
        Ok(jail)
    }

    /// A sandbox's directory.
    pub fn directory(&self, id: SandboxId) -> PathBuf {
        self.shared().directory(id)
    }
}

impl Jail {
    /// The sandbox's directory, closed to all but root.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The program's own directory in it. Nothing there can be trusted once the program runs.
    pub fn own(&self) -> PathBuf {
        self.directory.join(OWN)
    }

    /// Makes a file or directory the program's.
    pub fn give(&self, path: &Path) -> std::io::Result<()> {
        let user = self.user();
        std::os::unix::fs::lchown(path, Some(user), Some(user))
    }

    /// Who the program is: a user that no other sandbox has.
    pub fn user(&self) -> u32 {
        self.user.first.get()
    }

    /// Starts the program. Returns when it runs, or says which step failed.
    pub fn start(mut self, plan: &JailPlan, given: Given<'_>) -> Result<Sandbox> {
        plan.limits.check().map_err(crate::InvalidPlan::from).doing(|| "carry out the plan".to_owned())?;
        let shared = Arc::clone(&self.shared);
        let limits = plan.limits;
        shared.cgroups.create(&self.slot, &limits).doing(|| format!("make the cgroups of slot {}", self.slot))?;
        let network = given.netns.map_or(Network::Nothing, |_| Network::Joined);
        let cgroups = shared.cgroups.directories(&self.slot);
        let order = Order { plan: plan.clone(), network, user: self.user(), cgroups, served: None };
        let outside = Outside { user: &self.user, given, directory: &self.directory };
        let init = spawn(&shared.agent, &order, outside).doing(|| format!("start {} in its jail", plan.program))?;
        self.started = true;
        shared.adopt(self.id, &self.slot);
        let (name, user) = (self.slot.clone(), self.user.lock.try_clone().doing(|| "keep the jail's user".to_owned())?);
        let ids = Some(Claim { first: self.user.first, lock: user });
        let base = Usage::default();
        let slot =
            Slot { name, level: Level::Default, keeper: None, ids, spawner: None, init: Some(init), limits, base };
        Ok(Sandbox::new(self.id, slot, Vec::new(), shared))
    }
}

impl Drop for Jail {
    fn drop(&mut self) {
        if self.started {
            return;
        }
        let _ = fs::remove_dir_all(&self.directory);
        slots::remove_patiently(&self.shared.cgroups, &self.slot);
    }
}

/// What a program gets from outside its jail, and where that is kept.
struct Outside<'a> {
    user: &'a Claim,
    given: Given<'a>,
    directory: &'a Path,
}

fn spawn(agent: &AgentBinary, order: &Order, outside: Outside<'_>) -> std::result::Result<Init, ErrorKind> {
    let (ours, theirs) = Channel::pair()?;
    ours.set_patience(PATIENCE)?;
    let Given { fds, netns, output, errors } = outside.given;
    let mut maker = Command::new(format!("/proc/self/fd/{}", agent.0.as_raw_fd()))
        .arg0("garth-agent")
        .arg("jail")
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(output.map_or_else(Stdio::null, Stdio::from))
        .stderr(Stdio::from(errors))
        .spawn()?;
    // The claim on the user goes along, so that it is held as long as the program lives, whatever becomes of us.
    let mut all = vec![outside.user.lock.as_fd()];
    all.extend(netns);
    all.extend_from_slice(fds);
    let child = ours.send(order, &all).map_err(Into::into).and_then(|()| await_program(&ours));
    // It ends by itself once it has cloned, or when the channel closes.
    drop(ours);
    maker.wait()?;
    let process = child?;
    let started = start_time(process.pid)?;
    let (channel, _) = Channel::pair()?;
    Ok(Init { process, started, channel, mounts: None, directory: outside.directory.to_owned(), held: None })
}

/// The channel closes when the program is executed. Who clones and who was cloned tell in any order.
fn await_program(channel: &Channel) -> std::result::Result<Process, ErrorKind> {
    let (mut process, mut failure) = (None, None);
    let heard = loop {
        match channel.receive::<Told>() {
            Ok(Some((Told::Made { pid }, fds))) => process = fds.into_iter().next().map(|pidfd| Process { pid, pidfd }),
            Ok(Some((Told::Failed(told), _))) => failure = Some(told.into_kind()),
            Ok(None) => break Ok(()),
            Err(error) => break Err(error.into()),
        }
    };
    match (heard, failure, process) {
        (Ok(()), None, Some(process)) => Ok(process),
        (heard, failure, process) => {
            process.map_or(Ok(()), |process| process.end())?;
            Err(heard.err().or(failure).unwrap_or(ErrorKind::Spawner))
        }
    }
}
