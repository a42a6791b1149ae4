//! Slots: what a sandbox runs in, made ahead and used again.
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use garth_spec::Limits;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::cgroups::{self, Cgroups, Usage};
use crate::channel::Channel;
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::handshake::{self, HeldNumbers, Identity, Order, Reply, Report, Request};
use crate::ids::{Claim, FirstId};
use crate::{AgentBinary, Level, Policy};

pub(crate) mod mapped;

/// How long a spawner or an init may take to answer, and a killed process to end.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A spawner process, seen from the daemon.
#[derive(Debug)]
pub(crate) struct Spawner {
    channel: Channel,
    process: Process,
}

/// A process by descriptor.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
}

impl Process {
    /// The process with this id that began at this time, if it has not ended.
    pub(crate) fn find(pid: i32, started: u64) -> Option<Self> {
        // The descriptor first: if the process it names has this start time, it stays the right one.
        let handle = rustix::process::Pid::from_raw(pid)?;
        let pidfd = rustix::process::pidfd_open(handle, rustix::process::PidfdFlags::empty()).ok()?;
        let process = Self { pid, pidfd };
        let same = start_time(pid).is_ok_and(|found| found == started);
        (same && process.is_alive()).then_some(process)
    }

    /// Ends it and waits until it is gone.
    pub(crate) fn end(&self) -> std::result::Result<(), ErrorKind> {
        match rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(e) => return Err(e.into()),
        }
        match self.gone_within(PATIENCE)? {
            true => Ok(()),
            false => Err(ErrorKind::Stuck { seconds: PATIENCE.as_secs() }),
        }
    }

    /// Takes the exit status of an ended child, so that it does not stay as a zombie.
    pub(crate) fn reap(&self) {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.gone_within(Duration::ZERO).is_ok_and(|gone| !gone)
    }

    /// Whether it ended, waiting for that at most so long.
    pub(crate) fn gone_within(&self, patience: Duration) -> io::Result<bool> {
        let timeout = patience.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
        loop {
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&timeout)) {
                Err(Errno::INTR) => {}
                result => return Ok(result? > 0),
            }
        }
    }
}

impl Spawner {
    /// Starts the root spawner: the agent binary in its spawner mode, with its base built.
    pub(crate) fn start(agent: &AgentBinary, cgroups: &Cgroups, level: Level) -> Result<Self> {
        let (ours, theirs) = Channel::pair().doing(|| "make a channel".to_owned())?;
        ours.set_patience(PATIENCE).doing(|| "make a channel".to_owned())?;
        let process = exec(agent, theirs, &["spawner", level.word()]).doing(|| "start the spawner".to_owned())?;
        let spawner = Self { process, channel: ours };
        if let Cgroups::V1(v1) = cgroups
            && let Some(devices) = v1.devices()
        {
            spawner.enter(devices).doing(|| "restrict devices".to_owned())?;
        }
        let (names, links) = cgroups.layout(level);
        spawner.ask(&Request::Base { cgroups: names, links }, &[])?;
        Ok(spawner)
    }

    fn enter(&self, cgroup: &Path) -> io::Result<()> {
        std::fs::write(cgroup.join("cgroup.procs"), self.process.pid.to_string())
    }

    /// Forks the spawner of a slot and moves it into the slot's cgroups.
    pub(crate) fn fork(&self, cgroups: &Cgroups, slot: &str, level: Level) -> Result<Self> {
        let (ours, theirs) = Channel::pair().doing(|| "make a channel".to_owned())?;
        ours.set_patience(PATIENCE).doing(|| "make a channel".to_owned())?;
        let spawner = Self { process: self.child(&Request::Slot, &[theirs.as_fd()])?, channel: ours };
        if matches!(cgroups, Cgroups::V1(_)) {
            for directory in &cgroups.directories(slot) {
                spawner.enter(directory).doing(|| format!("enter {}", directory.display()))?;
            }
        }
        let shown = cgroups.shown(slot, level);
        let shown = shown.iter().map(|path| cgroups::detached(path)).collect::<Result<Vec<_>>>()?;
        spawner.ask(&Request::Cgroups, &shown.iter().map(AsFd::as_fd).collect::<Vec<_>>())?;
        Ok(spawner)
    }

    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(Reply, Vec<OwnedFd>)> {
        let talk = || -> std::result::Result<_, ErrorKind> {
            self.channel.send(request, fds)?;
            match self.channel.receive()?.ok_or(ErrorKind::Spawner)? {
                (Reply::Failed(failure), _) => Err(failure.into_kind()),
                reply => Ok(reply),
            }
        };
        talk().doing(|| "have a spawner prepare a sandbox".to_owned())
    }

