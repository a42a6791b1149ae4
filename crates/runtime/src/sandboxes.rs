use std::collections::HashSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use garth_spec::SandboxId;

use crate::cgroups::{BlockDevice, Cgroups};
use crate::disk::{self, Disk, Layers, Owners};
use crate::error::{Doing, Error, ErrorKind, Result};
use crate::handshake::Order;
use crate::ids::IdRanges;
use crate::keepers::{self, Keepers};
use crate::oci::{self, Container, ContainerRecord, OciRuntime, PreparedContainer};
use crate::prepared::Prepared;
use crate::recycler::{self, Job, Unmount};
use crate::sandbox::{Sandbox, SandboxRecord};
use crate::slots::{self, Process, SLOT, SOCKET, Slot, Spawner};
use crate::{AgentBinary, Level, SandboxPlan};

mod mapped;

/// What [`Sandboxes`] need to know.
#[derive(Debug)]
pub struct SandboxesConfig {
    /// One directory per running sandbox is made here; short enough for a socket's path (107 bytes in all).
    pub run_dir: PathBuf,
    /// Unique per data directory: part of the names of cgroups.
    pub tag: String,
    /// The program that sandboxes run.
    pub agent: AgentBinary,
    /// What makes containers, where those are asked for.
    pub oci: OciRuntime,
}

/// What [`Sandboxes::sweep`] found and removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Slots of sandboxes or daemons that are gone.
    pub slots: usize,
    /// Processes that were still in them.
    pub processes: usize,
    /// Directories of sandboxes that are gone.
    pub directories: usize,
}

