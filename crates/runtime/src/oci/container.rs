use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use garth_spec::{Limits, SandboxId};
use serde::{Deserialize, Serialize};

use super::bundle;
use super::holder::Holder;
use super::program::Places;
use crate::cgroups::Usage;
use crate::error::{Doing, ErrorKind, Result};
use crate::ids::{Claim, FirstId};
use crate::recycler::Unmount;
use crate::sandbox::remove_directory;
use crate::sandboxes::{Shared, slot_of};
use crate::slots::{Process, SOCKET};

/// What a later daemon needs to find a container again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerRecord {
    /// Its init's id on the host.
    pub pid: i32,
    /// When that started, in clock ticks from boot.
    pub started: u64,
    /// Which boot.
    pub boot: String,
    /// What the OCI runtime calls it.
    pub name: String,
    /// The upper layers it writes to.
    pub uppers: Vec<PathBuf>,
    /// The user on the host that its root is; the 65,535 after it are its too.
    pub first: FirstId,
    /// The process that holds its namespaces.
    pub holder: i32,
    /// When that started, in clock ticks from boot.
    pub holder_started: u64,
}

/// A running sandbox that an OCI runtime made. Dropping it leaves the sandbox running.
#[derive(Debug)]
pub struct Container {
    id: SandboxId,
    init: Process,
    record: ContainerRecord,
    mounts: Option<OwnedFd>,
    kept: Kept,
    shared: Arc<Shared>,
}

/// What keeps its namespaces and ids.
#[derive(Debug)]
enum Kept {
    Ours(Holder),
    /// Of an earlier daemon; the claim is ours where the holder is gone.
    Found {
        holder: Option<Process>,
        _claim: Option<Claim>,
    },
}

/// What the runtime calls a sandbox: its names are the whole machine's.
pub(super) fn name_of(tag: &str, id: SandboxId) -> String {
    format!("garth-{tag}-{id}")
}

impl Container {
    pub(super) fn new(
        id: SandboxId,
        init: Process,
        started: u64,
        holder: Holder,
        uppers: Vec<PathBuf>,
        shared: Arc<Shared>,
    ) -> Self {
        let record = ContainerRecord {
            pid: init.pid,
            started,
            boot: shared.boot().to_owned(),
            name: name_of(shared.tag(), id),
            uppers,
            first: holder.claim.first,
            holder: holder.process.pid,
            holder_started: holder.started,
        };
        let mounts = mounts_of(&init);
        Self { id, init, record, mounts, kept: Kept::Ours(holder), shared }
    }

    /// One that an earlier daemon started. `None` when it is gone, or someone else has its ids.
    pub(crate) fn recover(id: SandboxId, record: &ContainerRecord, shared: Arc<Shared>) -> Result<Option<Self>> {
        if record.boot != shared.boot() {
            return Ok(None);
        }
        let Some(init) = Process::find(record.pid, record.started) else { return Ok(None) };
        let holder = Process::find(record.holder, record.holder_started);
        let claim = shared.claim_ids_again(record.first)?;
        if holder.is_none() && claim.is_none() {
            return Ok(None);
        }
        shared.adopt(id, &record.name);
        shared.layers.adopt(&record.uppers);
        let mounts = mounts_of(&init);
        let kept = Kept::Found { holder, _claim: claim };
        Ok(Some(Self { id, init, record: record.clone(), mounts, kept, shared }))
    }

    /// Its id.
    pub fn id(&self) -> SandboxId {
        self.id
    }

    /// What [`crate::Sandboxes::recover_container`] takes.
    pub fn record(&self) -> ContainerRecord {
        self.record.clone()
    }