    fn child(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<Process> {
        match self.ask(request, fds)? {
            (Reply::Child { pid }, fds) => fds.into_iter().next().map(|pidfd| Process { pid, pidfd }),
            _ => None,
        }
        .ok_or_else(|| Error { doing: "prepare a sandbox".to_owned(), kind: ErrorKind::Spawner })
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// Closes the channel, at which the process ends, and waits for that.
    pub(crate) fn close(self) {
        drop(self.channel);
        if !self.process.gone_within(PATIENCE).unwrap_or(false) {
            let _ = self.process.end();
        }
    }
}

/// Starts the agent binary in one of its modes. It is a child of the daemon and waited for by [`Process::reap`].
pub(crate) fn exec(agent: &AgentBinary, channel: Channel, words: &[&str]) -> std::result::Result<Process, ErrorKind> {
    use std::os::fd::AsRawFd;
    use std::os::unix::process::CommandExt;
    let child = Command::new(format!("/proc/self/fd/{}", agent.0.as_raw_fd()))
        .arg0("garth-agent")
        .args(words)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::from(OwnedFd::from(channel)))
        .stdout(Stdio::null())
        .spawn()?;
    let pid = i32::try_from(child.id()).map_err(|_| ErrorKind::Spawner)?;
    let handle = rustix::process::Pid::from_raw(pid).ok_or(ErrorKind::Spawner)?;
    let pidfd = rustix::process::pidfd_open(handle, rustix::process::PidfdFlags::empty())?;
    Ok(Process { pid, pidfd })
}

/// Takes the exit status of an ended root spawner, so that it does not stay as a zombie.
pub(crate) fn reap(spawner: Spawner) {
    let pidfd = rustix::io::fcntl_dupfd_cloexec(&spawner.process.pidfd, 0);
    let pid = spawner.process.pid;
    spawner.close();
    if let Ok(pidfd) = pidfd {
        Process { pid, pidfd }.reap();
    }
}

/// An init that waits for its order.
#[derive(Debug)]
pub(crate) struct Init {
    pub(crate) process: Process,
    /// Clock ticks from boot to its start: tells it from another process with its id.
    pub(crate) started: u64,
    pub(crate) channel: Channel,
    /// Its mount namespace: held, so that the namespace ends after `destroy` and not in it.
    pub(crate) mounts: Option<OwnedFd>,
    /// Holds its socket; renamed when it gets a sandbox's id.
    pub(crate) directory: PathBuf,
    /// What it holds for a keeper to come, by its numbers there.
    pub(crate) held: Option<HeldNumbers>,
}

/// Waits for an init's next report; anything but the one expected is an error.
fn expect(channel: &Channel, expected: &Report) -> std::result::Result<(), ErrorKind> {
    match channel.receive::<Report>()? {
        Some((Report::Failed(failure), _)) => Err(failure.into_kind()),
        Some((report, _)) if report == *expected => Ok(()),
        _ => Err(ErrorKind::Spawner),
    }
}

/// Once the init is warm: when it started, and its mount namespace.
fn look(init: &Process, channel: &Channel) -> std::result::Result<(u64, OwnedFd), ErrorKind> {
    expect(channel, &Report::Warm)?;
    Ok((start_time(init.pid)?, File::open(format!("/proc/{}/ns/mnt", init.pid))?.into()))
}

impl Init {
    /// Sends its order, with its network namespace where it has none yet.
    pub(crate) fn order(&self, order: &Order, netns: Option<BorrowedFd<'_>>) -> std::result::Result<(), ErrorKind> {
        Ok(self.channel.send(order, netns.as_slice())?)
    }

    /// Waits until the porter that was here has made the real one.
    pub(crate) fn born(&mut self, keeper: &mut Keeper, uuid: [u8; 16]) -> std::result::Result<(), ErrorKind> {
        let (pid, fds) = match self.channel.receive::<Report>()? {
            Some((Report::Born { pid, zero }, fds)) => {
                keeper.identity = Identity { uuid, zero };
                (pid, fds)
            }
            Some((Report::Failed(failure), _)) => return Err(failure.into_kind()),
            _ => return Err(ErrorKind::Spawner),
        };
        let pidfd = fds.into_iter().next().ok_or(ErrorKind::Spawner)?;
        self.process = Process { pid, pidfd };
        self.started = start_time(pid)?;
        Ok(())
    }