/// All sandboxes of one daemon. Its end leaves the running ones alone.
#[derive(Debug)]
pub struct Sandboxes {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Slots ready at any time: two, so that one can be made ready while the other is used.
const WARM: usize = 2;

/// Numbers the slots of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

#[derive(Debug)]
pub(crate) struct Shared {
    run_dir: PathBuf,
    tag: String,
    pub(crate) agent: AgentBinary,
    oci: OciRuntime,
    pub(crate) places: oci::Places,
    pub(crate) cgroups: Cgroups,
    pub(crate) layers: Layers,
    jobs: Mutex<Sender<Job>>,
    unmounts: Mutex<Sender<Unmount>>,
    roots: Mutex<Roots>,
    pub(crate) keepers: Keepers,
    ids: IdRanges,
    slots: Mutex<Slots>,
    boot: String,
}

/// The spawner that all others of a level are forked from.
#[derive(Debug, Default)]
struct Roots {
    default: Option<Spawner>,
    mapped: Option<Spawner>,
}

impl Roots {
    fn of(&mut self, level: Level) -> &mut Option<Spawner> {
        match level {
            Level::Default => &mut self.default,
            Level::Sysbox => &mut self.mapped,
        }
    }
}

#[derive(Debug, Default)]
struct Slots {
    warm: Vec<Slot>,
    /// Slots without an init; of mapped users there are none: those are used once.
    idle: Vec<Slot>,
    /// Whether a sandbox of mapped users was asked for: some are kept ready from then on.
    mapped_wanted: bool,
    /// Names of all slots of this daemon, the used ones too.
    known: HashSet<String>,
    /// Sandboxes with a handle.
    live: HashSet<SandboxId>,
}

impl Sandboxes {
    /// Makes the cgroups' parents and the run directory, and begins to warm slots. Needs root.
    pub fn open(config: SandboxesConfig) -> Result<Self> {
        slots::check_policy().doing(|| "read the boundary's rules".to_owned())?;
        fs::create_dir_all(&config.run_dir).doing(|| format!("make {}", config.run_dir.display()))?;
        let longest = config.run_dir.join("0123456789abcdef").join(SOCKET);
        if longest.as_os_str().len() > 107 {
            return Err(Error { doing: "prepare sandboxes".to_owned(), kind: ErrorKind::SocketPath(longest) });
        }
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").doing(|| "read the boot id".to_owned())?;
        let (sender, jobs) = mpsc::channel();
        let (unmounts, mounts) = mpsc::channel();
        let shared = Arc::new(Shared {
            run_dir: config.run_dir,
            agent: config.agent,
            oci: config.oci,
            places: oci::Places::find(&config.tag)?,
            cgroups: Cgroups::open(&config.tag)?,
            tag: config.tag,
            layers: Layers::default(),
            jobs: Mutex::new(sender),
            unmounts: Mutex::new(unmounts),
            roots: Mutex::default(),
            keepers: Keepers::new().doing(|| "prepare to watch keepers".to_owned())?,
            ids: IdRanges::read().doing(|| "read the machine's user ids".to_owned())?,
            slots: Mutex::default(),
            boot: boot.trim().to_owned(),
        });
        let threads = vec![
            thread("garth-recycler", &shared, move |shared| recycler::recycle(shared, &jobs))?,
            thread("garth-keepers", &shared, keepers::run)?,
            thread("garth-unmounter", &shared, move |shared| recycler::unmount(shared, &mounts))?,
        ];
        shared.send(Job::Refill);
        Ok(Self { shared, threads })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Takes what a sandbox of this level will run in, made ahead where there is one.
    pub fn prepare(&self, level: Level) -> Result<Prepared> {
        if level == Level::Sysbox {
            self.shared.slots().mapped_wanted = true;
        }
        let slot = self.shared.take(level)?;
        Ok(Prepared::new(slot, Arc::clone(&self.shared)))
    }

    /// Starts a sandbox of the default level in `netns`, its configured network namespace; one with loopback alone is
    /// made when there is none. Else as [`Prepared::start`].
    pub fn start(&self, id: SandboxId, plan: &SandboxPlan, netns: Option<OwnedFd>) -> Result<Sandbox> {
        plan.check().doing(|| "carry out the plan".to_owned())?;
        let netns = match netns {
            Some(netns) => netns,
            None => garth_kernel::netns::with_loopback(open_ports).doing(|| "make a network namespace".to_owned())?,
        };
        self.prepare(Level::Default)?.enter(id, plan, Some(&netns))
    }

    /// Makes what a sandbox of the OCI runtime will run in.
    pub fn prepare_container(&self) -> Result<PreparedContainer> {
        PreparedContainer::new(Arc::clone(&self.shared))
    }

    /// As [`Sandboxes::recover`], of a sandbox that the OCI runtime made.
    pub fn recover_container(&self, id: SandboxId, record: &ContainerRecord) -> Result<Option<Container>> {
        Container::recover(id, record, Arc::clone(&self.shared))
    }

    /// Tells what the disks of sandboxes are on: without it none is held to a rate of its disk.
    pub fn set_disks(&self, device: Option<BlockDevice>) {
        self.shared.cgroups.set_disks(device);
    }

    /// Whether a sandbox can be held to a rate of its disk.
    ///
    /// # Errors
    /// [`ErrorKind::NoDiskRate`], with what is missing.
    pub fn check_disk_rate(&self) -> Result<()> {
        self.shared.cgroups.check_disk_rate().doing(|| "look at the cgroups".to_owned())
    }

    /// Finds a sandbox that an earlier daemon started. `None` when it is gone.
    pub fn recover(&self, id: SandboxId, record: &SandboxRecord) -> Result<Option<Sandbox>> {
        if record.boot != self.shared.boot {
            return Ok(None);
        }
        let Some(process) = Process::find(record.pid, record.started) else { return Ok(None) };
        let mapped = record.mapped.map(|mapped| keepers::newest(&self.shared.directory(id), mapped));
        let mapped = match &mapped {
            Some(mapped) => match self.shared.recover_mapped(&record.slot, &process, mapped)? {
                Some(found) => Some(found),
                None => return Ok(None),
            },
            None => None,
        };
        self.shared.layers.adopt(&record.uppers);
        Ok(Some(Sandbox::recovered(id, process, record, mapped, Arc::clone(&self.shared))))
    }

    /// Ends what earlier daemons left: every slot and directory that belongs neither to a [`Sandbox`] of now nor to one
    /// of `keep`. Recover first.
    pub fn sweep(&self, keep: &[SandboxId]) -> Result<Swept> {
        crate::sandbox::sweep(&self.shared, keep)
    }

    /// Waits until everything of the sandboxes that were destroyed is gone, their mounts too: before a disk or its file
    /// system is unmounted or replaced.
    pub fn settle(&self) {
        let (sender, done) = mpsc::sync_channel(1);
        self.shared.send(Job::Settle(sender.clone()));
        let _ = done.recv();
        self.shared.unmount(Unmount::Settle(sender));
        let _ = done.recv();
    }
}

fn thread(name: &str, shared: &Arc<Shared>, work: impl FnOnce(&Shared) + Send + 'static) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(shared);
    let builder = std::thread::Builder::new().name(name.to_owned());
    builder.spawn(move || work(&shared)).doing(|| format!("start the thread {name}"))
}

/// In a network namespace of its own, any group may ping and any user may bind a low port.
fn open_ports() -> std::io::Result<()> {
    fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")?;
    fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0")
}

impl Drop for Sandboxes {
    fn drop(&mut self) {
        self.shared.send(Job::Quit);
        self.shared.unmount(Unmount::Quit);
        // Without a descriptor to wake it by, the thread would be waited for in vain.
        if self.shared.keepers.quit().is_err() {
            return;
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        let (warm, idle) = {
            let mut slots = self.shared.slots();
            (std::mem::take(&mut slots.warm), std::mem::take(&mut slots.idle))
        };
        warm.into_iter().chain(idle).for_each(|slot| self.shared.retire(slot));
        let roots = std::mem::take(&mut *self.shared.roots());
        [roots.default, roots.mapped].into_iter().flatten().for_each(slots::reap);
        self.shared.cgroups.close();
        self.shared.places.close();
        // Empty once no container is left; else it stays.
        let _ = fs::remove_dir(self.shared.program().state);
    }
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn roots(&self) -> MutexGuard<'_, Roots> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn send(&self, job: Job) {
        // The recycler ends only with `Sandboxes`, after which the kernel's and the next daemon's sweep do its work.
        let _ = self.jobs.lock().unwrap_or_else(PoisonError::into_inner).send(job);
    }

