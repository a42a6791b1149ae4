//! Whether a sandbox's boundary holds: tried from inside, looked at from outside, judged here.
//!
//! ```text
//! checks (per level) ── tries ──> agent ──> an ordinary process in the sandbox
//!        │                                        │ what came of each
//!        └── judge <── host facts (/proc, cgroups, listeners) + that ──> Verification ──> store
//! ```
//!
//! What the kernel and this daemon say of the sandbox is trusted. What comes out of the sandbox is not: it is bounded,
//! escaped, and what it leaves out counts as a failure. Whoever owns the sandbox can still make its own process lie;
//! so where the host can see something itself, it does not ask.

mod checks;
mod host;
mod judge;
mod level;
mod listeners;
mod machine;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use garth_spec::{Handler, Limits, Network, ProbeReport, ProbeRequest, ProjectName, Runtime, Try, Volume};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::agent::Agent;
use crate::engine::{Engine, StartPolicy};
use crate::error::{Error, ErrorKind};
use crate::local::SandboxRecord;
use crate::project::{Project, SandboxEntry};
use crate::queue::Request;
use checks::Check;
use host::HostFacts;
use level::Level;
use listeners::Listeners;

/// The outcome of one run of all checks of a level.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verification {
    /// The level that was checked: the running sandbox's.
    pub runtime: Runtime,
    /// What carries it out.
    pub handler: Handler,
    /// When.
    pub at: Timestamp,
    /// Each check, in the order of the list.
    pub checks: Vec<Checked>,
}

/// One check that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// Its name; stable.
    pub id: &'static str,
    /// What has to be so.
    pub what: &'static str,
    /// Whether it is.
    pub passed: bool,
    /// What was seen: one line, bounded, without control characters.
    pub evidence: String,
}

/// What the store keeps of a verification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// When.
    pub at: Timestamp,
    /// The level that was checked.
    pub runtime: Runtime,
    /// How many checks were made.
    pub checks: usize,
    /// The names of those that failed.
    pub failed: Vec<String>,
}

impl Verification {
    /// Whether every check passed.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.passed)
    }

    fn summary(&self) -> Verified {
        let failed = self.checks.iter().filter(|check| !check.passed).map(|check| check.id.to_owned());
        Verified { at: self.at, runtime: self.runtime, checks: self.checks.len(), failed: failed.collect() }
    }
}

/// What is known of the sandbox before anything is tried.
#[derive(Debug, Clone)]
struct Subject {
    level: Level,
    limits: Limits,
    network: Network,
    no_new_privs: bool,
    /// The project's id, which is its disk's name.
    disk: String,
    /// Those that its processes can have.
    capabilities: u64,
    /// Whether its root is read-only.
    read_only: bool,
    volumes: Vec<Shown>,
    /// Its init, or its hypervisor, as the host numbers it.
    pid: i32,
    /// Of a sandbox with a kernel of its own.
    guest: Option<machine::Guest>,
    started_at: Option<Timestamp>,
    /// Addresses of this daemon's other sandboxes.
    neighbours: Vec<IpAddr>,
    /// Where this host listens for the time of the check.
    host: Vec<std::net::SocketAddr>,
}

/// A directory of the host that the sandbox was given.
#[derive(Debug, Clone)]
struct Shown {
    at: String,
    /// Its path on the host, without links.
    real: PathBuf,
    read_only: bool,
}

impl Shown {
    fn of(at: &str, volume: &Volume) -> Self {
        // One that is gone by now has no other name.
        let real = std::fs::canonicalize(&volume.host).unwrap_or_else(|_| (&volume.host).into());
        Self { at: at.to_owned(), real, read_only: volume.read_only }
    }
}

/// Neighbours that are tried: the rule between sandboxes is one for all.
const NEIGHBOURS: usize = 4;

/// What the agent needs beyond the 30 s that it gives the process.
const WITHIN: Duration = Duration::from_secs(40);

impl Engine {
    /// Runs the checks of the level that a project's sandbox has; a stopped project is started. The outcome is kept.
    pub async fn verify(&self, name: &ProjectName) -> Result<Verification, Error> {
        let verified = self.try_verify(name).await;
        verified.map_err(|error| error.doing(|| format!("cannot verify {name}")))
    }