    /// Sends its disk and waits until it has entered.
    pub(crate) fn enter(&mut self, disk: &[BorrowedFd<'_>]) -> std::result::Result<(), ErrorKind> {
        // An init that failed before has said so and is gone; what it said tells more than the broken channel.
        let _ = self.channel.send(&handshake::Disk, disk);
        match self.channel.receive::<Report>()? {
            Some((Report::Entered { held }, _)) => self.held = held,
            Some((Report::Failed(failure), _)) => return Err(failure.into_kind()),
            _ => return Err(ErrorKind::Spawner),
        }
        Ok(())
    }

    /// Holds its mount namespace, if that is not held yet.
    pub(crate) fn hold_mounts(&mut self) -> std::result::Result<(), ErrorKind> {
        if self.mounts.is_none() {
            self.mounts = Some(File::open(format!("/proc/{}/ns/mnt", self.process.pid))?.into());
        }
        Ok(())
    }

    /// Ends it. What it mounted ends when the returned hold is dropped.
    pub(crate) fn discard(self) -> Option<OwnedFd> {
        let _ = self.process.end();
        let _ = std::fs::remove_dir_all(&self.directory);
        self.mounts
    }
}

/// The process beside a sandbox of mapped users.
#[derive(Debug)]
pub(crate) struct Keeper {
    pub(crate) process: Process,
    /// As [`Init::started`].
    pub(crate) started: u64,
    /// The outer user namespace: the map of the sandbox's users.
    pub(crate) users: OwnedFd,
    /// The sandbox's network namespace.
    pub(crate) netns: OwnedFd,
    /// The user on the host that its root is.
    pub(crate) first: FirstId,
    /// What one in its place would need, by its numbers there.
    pub(crate) held: HeldNumbers,
    /// What the sandbox is told; its zero is known once it is born.
    pub(crate) identity: Identity,
}

/// How long a keeper whose sandbox is gone may take to end.
const LAST_WORD: Duration = Duration::from_secs(5);

impl Keeper {
    /// How its sandbox's init ended. A keeper that took another's place does not know.
    pub(crate) fn last_word(&self) -> Ending {
        let status = garth_kernel::pidfd::exit_status(self.process.pidfd.as_fd(), LAST_WORD);
        let signal = status.ok().flatten().and_then(|status| status.code()).map(|code| code - handshake::ENDED_BY);
        match signal.and_then(Signal::from_named_raw) {
            Some(Signal::HUP) => Ending::Rebooted,
            Some(Signal::INT) => Ending::PoweredOff,
            _ => Ending::Unknown,
        }
    }
}

/// How a sandbox came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// By reboot(2) in it, to be started again.
    Rebooted,
    /// By reboot(2) in it, for good.
    PoweredOff,
    /// In another way, or nobody can tell.
    Unknown,
}

/// A cgroup set with its spawner and, when warm, an init.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) name: String,
    pub(crate) level: Level,
    pub(crate) keeper: Option<Keeper>,
    /// The users of its sandbox.
    pub(crate) ids: Option<Claim>,
    pub(crate) spawner: Option<Spawner>,
    pub(crate) init: Option<Init>,
    /// The limits its cgroups have.
    pub(crate) limits: Limits,
    /// Counters when its last sandbox had ended.
    pub(crate) base: Usage,
}

impl Slot {
    /// Whether it holds a program in a jail.
    pub(crate) fn is_jail(&self) -> bool {
        self.ids.is_some() && self.keeper.is_none() && self.level == Level::Default
    }

    pub(crate) fn create(root: &Spawner, cgroups: &Cgroups, name: String, ids: Option<Claim>) -> Result<Self> {
        let limits = Limits::default();
        let level = if ids.is_some() { Level::Sysbox } else { Level::Default };
        let make = || {
            cgroups.create(&name, &limits)?;
            ids.as_ref().map_or(Ok(()), |ids| {
                cgroups.delegate(&name, ids.first.get())?;
                // Shown in what was just delegated.
                cgroups.limit(&name, &limits)
            })
        };
        let made = make().doing(|| format!("make the cgroups of slot {name}"));
        match made.and_then(|()| root.fork(cgroups, &name, level)) {
            Ok(spawner) => {
                let (spawner, base) = (Some(spawner), Usage::default());
                Ok(Self { name, level, keeper: None, ids, spawner, init: None, limits, base })
            }
            Err(e) => {
                let _ = cgroups.remove(&name);
                Err(e)
            }
        }
    }

    /// Whether an order would reach an init.
    pub(crate) fn is_ready(&self) -> bool {
        let keeper = self.keeper.as_ref().is_none_or(|keeper| keeper.process.is_alive());
        keeper && self.init.as_ref().is_some_and(|init| init.process.is_alive())
    }

    /// Has the spawner clone an init, and waits until that is warm.
    pub(crate) fn warm(&mut self, cgroups: &Cgroups, run_dir: &Path) -> Result<()> {
        match self.level {
            Level::Default => self.warm_init(cgroups, run_dir),
            Level::Sysbox => self.warm_mapped(cgroups, run_dir),
        }
    }

