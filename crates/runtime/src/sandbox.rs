use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use garth_spec::{Limits, SandboxId};
use serde::{Deserialize, Serialize};

use crate::Level;
use crate::cgroups::Usage;
use crate::error::{Doing, ErrorKind, Result};
use crate::handshake::{HeldNumbers, Identity};
use crate::ids::{Claim, FirstId};
use crate::recycler::{Job, Unmount};
use crate::sandboxes::{Shared, Swept, slot_of};
use crate::slots::{self, Ending, Keeper, Process, SOCKET, Slot};

/// What a later daemon needs to find a sandbox again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxRecord {
    /// Its init's id on the host.
    pub pid: i32,
    /// When that started, in clock ticks from boot.
    pub started: u64,
    /// Which boot.
    pub boot: String,
    /// Its cgroups' name.
    pub slot: String,
    /// The upper layers it writes to.
    pub uppers: Vec<PathBuf>,
    /// Where users are mapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped: Option<MappedRecord>,
}

/// What is recorded besides where users are mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedRecord {
    /// The user on the host that the sandbox's root is; the 65,535 after it are its too, and the groups of these numbers.
    pub first: FirstId,
    /// The keeper's id on the host.
    pub keeper: i32,
    /// When that started, in clock ticks from boot.
    pub keeper_started: u64,
    /// What a keeper in its place needs.
    pub(crate) held_by_keeper: HeldNumbers,
    /// The same, of the init.
    pub(crate) held_by_init: HeldNumbers,
    /// What the sandbox was told.
    pub(crate) identity: Identity,
}

impl MappedRecord {
    pub(crate) fn of(keeper: &Keeper, held_by_init: HeldNumbers) -> Self {
        Self {
            first: keeper.first,
            keeper: keeper.process.pid,
            keeper_started: keeper.started,
            held_by_keeper: keeper.held,
            held_by_init,
            identity: keeper.identity,
        }
    }
}

/// A running sandbox. Dropping it leaves the sandbox running.
#[derive(Debug)]
pub struct Sandbox {
    id: SandboxId,
    init: Process,
    started: u64,
    mounts: Option<OwnedFd>,
    slot: Arc<Mutex<Slot>>,
    uppers: Vec<PathBuf>,
    mapped: Option<MappedRecord>,
    shared: Arc<Shared>,
}

impl Sandbox {
    /// `slot` has an init that entered.
    pub(crate) fn new(id: SandboxId, mut slot: Slot, uppers: Vec<PathBuf>, shared: Arc<Shared>) -> Self {
        let init = slot.init.take().expect("a slot that entered has an init");
        let mapped = slot.keeper.as_ref().zip(init.held).map(|(keeper, held)| MappedRecord::of(keeper, held));
        let slot = Arc::new(Mutex::new(slot));
        shared.send(Job::Started(Arc::downgrade(&slot)));
        let (init, started, mounts) = (init.process, init.started, init.mounts);
        if let Some(record) = mapped {
            shared.watch_keeper(&slot, &init, record, shared.directory(id));
        }
        Self { id, init, started, mounts, slot, uppers, mapped, shared }
    }

    pub(crate) fn recovered(
        id: SandboxId,
        init: Process,
        record: &SandboxRecord,
        mapped: Option<(Option<Keeper>, Option<Claim>)>,
        shared: Arc<Shared>,
    ) -> Self {
        shared.adopt(id, &record.slot);
        let mounts = fs::File::open(format!("/proc/{}/ns/mnt", init.pid)).ok().map(Into::into);
        let (limits, base) = (Limits::default(), Usage::default());
        let level = if mapped.is_some() { Level::Sysbox } else { Level::Default };
        let (keeper, ids) = mapped.unwrap_or_default();
        let name = record.slot.clone();
        let slot = Slot { name, level, keeper, ids, spawner: None, init: None, limits, base };
        let (started, uppers, mapped) = (record.started, record.uppers.clone(), record.mapped);
        let slot = Arc::new(Mutex::new(slot));
        if let Some(record) = mapped {
            shared.watch_keeper(&slot, &init, record, shared.directory(id));
        }
        Self { id, init, started, mounts, slot, uppers, mapped, shared }
    }

    /// Its id.
    pub fn id(&self) -> SandboxId {
        self.id
    }