    async fn try_verify(&self, name: &ProjectName) -> Result<Verification, Error> {
        let (project, agent) = self.running(name, StartPolicy::Start).await?;
        let sandbox = project.sandbox.as_ref().ok_or_else(|| ErrorKind::NotRunning(name.clone()))?;
        let level = Level::of(sandbox.handler);
        let pid = sandbox.pid().ok_or(ErrorKind::Sandbox)?;
        let listeners = blocking(Listeners::open).await?;
        let subject = Subject {
            // What the running sandbox has: limits change at once, the network with the next start.
            limits: project.spec.limits,
            network: sandbox.network,
            no_new_privs: project.spec.no_new_privs,
            disk: project.id.to_string(),
            capabilities: sandbox.capabilities.of(level.capabilities).unwrap_or(level.capabilities),
            read_only: sandbox.read_only,
            level,
            volumes: sandbox.volumes.iter().map(|(at, volume)| Shown::of(at, volume)).collect(),
            pid,
            guest: guest(sandbox),
            started_at: project.started_at,
            neighbours: self.neighbours(&project),
            host: listeners.addresses().to_vec(),
        };
        let checks = checks::of(&subject);
        let before = self.inspect(name).await?;
        let tries: Vec<Try> = checks.iter().flat_map(|check| check.tries.iter().cloned()).collect();
        let report = ask(&agent, ProbeRequest { tries }).await?;
        let after = self.inspect(name).await?;
        if after.project.sandbox.as_ref().map(|entry| entry.id) != Some(sandbox.id) {
            // What the host would look at now is another sandbox, or none.
            return Err(ErrorKind::NotRunning(name.clone()).into());
        }
        let facts =
            blocking(move || HostFacts::read(&subject, listeners, &before, &after).map(|facts| (subject, facts)));
        let (subject, facts) = facts.await?;
        let verification = Verification {
            runtime: sandbox.runtime,
            handler: sandbox.handler,
            at: Timestamp::now(),
            checks: judged(&checks, report, &subject, &facts),
        };
        let summary = Box::new(verification.summary());
        self.entry(name)?.ask(|answer| Request::Verified { summary, answer }).await?;
        Ok(verification)
    }

    fn neighbours(&self, own: &Project) -> Vec<IpAddr> {
        let others = self.list().into_iter().filter(|project| project.id != own.id);
        let addresses = others.filter_map(|project| project.sandbox.as_ref().and_then(|sandbox| sandbox.addresses));
        let each = |found: crate::Addresses| [Some(found.ipv4.into()), found.ipv6.map(Into::into)];
        addresses.take(NEIGHBOURS).flat_map(each).flatten().collect()
    }
}

fn guest(sandbox: &SandboxEntry) -> Option<machine::Guest> {
    match &sandbox.record {
        Some(SandboxRecord::Machine(record)) => {
            Some(machine::Guest { memory: record.memory, translated: record.translated })
        }
        _ => None,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::because(ErrorKind::TaskLost, error))?
}

async fn ask(agent: &Arc<Agent>, request: ProbeRequest) -> Result<ProbeReport, Error> {
    let refuse = |error: serde_json::Error| Error::because(ErrorKind::Agent, error).step("probe");
    let question = serde_json::to_vec(&request).map_err(refuse)?;
    let answer = agent.post("/garth/probe", question, WITHIN).await?;
    serde_json::from_slice(&answer).map_err(refuse)
}

/// Hands each check what came of its own tries. A report that is too short leaves the last ones with none.
fn judged(checks: &[Check], report: ProbeReport, subject: &Subject, host: &HostFacts) -> Vec<Checked> {
    let mut observed = report.observed.into_iter();
    let judged = checks.iter().map(|check| {
        let tried: Vec<_> = check.tries.iter().cloned().zip(observed.by_ref().take(check.tries.len())).collect();
        let verdict = match tried.len() == check.tries.len() {
            true => (check.judge)(&judge::Evidence { subject, host, tried: &tried }),
            false => Err("the sandbox did not say what came of it".to_owned()),
        };
        let passed = verdict.is_ok();
        let (Ok(evidence) | Err(evidence)) = verdict;
        Checked { id: check.id, what: check.what, passed, evidence: judge::printable(&evidence) }
    });
    judged.collect()
}

#[cfg(test)]
mod tests;
