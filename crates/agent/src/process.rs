//! Processes: what was started through the agent, each with its tree, input and output.
//!
//! ```text
//! Request --Plan--> Supervisor + pipes --pump (one task)--> Output --> readers
//!                         ^                                  ring on disk
//! Input ---- stdin -------+        Signal, timeout --> tree::kill
//! ```

mod archive;
mod command;
mod failure;
mod input;
mod output;
mod own;
mod pump;
mod registry;
mod ring;
mod store;
mod tree;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use garth_kernel::supervise::Exit;
use garth_protocol::agent::{self as wire, Ended};
use rustix::process::{Pid, Signal};
use tokio::sync::Notify;

pub use command::{Attachment, Request, Size};
pub use failure::Failure;
pub use input::{Input, InputError};
pub use output::{Next, Output, Reader};
pub use own::{Bounds, run_own};
pub use registry::{Entry, Processes, StartError};
pub use ring::Chunk;
pub use tree::{descendants, kill as kill_descendants, signal as signal_descendants};

use crate::lock;

/// Bytes of the arguments that are remembered of a process.
const ARGV_KEPT: usize = 4096;
/// How long a kill looks for survivors.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that was started in this sandbox.
#[derive(Debug)]
pub struct Process {
    /// Its id.
    pub id: String,
    /// The leader.
    pub pid: Pid,
    /// The root of the tree.
    supervisor: Pid,
    /// What does not change.
    facts: Facts,
    /// Everything it wrote.
    pub output: Arc<Output>,
    /// Its standard input or terminal.
    pub input: Input,
    ended_at_ms: Mutex<i64>,
    /// Nothing of the tree is left.
    gone: AtomicBool,
    /// A kill of the tree is under way; the end is reported when it is complete.
    killing: AtomicBool,
    /// Set when the supervisor was killed and the leader is the agent's own child now.
    orphan: Orphan,
}

/// The exit of a leader that lost its supervisor, which anyone who is root in the sandbox can kill.
#[derive(Debug, Default)]
struct Orphan {
    orphaned: AtomicBool,
    exit: Mutex<Option<Exit>>,
    known: Notify,
}

impl Orphan {
    async fn exit(&self) -> Exit {
        loop {
            let known = self.known.notified();
            if let Some(exit) = *lock(&self.exit) {
                return exit;
            }
            known.await;
        }
    }
}

/// What a process was started as.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Cut at 4 KiB.
    pub argv: Vec<String>,
    pub user: String,
    pub cwd: String,
    pub tag: String,
    pub terminal: bool,
    pub detached: bool,
    pub started_at_ms: i64,
}

impl Facts {
    fn of(request: &Request, user: String, cwd: String) -> Self {
        Self {
            argv: cut(&request.argv),
            user,
            cwd,
            tag: request.tag.clone(),
            terminal: matches!(request.attachment, Attachment::Terminal(_)),
            detached: request.detached,
            started_at_ms: now_ms(),
        }
    }
}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The first words, as long as they fit.
fn cut(argv: &[String]) -> Vec<String> {
    let mut room = ARGV_KEPT;
    let mut kept = Vec::new();
    for word in argv {
        if word.len() > room {
            kept.push(word.chars().take(room.min(64)).chain("…".chars()).collect());
            break;
        }
        room -= word.len();
        kept.push(word.clone());
    }
    kept
}

impl Process {
    /// As the protocol shows it.
    pub fn describe(&self) -> wire::Process {
        let ended = self.output.ended();
        let (first_offset, next_offset) = self.output.range();
        let facts = self.facts.clone();
        wire::Process {
            id: self.id.clone(),
            pid: self.pid.as_raw_nonzero().get().unsigned_abs(),
            argv: facts.argv,
            user: facts.user,
            cwd: facts.cwd,
            tag: facts.tag,
            terminal: facts.terminal,
            detached: facts.detached,
            started_at_ms: facts.started_at_ms,
            ended_at_ms: *lock(&self.ended_at_ms),
            lingering: ended.is_some() && !self.is_gone(),
            ended: ended.into(),
            first_offset,
            next_offset,
            input_offset: self.input.taken(),
            input_open: self.input.is_open(),
            ..Default::default()
        }
    }

    /// What it was started as.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The root of the tree.
    pub fn supervisor(&self) -> Pid {
        self.supervisor
    }

    /// Whether nothing of the tree is left.
    pub fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Whether the leader runs.
    pub fn is_running(&self) -> bool {
        self.output.ended().is_none()
    }

    /// Sends a signal to the leader; 0 when it has ended.
    pub fn signal_leader(&self, signal: Signal) -> u32 {
        u32::from(self.is_running() && rustix::process::kill_process(self.pid, signal).is_ok())
    }

    /// Sends a signal to the whole tree; SIGKILL returns when nothing of it is left.
    pub async fn signal_tree(self: &Arc<Self>, signal: Signal) -> u32 {
        if self.is_gone() {
            return 0;
        }
        let process = Arc::clone(self);
        if signal == Signal::KILL {
            self.killing.store(true, Ordering::Relaxed);
        }
        let work = tokio::task::spawn_blocking(move || {
            let (root, also) = process.root();
            let count = match signal {
                Signal::KILL => tree::kill(root, PATIENCE, |_| true, || process.is_gone()),
                _ => tree::signal(root, signal, |_| true),
            };
            count + also.map_or(0, |leader| u32::from(rustix::process::kill_process(leader, signal).is_ok()))
        });
        work.await.unwrap_or(0)
    }

    /// The leader ended as the agent's own child.
    fn reaped(&self, exit: Exit) {
        *lock(&self.orphan.exit) = Some(exit);
        self.orphan.known.notify_waiters();
    }

    /// Whether the leader still runs, or was reaped by the agent, now that the supervisor is gone.
    fn outlives_supervisor(&self) -> bool {
        self.orphan.orphaned.store(true, Ordering::Relaxed);
        lock(&self.orphan.exit).is_some() || rustix::process::test_kill_process(self.pid).is_ok()
    }

    /// All that is below the supervisor; without it, the leader and what is below that.
    fn root(&self) -> (Pid, Option<Pid>) {
        if self.orphan.orphaned.load(Ordering::Relaxed) { (self.pid, Some(self.pid)) } else { (self.supervisor, None) }
    }

    fn end(&self, ended: Ended) {
        *lock(&self.ended_at_ms) = now_ms();
        self.output.end(ended);
        self.input.close();
    }
}