    /// What [`crate::Sandboxes::recover`] takes.
    pub fn record(&self) -> SandboxRecord {
        SandboxRecord {
            pid: self.init.pid,
            started: self.started,
            boot: self.shared.boot().to_owned(),
            slot: self.slot(|slot| slot.name.clone()),
            uppers: self.uppers.clone(),
            mapped: self.mapped,
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(crate) fn slot<T>(&self, read: impl FnOnce(&mut Slot) -> T) -> T {
        read(&mut self.slot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Readable once its init has ended, and with it every process of the sandbox.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.init.pidfd.as_fd()
    }

    /// The processes beside its init in a jail, as pidfds: what serves directories to it ([`Self::serve`]).
    pub fn servers(&self) -> Result<Vec<OwnedFd>> {
        let Some(slot) = self.slot(|slot| slot.is_jail().then(|| slot.name.clone())) else { return Ok(Vec::new()) };
        let members = || self.shared.cgroups.processes(&slot);
        let servers = handles(members).map(|all| all.into_iter().filter(|one| one.pid != self.init.pid));
        servers.map(|servers| servers.map(|one| one.pidfd).collect()).doing(|| format!("look into slot {slot}"))
    }

    /// Where the agent listens.
    pub fn agent_socket(&self) -> PathBuf {
        self.shared.directory(self.id).join(SOCKET)
    }

    /// Changes what it may use, at once. Memory cannot go below what is used.
    pub fn set_limits(&self, limits: &Limits) -> Result<()> {
        self.slot(|slot| {
            self.shared.cgroups.limit(&slot.name, limits).doing(|| "set the limits".to_owned())?;
            slot.limits = *limits;
            Ok(())
        })
    }

    /// Brings all its processes to rest, until [`Self::thaw`]; their memory stays. After an error they run.
    pub fn freeze(&self) -> Result<()> {
        self.slot(|slot| self.shared.cgroups.freeze(&slot.name, slot.level)).doing(|| format!("freeze {}", self.id))
    }

    /// Has its processes run again, if they do not.
    pub fn thaw(&self) -> Result<()> {
        self.slot(|slot| self.shared.cgroups.thaw(&slot.name, slot.level)).doing(|| format!("thaw {}", self.id))
    }

    /// What it uses.
    pub fn usage(&self) -> Result<Usage> {
        self.slot(|slot| {
            let now = self.shared.cgroups.usage(&slot.name).doing(|| "read the usage".to_owned())?;
            let base = slot.base;
            Ok(Usage {
                cpu_micros: now.cpu_micros.saturating_sub(base.cpu_micros),
                oom_kills: now.oom_kills.saturating_sub(base.oom_kills),
                // A slot's base counts the one process that is there without a sandbox, the spawner.
                pids: now.pids.saturating_sub(base.pids),
                ..now
            })
        })
    }

    /// How it ended, once its init has. After [`Self::destroy`] nobody can tell.
    pub fn ending(&self) -> Ending {
        self.slot(|slot| slot.keeper.as_ref().map_or(Ending::Unknown, Keeper::last_word))
    }

    /// Ends every process in it and returns when they are gone. What else there is of it ends right after, and a start
    /// on the same disk waits for that.
    pub fn destroy(self) -> Result<()> {
        self.init.end().doing(|| format!("end the sandbox {}", self.id))?;
        self.slot(|slot| slot.end_keeper()).doing(|| format!("end the keeper of the sandbox {}", self.id))?;
        // A program in a jail may have others beside it.
        if let Some(slot) = self.slot(|slot| slot.is_jail().then(|| slot.name.clone())) {
            end_all(&self.shared, &slot).doing(|| format!("end what is in slot {slot}"))?;
        }
        let Self { id, mounts, slot, uppers, shared, .. } = self;
        shared.layers.end(&uppers);
        shared.unmount(Unmount::Namespace(mounts, uppers));
        if let Some(slot) = Arc::into_inner(slot) {
            shared.send(Job::Used(slot.into_inner().unwrap_or_else(PoisonError::into_inner)));
        }
        remove_directory(&shared.directory(id)).doing(|| "remove the sandbox's directory".to_owned())?;
        shared.forget_live(id);
        Ok(())
    }
}

pub(crate) fn remove_directory(directory: &std::path::Path) -> std::io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// See [`crate::Sandboxes::sweep`].
pub(crate) fn sweep(shared: &Shared, keep: &[SandboxId]) -> Result<Swept> {
    let kept: Vec<String> = keep.iter().filter_map(|id| slot_of(&shared.directory(*id))).collect();
    let mut swept = Swept::default();
    for slot in shared.cgroups.slots().doing(|| "list the slots".to_owned())? {
        if shared.is_known(&slot) || kept.contains(&slot) {
            continue;
        }
        swept.processes += end_all(shared, &slot).doing(|| format!("end what is in slot {slot}"))?;
        slots::remove_patiently(&shared.cgroups, &slot);
        swept.slots += 1;
    }
    let (containers, processes) = crate::oci::sweep(shared, keep)?;
    swept.slots += containers;
    swept.processes += processes;
    swept.directories = sweep_directories(shared, keep).doing(|| "sweep the run directory".to_owned())?;
    Ok(swept)
}

/// SIGKILL to every process in the slot, until there is none: a spawner of a dead daemon, inits, what inits started.
fn end_all(shared: &Shared, slot: &str) -> std::result::Result<usize, ErrorKind> {
    end_members(|| shared.cgroups.processes(slot))
}

/// The same for whatever `members` lists.
pub(crate) fn end_members(members: impl Fn() -> std::io::Result<Vec<i32>>) -> std::result::Result<usize, ErrorKind> {
    let mut ended = 0;
    while !members()?.is_empty() {
        for process in handles(&members)? {
            process.end()?;
            ended += 1;
        }
    }
    Ok(ended)
}

/// Whatever `members` lists, by handles that name nobody else.
fn handles(members: impl Fn() -> std::io::Result<Vec<i32>>) -> std::result::Result<Vec<Process>, ErrorKind> {
    let mut found = Vec::new();
    for pid in members()? {
        let Some(handle) = rustix::process::Pid::from_raw(pid) else { continue };
        let Ok(pidfd) = rustix::process::pidfd_open(handle, rustix::process::PidfdFlags::empty()) else { continue };
        // Its id could be another's since the list was read; a member now is the one that the descriptor names.
        if members()?.contains(&pid) {
            found.push(Process { pid, pidfd });
        }
    }
    Ok(found)
}

fn sweep_directories(shared: &Shared, keep: &[SandboxId]) -> std::io::Result<usize> {
    let mut count = 0;
    for entry in fs::read_dir(shared.run_dir())? {
        let entry = entry?;
        let name = entry.file_name().into_string().unwrap_or_default();
        let stays = match (name.parse::<SandboxId>(), name.strip_prefix(".warm-")) {
            (Ok(id), _) => keep.contains(&id) || shared.is_live(id),
            (_, Some(slot)) => shared.is_known(slot),
            _ => true,
        };
        if !stays {
            remove_directory(&entry.path())?;
            count += 1;
        }
    }
    Ok(count)
}