    /// Readable once its init has ended, and with it every process of the sandbox.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.init.pidfd.as_fd()
    }

    /// Where the agent listens.
    pub fn agent_socket(&self) -> PathBuf {
        self.shared.directory(self.id).join(SOCKET)
    }

    /// Changes what it may use, at once. Memory cannot go below what is used.
    pub fn set_limits(&self, limits: &Limits) -> Result<()> {
        let log = self.shared.directory(self.id).join("log");
        let text = bundle::limits(limits).to_string();
        let told = self.shared.program().tell(&log, &["update", "--resources", "-", &self.record.name], &text);
        let more = || self.shared.places.usage(&self.record.name).is_ok_and(|now| now.memory > limits.memory.bytes());
        let told = told.map_err(|kind| if more() { ErrorKind::InUse } else { kind });
        told.doing(|| "set the limits".to_owned())
    }

    /// Brings all its processes to rest, until [`Self::thaw`]; their memory stays. After an error they run.
    pub fn freeze(&self) -> Result<()> {
        self.tell_runtime("pause").doing(|| format!("freeze {}", self.id))
    }

    /// Has its processes run again, if they do not.
    pub fn thaw(&self) -> Result<()> {
        match self.tell_runtime("resume") {
            // A runtime refuses to resume what runs.
            Err(ErrorKind::OciRuntime { .. }) => Ok(()),
            told => told.doing(|| format!("thaw {}", self.id)),
        }
    }

    fn tell_runtime(&self, word: &str) -> std::result::Result<(), ErrorKind> {
        let log = self.shared.directory(self.id).join("log");
        self.shared.program().call(&log, &[word, &self.record.name], Places::none())
    }

    /// What it uses.
    pub fn usage(&self) -> Result<Usage> {
        self.shared.places.usage(&self.record.name).doing(|| "read the usage".to_owned())
    }

    /// Ends every process in it and returns when they are gone, and the runtime has let go of it.
    pub fn destroy(self) -> Result<()> {
        // What is frozen does not end.
        let _ = self.thaw();
        let Self { id, init, record, mounts, kept, shared } = self;
        init.end().doing(|| format!("end the sandbox {id}"))?;
        let directory = shared.directory(id);
        delete(&shared, &record.name, &directory.join("log"))
            .doing(|| format!("delete the container {}", record.name))?;
        let ended = match kept {
            Kept::Ours(holder) => holder.end(),
            Kept::Found { holder, .. } => holder.map_or(Ok(()), |holder| holder.end()),
        };
        ended.doing(|| format!("end the holder of the sandbox {id}"))?;
        shared.layers.end(&record.uppers);
        shared.unmount(Unmount::Namespace(mounts, record.uppers));
        remove_directory(&directory).doing(|| "remove the sandbox's directory".to_owned())?;
        shared.forget_live(id);
        Ok(())
    }
}

fn mounts_of(init: &Process) -> Option<OwnedFd> {
    fs::File::open(format!("/proc/{}/ns/mnt", init.pid)).ok().map(Into::into)
}

/// Has the runtime forget a container whose processes are gone, and removes what it leaves.
fn delete(shared: &Shared, name: &str, log: &std::path::Path) -> std::result::Result<(), ErrorKind> {
    let program = shared.program();
    if program.state.join(name).exists() {
        program.call(log, &["delete", "--force", name], Places::none())?;
    }
    Ok(shared.places.remove(name)?)
}

/// Ends what earlier daemons left, as [`crate::Sandboxes::sweep`]; how many containers and processes that were.
pub(crate) fn sweep(shared: &Shared, keep: &[SandboxId]) -> Result<(usize, usize)> {
    let kept: Vec<String> = keep.iter().filter_map(|id| slot_of(&shared.directory(*id))).collect();
    let mut names = shared.places.containers().doing(|| "list the containers' cgroups".to_owned())?;
    let known = fs::read_dir(shared.program().state).into_iter().flatten().flatten();
    names.extend(known.filter_map(|entry| entry.file_name().into_string().ok()));
    names.sort();
    names.dedup();
    let (mut containers, mut processes) = (0, 0);
    for name in names.iter().filter(|name| !shared.is_known(name) && !kept.contains(name)) {
        let doing = || format!("end the container {name}");
        processes += end_all(shared, name).doing(doing)?;
        let log = shared.run_dir().join(format!(".{name}.log"));
        let deleted = delete(shared, name, &log);
        let _ = fs::remove_file(log);
        deleted.doing(doing)?;
        containers += 1;
    }
    Ok((containers, processes))
}

/// SIGKILL to every process in a container's cgroups; how many there were.
pub(super) fn end_all(shared: &Shared, name: &str) -> std::result::Result<usize, ErrorKind> {
    crate::sandbox::end_members(|| shared.places.processes(name))
}
