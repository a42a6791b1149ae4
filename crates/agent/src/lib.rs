//! The init and server inside every sandbox: starts processes, keeps their output, moves files, reaps.
//!
//! ```text
//!                    +-- rpc: garth.agent.v1 (ours), process.Process and filesystem.Filesystem (envd's)
//! unix socket, --http+-- files: GET/POST /files, GET/PUT /garth/tar, GET/PUT /garth/move, GET /garth/manifest
//! channel, or in a   +-- GET /health, POST /garth/probe
//! Pod the network    +-- guest: POST /garth/guest/{begin,again,freeze,power}, in a virtual machine
//! SIGCHLD --> reaper        process: supervisor -> pipes -> output -> ring on the project's disk
//! ```
//!
//! One thread does all that must be quick; what may block on a disk runs on a small pool. The agent makes no
//! namespaces and sets no limits (crate `runtime` did that before), talks to nobody by itself, and asks nobody who he is:
//! who may connect to its socket, or in a Pod knows the key, may do anything in the sandbox.
#![forbid(unsafe_code)]

mod connections;
mod entry;
mod facts;
mod files;
pub mod guest;
mod idle;
mod moving;
mod paths;
mod plain;
pub mod pod;
pub mod probe;
mod process;
mod readiness;
mod reaper;
mod refusal;
mod rpc;
mod server;
mod tarball;
mod transfer;
mod usage;
mod users;
mod watch;
mod xattrs;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use garth_spec::AgentConfig;

pub use connections::Connections;
use process::Processes;
use server::Site;
use users::Users;

/// The envd version whose protocol is spoken; E2B's SDKs read it.
pub const ENVD_VERSION: &str = "0.6.13";

/// How long an idle thread of the pool stays: as good as for ever. A sandbox may use up its processes, and then no thread
/// can be made; work waits for one that is there, and without any the agent would end, and the sandbox with it.
const POOL_KEEP_ALIVE: Duration = Duration::from_secs(u32::MAX as u64);
/// More blocking work than this waits its turn.
const POOL: usize = 8;

/// What the agent serves with.
#[derive(Debug)]
pub struct Agent {
    /// Where clients connect.
    pub connections: Connections,
    /// A directory on the project's disk that the sandbox's processes cannot reach.
    pub state_dir: OwnedFd,
    /// Environment, user and so on of processes.
    pub config: AgentConfig,
}

/// The agent could not go on.
#[derive(Debug, thiserror::Error)]
#[error("the agent failed at step {step}")]
pub struct ServeError {
    /// The step.
    pub step: &'static str,
    /// Why.
    #[source]
    pub source: std::io::Error,
}

fn at(step: &'static str) -> impl FnOnce(std::io::Error) -> ServeError {
    move |source| ServeError { step, source }
}

/// What all handlers share.
#[derive(Debug)]
struct Shared {
    config: AgentConfig,
    processes: Arc<Processes>,
    users: Arc<Users>,
    started_at_ms: i64,
}

impl Shared {
    /// Of an agent that has everything it needs.
    fn new(config: AgentConfig, state_dir: OwnedFd) -> std::io::Result<Arc<Self>> {
        let home = config.env.iter().rev().find(|(name, _)| name == "HOME").map(|(_, home)| home.clone());
        let users = Arc::new(Users::of("/etc").with_home(home));
        let processes = Arc::new(Processes::new(config.clone(), Arc::clone(&users), state_dir)?);
        Ok(Arc::new(Self { config, processes, users, started_at_ms: process::now_ms() }))
    }
}

/// Serves until SIGTERM. Call it before any thread is made: it blocks signals. It reaps every child of this process,
/// so nothing else in this process may wait for children.
pub fn serve(agent: Agent) -> Result<(), ServeError> {
    let Agent { connections, state_dir, config } = agent;
    let site = || Ok(Site::of(Shared::new(config, state_dir).map_err(at("processes"))?));
    run(connections, site).map(drop)
}

/// Why an agent is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// A signal asked for it.
    Asked,
    /// Nothing goes on any more.
    Idle,
}

/// The loop of every agent: serves what connects, reaps once there is something to reap for.
fn run(connections: Connections, site: impl FnOnce() -> Result<Site, ServeError>) -> Result<Over, ServeError> {
    garth_kernel::allocator::keep_little();
    // Orphans of killed supervisors come here also when this is not PID 1.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))
        .map_err(|error| at("subreaper")(error.into()))?;
    // Whoever started this process may have had it ignored, which would reap behind our back.
    garth_kernel::signal::children(garth_kernel::signal::ChildEnds::WaitedFor).map_err(at("signals"))?;
    let signals = reaper::signals().map_err(at("signals"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(POOL)
        .thread_keep_alive(POOL_KEEP_ALIVE)
        .thread_stack_size(256 << 10)
        .build()
        .map_err(at("event loop"))?;
    runtime.block_on(async {
        let site = Arc::new(site()?);
        let listener = connections.listen().map_err(at("listen"))?;
        let server = server::serve(listener, Arc::clone(&site));
        let reaper = reaper::run(signals, site.shared());
        tokio::select! {
            result = reaper => result.map(|()| Over::Asked).map_err(at("signals")),
            result = server => result.map(|()| Over::Asked).map_err(at("accept")),
            () = site.idle() => Ok(Over::Idle),
        }
    })
}

/// A panic while the lock was held (the binary aborts on panics) left at worst a stale entry.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
