//! Whether a sandbox's boundary holds: the checks of each level, and what the kernel and this daemon say of the sandbox. That
//! is trusted; what comes out of the sandbox is not ([`garth_verify`]).

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

use garth_spec::{Limits, Network, ProbeReport, ProbeRequest, ProjectName, StartPolicy, Volume};
use garth_verify::{Verification, judged, question};
use jiff::Timestamp;

use crate::agent::Agent;
use crate::engine::Engine;
use crate::error::{Error, ErrorKind};
use crate::local::SandboxRecord;
use crate::project::{Project, SandboxEntry};
use crate::queue::Request;
use host::HostFacts;
use level::Level;
use listeners::Listeners;

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

/// What a check is judged by, beside its tries.
#[derive(Debug)]
struct Facts {
    subject: Subject,
    host: HostFacts,
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
        let report = ask(&agent, question(&checks)).await?;
        let after = self.inspect(name).await?;
        if after.project.sandbox.as_ref().map(|entry| entry.id) != Some(sandbox.id) {
            // What the host would look at now is another sandbox, or none.
            return Err(ErrorKind::NotRunning(name.clone()).into());
        }
        let facts = blocking(move || {
            let host = HostFacts::read(&subject, listeners, &before, &after)?;
            Ok(Facts { subject, host })
        });
        let verification = Verification {
            runtime: sandbox.runtime,
            handler: Some(sandbox.handler),
            at: Timestamp::now(),
            checks: judged(&checks, report, &facts.await?),
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

#[cfg(test)]
mod tests;
