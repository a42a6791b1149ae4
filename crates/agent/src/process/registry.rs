//! All processes of the sandbox: starts them, finds them by id, forgets the oldest.

use std::fs::File;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use garth_kernel::supervise::{Exit, Report, Stdio, Supervisor};
use garth_protocol::agent::{self as wire, Stream};
use garth_spec::AgentConfig;
use rustix::fs::OFlags;
use rustix::process::Pid;
use rustix::pty::OpenptFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, oneshot};

use super::archive::{self, Archived, REMEMBERED};
use super::command::Plan;
use super::output::{Output, Reader};
use super::pump::{Pump, Source, next_report};
use super::ring::Keep;
use super::store::Store;
use super::{Attachment, Facts, Failure, Input, Orphan, Process, Request, Size};
use crate::lock;
use crate::readiness::watch;
use crate::usage;
use crate::users::Users;

/// Prune the disk after so many ends.
const PRUNE_EVERY: usize = 16;

/// How long a start waits for a place below the limit on processes: the kernel tells nobody when there is one.
const PLACE_WITHIN: Duration = Duration::from_secs(10);
const PLACE_RETRY: Duration = Duration::from_millis(50);

/// Why a start did not happen.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process could not be made.
    #[error("the process could not be started")]
    Failed(#[source] Failure),
    /// The id is taken.
    #[error("a process with id {0:?} exists")]
    Exists(String),
    /// The id is not 1 to 64 of a-z, 0-9, '-'.
    #[error("{0:?} is no process id: use 1 to 64 of a-z, 0-9 and '-'")]
    BadId(String),
    /// The sandbox is being shut down.
    #[error("the sandbox is shutting down")]
    ShuttingDown,
}

/// A process as found by its id.
#[derive(Debug, Clone)]
pub enum Entry {
    /// Started in this sandbox.
    Live(Arc<Process>),
    /// Only on disk.
    Archived(Box<Archived>),
}

impl Entry {
    /// Its output.
    pub fn output(&self) -> &Arc<Output> {
        match self {
            Self::Live(process) => &process.output,
            Self::Archived(archived) => &archived.output,
        }
    }