    /// Has the spawner clone a keeper, which makes a porter; the spawner's work is done then.
    fn warm_mapped(&mut self, cgroups: &Cgroups, run_dir: &Path) -> Result<()> {
        let doing = || "prepare a sandbox of mapped users".to_owned();
        let (spawner, ids) = self.spawner.as_ref().zip(self.ids.as_ref()).ok_or(ErrorKind::Spawner).doing(doing)?;
        let directory = run_dir.join(format!(".warm-{}", self.name));
        let listener = listen(&directory, &self.name).doing(|| format!("listen in {}", directory.display()))?;
        match mapped::warm(spawner, ids, cgroups, &self.name, &listener) {
            Ok((keeper, porter, channel)) => {
                self.keeper = Some(keeper);
                self.init = Some(Init { process: porter, started: 0, channel, mounts: None, directory, held: None });
                // The one process that is there without a sandbox from now on is the keeper.
                self.base.pids = 1;
            }
            Err(kind) => {
                let _ = std::fs::remove_dir_all(&directory);
                return Err(kind).doing(doing);
            }
        }
        if let Some(spawner) = self.spawner.take() {
            spawner.close();
        }
        Ok(())
    }

    fn warm_init(&mut self, cgroups: &Cgroups, run_dir: &Path) -> Result<()> {
        let spawner = self.spawner.as_ref().ok_or(ErrorKind::Spawner).doing(|| "warm a slot".to_owned())?;
        let directory = run_dir.join(format!(".warm-{}", self.name));
        let listener = listen(&directory, &self.name).doing(|| format!("listen in {}", directory.display()))?;
        let (ours, theirs) = Channel::pair().doing(|| "make a channel".to_owned())?;
        ours.set_patience(PATIENCE).doing(|| "make a channel".to_owned())?;
        let into = cgroups.in_v2_tree(&self.name).map(File::open).transpose().doing(|| "open the cgroup".to_owned())?;
        let mut fds = vec![theirs.as_fd(), listener.as_fd()];
        fds.extend(into.as_ref().map(AsFd::as_fd));
        let process = spawner.child(&Request::Init, &fds)?;
        drop(theirs);
        match look(&process, &ours).doing(|| "prepare a sandbox".to_owned()) {
            Ok((started, mounts)) => {
                let mounts = Some(mounts);
                self.init = Some(Init { process, started, channel: ours, mounts, directory, held: None });
                Ok(())
            }
            Err(e) => {
                let _ = process.end();
                let _ = std::fs::remove_dir_all(&directory);
                Err(e)
            }
        }
    }

    /// Ends the process beside the sandbox.
    pub(crate) fn end_keeper(&self) -> std::result::Result<(), ErrorKind> {
        self.keeper.as_ref().map_or(Ok(()), |keeper| keeper.process.end())
    }

    /// Ends what is in the slot and removes it.
    pub(crate) fn retire(mut self, cgroups: &Cgroups) {
        if let Some(init) = self.init.take() {
            init.discard();
        }
        // What cannot be ended now is found by the next daemon's sweep.
        let _ = self.end_keeper();
        if let Some(spawner) = self.spawner.take() {
            spawner.close();
        }
        remove_patiently(cgroups, &self.name);
    }
}

/// A process that was seen to end may count as a member for a moment longer (`cgroup_exit` comes late).
pub(crate) fn remove_patiently(cgroups: &Cgroups, slot: &str) {
    for _ in 0..200 {
        match cgroups.remove(slot) {
            Err(e) if e.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                std::thread::sleep(Duration::from_millis(5));
            }
            _ => return,
        }
    }
}

/// The directory of a sandbox to be: the agent's socket, and a link that says which slot it runs in.
fn listen(directory: &Path, slot: &str) -> std::result::Result<UnixListener, ErrorKind> {
    match std::fs::remove_dir_all(directory) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e.into()),
        _ => rustix::fs::mkdir(directory, rustix::fs::Mode::RWXU)?,
    }
    std::os::unix::fs::symlink(slot, directory.join(SLOT))?;
    Ok(UnixListener::bind(directory.join(SOCKET))?)
}

/// In a sandbox's directory: the agent's socket.
pub(crate) const SOCKET: &str = "agent.sock";
/// In a sandbox's directory: a link whose text is the slot's name.
pub(crate) const SLOT: &str = "slot";

/// When a process started, in clock ticks from boot (`proc_pid_stat(5)`, field 22).
pub(crate) fn start_time(pid: i32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name, in parentheses, may hold anything; the last parenthesis ends it.
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    fields
        .split_whitespace()
        .nth(19)
        .and_then(|ticks| ticks.parse().ok())
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Checks the data files of the boundary early, in the daemon, where an error can be told.
pub(crate) fn check_policy() -> std::result::Result<(), ErrorKind> {
    [Level::Default, Level::Sysbox]
        .into_iter()
        .try_for_each(|level| Policy::load(level).map(drop))
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e).into())
}