    pub(crate) fn unmount(&self, job: Unmount) {
        let _ = self.unmounts.lock().unwrap_or_else(PoisonError::into_inner).send(job);
    }

    pub(crate) fn directory(&self, id: SandboxId) -> PathBuf {
        self.run_dir.join(id.to_string())
    }

    pub(crate) fn run_dir(&self) -> &std::path::Path {
        &self.run_dir
    }

    pub(crate) fn tag(&self) -> &str {
        &self.tag
    }

    /// The OCI runtime's program, with the state that it keeps for this data directory.
    pub(crate) fn program(&self) -> oci::Program {
        oci::Program { program: self.oci.program.clone(), state: self.run_dir.join(".oci") }
    }

    pub(crate) fn boot(&self) -> &str {
        &self.boot
    }

    pub(crate) fn is_known(&self, slot: &str) -> bool {
        self.slots().known.contains(slot)
    }

    pub(crate) fn is_live(&self, id: SandboxId) -> bool {
        self.slots().live.contains(&id)
    }

    pub(crate) fn adopt(&self, id: SandboxId, slot: &str) {
        let mut slots = self.slots();
        slots.live.insert(id);
        slots.known.insert(slot.to_owned());
    }

    pub(crate) fn forget_live(&self, id: SandboxId) {
        self.slots().live.remove(&id);
    }

    /// A warm slot: a ready one, or one made now.
    fn take(&self, level: Level) -> Result<Slot> {
        loop {
            let (warm, idle) = {
                let mut slots = self.slots();
                match slots.take_warm(level) {
                    Some(slot) => (Some(slot), None),
                    None => (None, slots.take_idle(level)),
                }
            };
            match (warm, idle) {
                (Some(slot), _) if slot.is_ready() => return Ok(slot),
                // Something ended its processes: whoever may, may.
                (Some(slot), _) => self.retire(slot),
                (None, Some(slot)) => match self.warm(slot) {
                    Ok(slot) => return Ok(slot),
                    Err(_) => continue,
                },
                (None, None) => return self.create(level).and_then(|slot| self.warm(slot)),
            }
        }
    }

    /// A slot whose init cannot be made is of no use: it goes.
    fn warm(&self, mut slot: Slot) -> Result<Slot> {
        match slot.warm(&self.cgroups, &self.run_dir) {
            Ok(()) => Ok(slot),
            Err(e) => {
                self.retire(slot);
                Err(e)
            }
        }
    }

    /// A name for a slot, which is this daemon's from now on.
    pub(crate) fn name_slot(&self) -> String {
        let name = format!("{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        self.slots().known.insert(name.clone());
        name
    }

    fn create(&self, level: Level) -> Result<Slot> {
        let ids = match level {
            Level::Default => None,
            Level::Sysbox => Some(self.claim_ids()?),
        };
        let name = self.name_slot();
        let mut roots = self.roots();
        let spawner = self.root(&mut roots, level)?;
        Slot::create(spawner, &self.cgroups, name, ids)
    }

    /// The spawner of a level that all others are forked from: the one there is, or a new one.
    fn root<'a>(&self, roots: &'a mut Roots, level: Level) -> Result<&'a Spawner> {
        let root = roots.of(level);
        if let Some(dead) = root.take_if(|root| !root.is_alive()) {
            slots::reap(dead);
        }
        match root {
            Some(root) => Ok(root),
            None => Ok(root.insert(Spawner::start(&self.agent, &self.cgroups, level)?)),
        }
    }