    /// As the protocol shows it.
    pub fn describe(&self) -> wire::Process {
        match self {
            Self::Live(process) => process.describe(),
            Self::Archived(archived) => archived.process.clone(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Processes {
    config: AgentConfig,
    users: Arc<Users>,
    keep: Keep,
    null: File,
    list: Mutex<List>,
    /// Woken when a process's task has ended.
    settled: Notify,
}

#[derive(Debug, Default)]
struct List {
    /// In the order in which they started.
    processes: Vec<Arc<Process>>,
    /// Ids of starts under way.
    starting: Vec<String>,
    closed: bool,
    /// Tasks of processes.
    active: usize,
    ends: usize,
}

impl Processes {
    /// None yet. `state` is the agent's directory on the project's disk.
    pub fn new(config: AgentConfig, users: Arc<Users>, state: OwnedFd) -> std::io::Result<Self> {
        let null = File::options().read(true).write(true).open("/dev/null")?;
        Ok(Self { config, users, keep: Keep::below(state), null, list: Mutex::default(), settled: Notify::new() })
    }

    /// Starts a process; returns when its program runs.
    ///
    /// At the sandbox's limit on processes it waits for room, so that what just ended, or is about to, does not
    /// refuse the next command; under a fork bomb it gives up after [`PLACE_WITHIN`].
    pub async fn start(self: &Arc<Self>, request: Request) -> Result<Arc<Process>, StartError> {
        let begun = Instant::now();
        loop {
            match self.try_start(request.clone()).await {
                Err(StartError::Failed(failure)) if failure.is_of_resources() && begun.elapsed() < PLACE_WITHIN => {
                    while !usage::has_room_for_processes() && begun.elapsed() < PLACE_WITHIN {
                        tokio::time::sleep(PLACE_RETRY).await;
                    }
                    tokio::time::sleep(PLACE_RETRY).await;
                }
                other => return other,
            }
        }
    }

    async fn try_start(self: &Arc<Self>, request: Request) -> Result<Arc<Process>, StartError> {
        let id = self.reserve(&request.id)?;
        let result = self.launch(id.clone(), &request);
        let launched = match result {
            Ok(launched) => launched,
            Err(failure) => {
                self.release(&id);
                return Err(StartError::Failed(failure));
            }
        };
        let (sender, started) = oneshot::channel();
        // A task of its own: the process is ours from here on, whether or not the client waits.
        tokio::spawn(Arc::clone(self).carry(launched, request, sender));
        started.await.unwrap_or(Err(StartError::ShuttingDown))
    }

    /// The project's disk: a directory on it.
    pub fn disk(&self) -> BorrowedFd<'_> {
        self.keep.state()
    }

    /// No process is started from now on.
    pub fn close(&self) {
        lock(&self.list).closed = true;
    }

    /// Waits until nothing of any process is left and all output is stored.
    pub async fn settle(&self) {
        loop {
            let settled = self.settled.notified();
            if lock(&self.list).active == 0 {
                return;
            }
            settled.await;
        }
    }

    /// Processes in memory, in the order in which they started.
    pub fn live(&self) -> Vec<Arc<Process>> {
        lock(&self.list).processes.clone()
    }

    /// All that are remembered, oldest first.
    pub async fn list(&self) -> Vec<Entry> {
        let live = self.live();
        let known: Vec<String> = live.iter().map(|process| process.id.clone()).collect();
        let keep = self.keep.clone();
        let archived = tokio::task::spawn_blocking(move || archive::list(&keep.directory()?, &known));
        let archived = archived.await.ok().and_then(Result::ok).unwrap_or_default();
        archived
            .into_iter()
            .map(|archived| Entry::Archived(Box::new(archived)))
            .chain(live.into_iter().map(Entry::Live))
            .collect()
    }

    /// The process of this id.
    pub async fn find(&self, id: &str) -> Option<Entry> {
        if let Some(process) = self.find_live(id) {
            return Some(Entry::Live(process));
        }
        let (keep, id) = (self.keep.clone(), id.to_owned());
        let archived = tokio::task::spawn_blocking(move || archive::find(&keep.directory()?, &id));
        archived.await.ok()?.ok()?.map(|archived| Entry::Archived(Box::new(archived)))
    }

    /// The process of this id, if it was started in this sandbox.
    pub fn find_live(&self, id: &str) -> Option<Arc<Process>> {
        lock(&self.list).processes.iter().rfind(|process| process.id == id).cloned()
    }

    /// Reads a process's output from an offset on, or what comes next.
    pub fn reader(&self, entry: &Entry, position: Option<u64>) -> Reader {
        let id = match entry {
            Entry::Live(process) => process.id.clone(),
            Entry::Archived(archived) => archived.process.id.clone(),
        };
        Reader::new(Arc::clone(entry.output()), id, Some(self.keep.clone()), position)
    }

    /// A child of the agent itself has ended; it may be a leader whose supervisor was killed.
    pub fn reaped(&self, pid: Pid, exit: Exit) {
        let leader = lock(&self.list).processes.iter().rfind(|process| process.pid == pid).cloned();
        if let Some(process) = leader.filter(|process| process.is_running()) {
            process.reaped(exit);
        }
    }

    fn reserve(&self, asked: &str) -> Result<String, StartError> {
        let mut list = lock(&self.list);
        if list.closed {
            return Err(StartError::ShuttingDown);
        }
        let taken =
            |id: &str| list.starting.iter().any(|other| other == id) || list.processes.iter().any(|p| p.id == id);
        let id = if asked.is_empty() { new_id() } else { asked.to_owned() };
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        if id.is_empty() || id.len() > 64 || !id.bytes().all(plain) {
            return Err(StartError::BadId(id));
        }
        if taken(&id) {
            return Err(StartError::Exists(id));
        }
        list.starting.push(id.clone());
        Ok(id)
    }

    fn release(&self, id: &str) {
        lock(&self.list).starting.retain(|other| other != id);
    }

    fn launch(&self, id: String, request: &Request) -> Result<Launched, Failure> {
        let plan = Plan::new(request, &self.config, &self.users)?;
        let facts = Facts::of(request, plan.user.name.clone(), plan.cwd.clone());
        let (stdio, sources, input) = match request.attachment {
            Attachment::Terminal(size) => self.terminal(&plan, size)?,
            Attachment::Output => self.pipes(&plan, None)?,
            Attachment::InputAndOutput => self.pipes(&plan, Some(()))?,
        };
        let programs = plan.programs.clone();
        let supervisor = Supervisor::spawn(plan.command(stdio)?)?;
        let supervisor = watch(supervisor, Interest::READABLE)?;
        Ok(Launched { id, facts, programs, supervisor, sources, input })
    }

    fn pipes(&self, plan: &Plan, with_input: Option<()>) -> Result<(Stdio, [Source; 2], Input), Failure> {
        let (input, sink) = match with_input {
            None => (self.null.try_clone()?.into(), Input::none()),
            Some(()) => {
                let (reader, writer) = pipe(plan)?;
                rustix::fs::fcntl_setfl(&writer, OFlags::NONBLOCK)?;
                (reader, Input::pipe(writer)?)
            }
        };
        let (out, output) = pipe(plan)?;
        let (err, error) = pipe(plan)?;
        let sources = [source(Stream::STREAM_STDOUT, out)?, source(Stream::STREAM_STDERR, err)?];
        Ok((Stdio::Separate { input, output, error }, sources, sink))
    }

    fn terminal(&self, plan: &Plan, size: Size) -> Result<(Stdio, [Source; 2], Input), Failure> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let control = rustix::pty::openpt(flags)?;
        rustix::pty::unlockpt(&control)?;
        let terminal = rustix::pty::ioctl_tiocgptpeer(&control, flags)?;
        plan.give(&terminal)?;
        rustix::fs::fcntl_setfl(&control, OFlags::RDWR | OFlags::NONBLOCK)?;
        let control = Arc::new(watch(control, Interest::READABLE | Interest::WRITABLE)?);
        let input = Input::terminal(Arc::clone(&control));
        input.resize(size).map_err(|error| std::io::Error::other(error.to_string()))?;
        let sources = [Source::new(Stream::STREAM_TERMINAL, control), Source::none()];
        Ok((Stdio::Terminal(terminal), sources, input))
    }

    /// Waits for the program to run, answers, and then does the process's work to its end.
    async fn carry(
        self: Arc<Self>,
        launched: Launched,
        request: Request,
        answer: oneshot::Sender<Result<Arc<Process>, StartError>>,
    ) {
        let Launched { id, facts, programs, mut supervisor, sources, input } = launched;
        let leader = match next_report(&mut supervisor).await {
            Ok(Report::Started { leader }) => leader,
            Ok(Report::Failed { step, errno }) => {
                let name = request.argv.first().map_or("", String::as_str);
                let failure = Failure::of_step(step, errno, name, &programs, &facts.cwd);
                self.release(&id);
                let _ = answer.send(Err(StartError::Failed(failure)));
                // Its memory can be used again only when it is gone.
                while !matches!(next_report(&mut supervisor).await, Ok(Report::Gone) | Err(_)) {}
                return;
            }
            _ => {
                self.release(&id);
                return;
            }
        };
        let process = Arc::new(Process {
            id,
            pid: leader,
            supervisor: supervisor.get_ref().pid(),
            facts,
            output: Arc::default(),
            input,
            ended_at_ms: Mutex::default(),
            gone: AtomicBool::default(),
            killing: AtomicBool::default(),
            orphan: Orphan::default(),
        });
        self.remember(Arc::clone(&process));
        let _ = answer.send(Ok(Arc::clone(&process)));
        // The client hears of it before the process's pipes are looked at.
        tokio::task::yield_now().await;
        let store = Store::new(Arc::clone(&process), self.keep.clone(), self.config.output_ring);
        Pump { process, supervisor, sources, timeout: request.timeout, store }.run().await;
        self.forget().await;
    }

    fn remember(&self, process: Arc<Process>) {
        let mut list = lock(&self.list);
        list.starting.retain(|id| *id != process.id);
        list.processes.push(process);
        list.active += 1;
    }

    /// Lets go of what ended longest ago, in memory and sometimes on disk.
    async fn forget(&self) {
        let prune = {
            let mut list = lock(&self.list);
            let gone = list.processes.iter().filter(|process| process.is_gone()).count();
            let mut surplus = gone.saturating_sub(REMEMBERED);
            list.processes.retain(|process| {
                let drop = surplus > 0 && process.is_gone();
                surplus -= usize::from(drop);
                !drop
            });
            list.ends += 1;
            list.active -= 1;
            list.ends.is_multiple_of(PRUNE_EVERY) && self.keep.is_used()
        };
        self.settled.notify_waiters();
        if prune {
            let running: Vec<String> =
                self.live().iter().filter(|process| !process.is_gone()).map(|process| process.id.clone()).collect();
            let (keep, capacity) = (self.keep.clone(), self.config.output_ring);
            let work = tokio::task::spawn_blocking(move || archive::prune(&keep.directory()?, &running, capacity));
            let _ = work.await;
        }
    }
}

/// A supervisor that has not reported yet, and what belongs to it.
struct Launched {
    id: String,
    facts: Facts,
    programs: Vec<std::ffi::CString>,
    supervisor: AsyncFd<Supervisor>,
    sources: [Source; 2],
    input: Input,
}

fn pipe(plan: &Plan) -> Result<(OwnedFd, OwnedFd), Failure> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    plan.give(&writer)?;
    Ok((reader, writer))
}

fn source(stream: Stream, fd: OwnedFd) -> Result<Source, Failure> {
    rustix::fs::fcntl_setfl(&fd, OFlags::NONBLOCK)?;
    Ok(Source::new(stream, Arc::new(watch(fd, Interest::READABLE)?)))
}

/// 12 hexadecimal digits of the kernel's random source.
fn new_id() -> String {
    let mut bytes = [0u8; 6];
    // Cannot fail: 256 bytes and fewer are given whole (getrandom(2)); and if it did, an id would only repeat.
    let _ = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