    /// Makes a warm slot the sandbox. The init joins its network while the disk is mounted here.
    pub(crate) fn enter(
        &self,
        slot: &mut Slot,
        id: SandboxId,
        plan: &SandboxPlan,
        netns: Option<&OwnedFd>,
    ) -> Result<()> {
        if slot.limits != plan.limits {
            self.cgroups.limit(&slot.name, &plan.limits).doing(|| "set the limits".to_owned())?;
            slot.limits = plan.limits;
        }
        let init = slot.init.as_mut().ok_or(ErrorKind::Spawner).doing(|| "start the sandbox".to_owned())?;
        let directory = self.directory(id);
        match rustix::fs::rename(&init.directory, &directory) {
            Err(rustix::io::Errno::NOTEMPTY | rustix::io::Errno::EXIST) => Err(ErrorKind::Exists),
            result => result.map_err(Into::into),
        }
        .doing(|| format!("make {}", directory.display()))?;
        init.directory = directory;
        init.order(&Order::of(plan), netns.map(AsFd::as_fd)).doing(|| "give the sandbox its order".to_owned())?;
        let owners = match &slot.keeper {
            Some(keeper) => Owners::Mapped { users: keeper.users.as_fd(), first: keeper.first },
            None => Owners::AsStored,
        };
        let disk = Disk::open(plan, &self.layers, owners)?;
        let born = slot.keeper.as_mut().map_or(Ok(()), |keeper| init.born(keeper, plan.machine));
        let entered = born.and_then(|()| init.enter(&disk.fds())).and_then(|()| init.hold_mounts());
        // From here on the sandbox alone holds its mounts.
        drop(disk);
        entered.doing(|| "start the sandbox".to_owned()).inspect_err(|_| self.layers.end(&disk::uppers(plan)))?;
        self.adopt(id, &slot.name);
        Ok(())
    }

    pub(crate) fn abandon(&self, mut slot: Slot, plan: &SandboxPlan) {
        let mounts = slot.init.take().and_then(slots::Init::discard);
        self.unmount(Unmount::Namespace(mounts, disk::uppers(plan)));
        self.send(Job::Used(slot));
    }

    /// Makes slots until enough are warm. An error here shows again, to someone, at the next start.
    pub(crate) fn refill(&self) {
        self.refill_level(Level::Default);
        if self.slots().mapped_wanted {
            self.refill_level(Level::Sysbox);
        }
    }

    fn refill_level(&self, level: Level) {
        while self.slots().warm.iter().filter(|slot| slot.level == level).count() < WARM {
            let idle = self.slots().take_idle(level);
            let slot = match idle {
                Some(slot) => Ok(slot),
                None => self.create(level),
            };
            match slot.and_then(|slot| self.warm(slot)) {
                Ok(slot) => self.slots().warm.push(slot),
                Err(_) => return,
            }
        }
    }

    /// Makes a used slot like new.
    pub(crate) fn reset(&self, slot: &mut Slot) {
        // A sandbox that was destroyed at rest leaves its cgroup so.
        let _ = self.cgroups.thaw(&slot.name, slot.level);
        self.cgroups.forget(&slot.name);
        slot.base = self.cgroups.usage(&slot.name).unwrap_or_default();
    }

    pub(crate) fn idle(&self) -> usize {
        self.slots().idle.len()
    }

    pub(crate) fn keep(&self, slot: Slot) {
        self.slots().idle.push(slot);
    }

    pub(crate) fn take_idle(&self) -> Vec<Slot> {
        std::mem::take(&mut self.slots().idle)
    }

    pub(crate) fn retire(&self, slot: Slot) {
        let name = slot.name.clone();
        slot.retire(&self.cgroups);
        self.slots().known.remove(&name);
    }
}

impl Slots {
    fn take_warm(&mut self, level: Level) -> Option<Slot> {
        let at = self.warm.iter().rposition(|slot| slot.level == level)?;
        Some(self.warm.remove(at))
    }

    fn take_idle(&mut self, level: Level) -> Option<Slot> {
        let at = self.idle.iter().rposition(|slot| slot.level == level)?;
        Some(self.idle.remove(at))
    }
}

/// The slot that the directory of a sandbox names.
pub(crate) fn slot_of(directory: &std::path::Path) -> Option<String> {
    fs::read_link(directory.join(SLOT)).ok()?.into_os_string().into_string().ok()
}
