//! Sandboxes with a kernel of their own: a project's disk in guest form, a machine in a jail, the agent in it.

use std::os::unix::fs::DirBuilderExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use garth_runtime::Sandboxes;
use garth_spec::{
    ByteSize, GuestAgain, GuestBegin, GuestBegun, GuestDisk as BlockDisk, GuestFilesystem, GuestLimits, GuestNetwork,
    Handler, Hex, Limits, MacAddress, Prefixed,
};
use garth_storage::GuestDisk;
use garth_vm::{
    Accelerator, Begin, ChannelAddress, Control, Drive, DriveAccess, DriveRate, Machine, Nic, Place, Saved, Snapshot,
    Template, Vmm,
};
use serde::{Deserialize, Serialize};

use super::failure::Explain as _;
use super::launch::{Site, Started, launch};
use super::sandbox::{HostSandbox, Running};
use super::{Host, order, rates, shares};
use crate::agent::Agent;
use crate::doctor::microvm;
use crate::error::{Error, ErrorKind};
use crate::local::{Live, Order, SandboxRecord};
use crate::project::Project;

/// Below this no distribution's kernel gets to its first program.
const LEAST_MEMORY: ByteSize = ByteSize::mib(128);
/// What the program may use beside the guest's memory, and what QEMU's translator needs more.
const OVERHEAD: u64 = 128 << 20;
const TRANSLATOR: u64 = 128 << 20;
/// What a guest keeps above the limit of its processes: its kernel has some of it, and they are to meet their limit before
/// the kernel has to take back what it gave.
const SPARE: u64 = 96 << 20;
/// Its threads; of the guest's processes the host sees nothing.
const THREADS: u32 = 128;
/// How long a kernel may take to boot: seconds, but a translated one on a busy machine many.
const BOOT: Duration = Duration::from_secs(120);
/// How long a guest may take to mount its disk, or to write it out.
pub(super) const DISK: Duration = Duration::from_secs(60);
const ROOT: &str = "root";
const USR: &str = "usr";

/// How a restarted daemon finds a machine again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct MachineRecord {
    pub(crate) sandbox: garth_runtime::SandboxRecord,
    pub(crate) handler: Handler,
    /// What it was started with.
    pub(crate) memory: ByteSize,
    pub(crate) vcpus: u32,
    /// The interface's address then: a snapshot's machine has it, whatever the guest has set since.
    pub(crate) mac: Option<[u8; 6]>,
    pub(crate) translated: bool,
    /// How many directories it is served.
    #[serde(default)]
    pub(crate) shares: usize,
}

impl MachineRecord {
    fn own(&self) -> u64 {
        own(if self.translated { Accelerator::Tcg } else { Accelerator::Kvm }, self.shares)
    }

    /// A machine of now, shaped as this one was: what has been asked for since does not fit its memory.
    fn as_it_was(&self, machine: Machine) -> Machine {
        let nic = self.mac.map(|mac| Nic { mac });
        Machine { memory: self.memory, vcpus: self.vcpus, nic, shares: Vec::new(), ..machine }
    }
}

/// A machine that runs in its jail.
#[derive(Debug)]
pub(crate) struct Guest {
    pub(super) sandbox: garth_runtime::Sandbox,
    pub(super) record: MachineRecord,
    pub(super) vmm: Vmm,
    pub(super) place: Place,
}

impl Guest {
    /// One that an earlier daemon started.
    pub(super) fn of(
        sandbox: garth_runtime::Sandbox,
        record: &MachineRecord,
        directory: std::path::PathBuf,
    ) -> Result<Self, Error> {
        let vmm = Vmm::find(record.handler).explain()?;
        let place = Place { own: directory.join("own"), host: directory };
        Ok(Self { sandbox, record: record.clone(), vmm, place })
    }

    pub(super) fn channel(&self) -> ChannelAddress {
        self.vmm.channel(&self.place)
    }

    pub(super) fn control(&self) -> Result<Control, Error> {
        self.vmm.control(&self.place).explain()
    }

    /// Processors at once; memory within what the machine was started with. Less of it holds for the processes inside at
    /// once, and comes back to the host as far as the guest gives it.
    pub(super) fn set_limits(&self, limits: &Limits, agent: &Arc<Agent>) -> Result<(), Error> {
        self.sandbox.set_limits(&outer(limits, self.record.memory, self.record.own())?).explain()?;
        let left = limits.memory.bytes().saturating_add(SPARE).min(self.record.memory.bytes());
        let left = ByteSize::from_bytes(left).map_err(|error| Error::because(ErrorKind::Start, error))?;
        self.control()?.set_drive_rate(ROOT, rates::of_drive(limits)).explain()?;
        let balloon = || self.control()?.balloon(self.record.memory, left).explain();
        let inside = || tell_limits(agent, &inner(limits));
        // The balloon takes memory from a guest that is held to less by then, and gives it to one that is not yet.
        if limits.memory < self.record.memory {
            inside().and_then(|()| balloon())
        } else {
            balloon().and_then(|()| inside())
        }
    }
}

impl Host {
    pub(super) fn site<'a>(&'a self, sandboxes: &'a Sandboxes) -> Site<'a> {
        Site { sandboxes, hidden: &self.data_dir }
    }

    /// Starts a project's machine on its disk. The image's /usr alone is to be seen at `usr_alone_at`, too.
    pub(super) fn start_machine(
        &self,
        mut order: Order<'_>,
        handler: Handler,
        disk: &GuestDisk,
        usr_alone_at: Option<&str>,
    ) -> Result<Live, Error> {
        let mut tap = order.lease.tap.take();
        let nic = order.lease.link.map(|link| Nic { mac: link.mac });
        let machine = Machine { nic, ..self.machine(order.project, handler, disk)? };
        let begin = || {
            let begin = begin(&order, usr_disk(&machine), order.lease.link)?;
            Ok(GuestBegin { usr_alone_at: usr_alone_at.map(str::to_owned), ..begin })
        };
        disk.forget_memory().explain()?;
        let template = Template::of(&Vmm::find(handler).explain()?, &machine).explain()?;
        let warm =
            template.as_ref().and_then(|found| self.start_warm(&order, &mut tap, handler, &machine, found, &begin));
        let unwarmed = match warm {
            Some(Ok(live)) => return Ok(live),
            Some(Err(error)) => {
                tracing::warn!(error = error.chain(), "a template did not work: the machine boots instead");
                true
            }
            None => false,
        };
        let sandboxes = self.sandboxes()?;
        let mut started = launch(self.site(&sandboxes), &order, &mut tap, handler, &machine, Begin::Boot)?;
        let agent = started.agent();
        let done = boot(&mut started, &machine, &agent).and_then(|()| self.tell(&agent, "begin", &begin()?, DISK));
        let live = self.adopt(started, agent, done)?;
        if let Some(template) = template {
            // Where booting fails, too, it is the project's matter and not the template's.
            if unwarmed {
                self.templates.refuse(&template);
            }
            self.make_template(order.project, handler, template);
        }
        Ok(live)
    }

    /// Keeps a machine's memory on disk and ends it. After an error it runs on.
    pub(in crate::local) fn save_machine(
        &self,
        project: &Project,
        sandbox: &HostSandbox,
        agent: &Arc<Agent>,
    ) -> Result<(), Error> {
        let disk = self.pool()?.guest_disk(project.id).ok_or(ErrorKind::DiskMissing(project.id))?;
        runtime()
            .block_on(agent.post("/garth/guest/freeze", Vec::new(), DISK))
            .map_err(|error| error.step("write the disk out"))?;
        disk.forget_memory().explain()?;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(disk.memory())
            .map_err(|error| Error::because(ErrorKind::Storage, error).step("keep the memory"))?;
        let SandboxRecord::Machine(record) = sandbox.record() else { return Err(ErrorKind::Sandbox.into()) };
        let machine = record.as_it_was(self.machine(project, record.handler, &disk)?);
        let mut control = sandbox.control()?;
        control.pause().explain()?;
        if let Err(error) = control.save(&machine, &disk.memory()).and_then(Saved::record).explain() {
            let resumed = control.resume().explain();
            return disk.forget_memory().explain().and(resumed).and(Err(error.step("keep the memory")));
        }
        drop(control);
        sandbox.destroy()?;
        if let Some(entry) = &project.sandbox {
            self.network.release(entry.id);
        }
        Ok(())
    }

    /// A machine whose memory was kept goes on.
    pub(in crate::local) fn wake(&self, mut order: Order<'_>) -> Result<Live, Error> {
        let mut tap = order.lease.tap.take();
        let disk = self.pool()?.guest_disk(order.project.id).ok_or(ErrorKind::DiskMissing(order.project.id))?;
        let entry = order.project.sandbox.as_ref().ok_or(ErrorKind::Sandbox)?;
        let Some(SandboxRecord::Machine(record)) = &entry.record else { return Err(ErrorKind::Sandbox.into()) };
        let handler = entry.handler;
        let machine = record.as_it_was(self.machine(order.project, handler, &disk)?);
        let snapshot = Snapshot::open(&disk.memory()).explain().map_err(|error| error.step("load memory"))?;
        let again = again(&order, order.lease.link)?;
        let sandboxes = self.sandboxes()?;
        let mut started =
            launch(self.site(&sandboxes), &order, &mut tap, handler, &machine, Begin::Restore(&snapshot))?;
        let agent = started.agent();
        let loaded = started.control.load(&machine, &snapshot).explain().map_err(|error| error.step("load memory"));
        let done = loaded.and_then(|()| {
            // From the first instruction on the disk is another: this memory must never meet it again.
            disk.forget_memory().explain()?;
            started.control.resume().explain()?;
            runtime().block_on(agent.booted(DISK))?;
            self.tell(&agent, "again", &again, DISK)?;
            // They may have been changed while it slept.
            tell_limits(&agent, &inner(&order.project.spec.limits))
        });
        self.adopt(started, agent, done)
    }

    pub(super) fn adopt(&self, started: Started, agent: Arc<Agent>, done: Result<(), Error>) -> Result<Live, Error> {
        match done {
            // The console's end goes: what it says from now on is nobody's, and costs nothing.
            Ok(()) => HostSandbox::adopt_with(self.sandboxes()?, Running::Machine(Box::new(started.guest)), agent),
            Err(error) => started.end(Err(error)),
        }
    }

    /// The machine of a project. Its tree tells whether it has the machine's own /usr.
    fn machine(&self, project: &Project, handler: Handler, disk: &GuestDisk) -> Result<Machine, Error> {
        let tree = self.disk(project.id).map_err(|error| error.step("disk"))?;
        let usr = tree.root().usr.is_some().then(|| self.usr_image()).transpose()?;
        let limits = project.spec.limits;
        if limits.memory < LEAST_MEMORY {
            let kind = ErrorKind::LimitRefused { what: "memory", limit: limits.memory.to_string() };
            return Err(Error::from(kind)
                .hint(format!("a guest's kernel needs {LEAST_MEMORY}: garth set NAME --memory {LEAST_MEMORY}")));
        }
        let accelerator = microvm::accelerator(handler, &self.here())?;
        let artifacts = self.artifacts()?;
        let drive = |serial: &str, file, access, rate| Drive { serial: serial.to_owned(), file, access, rate };
        let mut drives = vec![drive(ROOT, disk.file(), DriveAccess::ReadWrite, rates::of_drive(&limits))];
        drives.extend(usr.map(|file| drive(USR, file, DriveAccess::ReadOnly, DriveRate::default())));
        Ok(Machine {
            vcpus: limits.cpus.millis().div_ceil(1000),
            memory: ByteSize::mib(u32::try_from(limits.memory.bytes() >> 20).unwrap_or(u32::MAX)),
            kernel: artifacts.vmlinux(),
            initrd: artifacts.initrd(),
            drives,
            nic: None,
            shares: (0..project.spec.volumes.len()).map(shares::tag).collect(),
            accelerator,
        })
    }

    /// Tells a guest what it is, and makes sure that no other has its random numbers.
    pub(super) fn tell<T: Serialize>(
        &self,
        agent: &Arc<Agent>,
        what: &str,
        order: &T,
        within: Duration,
    ) -> Result<(), Error> {
        let json = serde_json::to_vec(order).map_err(|error| Error::because(ErrorKind::Guest, error))?;
        let answer = runtime().block_on(agent.post(&format!("/garth/guest/{what}"), json, within))?;
        let begun: GuestBegun =
            serde_json::from_slice(&answer).map_err(|error| Error::because(ErrorKind::Guest, error))?;
        tracing::debug!(kernel = begun.kernel, what, "the guest has its orders");
        self.templates.check_random(begun.random)
    }
}

/// Waits for the guest's agent, or for the end of the machine.
pub(super) fn boot(started: &mut Started, machine: &Machine, agent: &Agent) -> Result<(), Error> {
    boot_unless(started, machine, agent, std::future::pending())
}

/// The same, and no longer than until something else happens.
pub(super) fn boot_unless(
    started: &mut Started,
    machine: &Machine,
    agent: &Agent,
    cancelled: impl Future<Output = ()>,
) -> Result<(), Error> {
    started.control.start(machine).explain()?;
    let doing = |error: std::io::Error| Error::because(ErrorKind::Start, error).step("watch");
    let pidfd = started.guest.sandbox.pidfd().try_clone_to_owned().map_err(doing)?;
    runtime().block_on(async {
        let ended = super::sandbox::watch(pidfd).map_err(doing)?;
        tokio::select! {
            booted = agent.booted(BOOT) => booted.map_err(|error| error.step("boot the guest")),
            () = cancelled => Err(ErrorKind::Closing.into()),
            _ = ended.readable() => Err(Error::from(ErrorKind::Machine).step("boot the guest")),
        }
    })
}

/// Everything here runs on threads that may block.
pub(super) fn runtime() -> tokio::runtime::Handle {
    tokio::runtime::Handle::current()
}

fn tell_limits(agent: &Arc<Agent>, limits: &GuestLimits) -> Result<(), Error> {
    let json = serde_json::to_vec(limits).map_err(|error| Error::because(ErrorKind::Guest, error))?;
    runtime().block_on(agent.post("/garth/guest/limits", json, DISK)).map(drop)
}

/// Limits of the processes inside.
fn inner(limits: &Limits) -> GuestLimits {
    GuestLimits { memory: limits.memory.bytes(), pids: limits.pids }
}

/// What the program takes beside the guest's memory, and those that serve it directories.
pub(super) fn own(accelerator: Accelerator, shares: usize) -> u64 {
    OVERHEAD + if accelerator == Accelerator::Tcg { TRANSLATOR } else { 0 } + shares::overhead(shares)
}

/// Limits of the program: the guest's memory and its own.
pub(super) fn outer(limits: &Limits, memory: ByteSize, own: u64) -> Result<Limits, Error> {
    let memory = ByteSize::from_bytes(memory.bytes().saturating_add(own));
    let memory = memory.map_err(|error| Error::because(ErrorKind::Start, error))?;
    // It is the guest's disk that has a rate, and the program that holds the guest to it.
    Ok(Limits { memory, pids: THREADS, disk_rate: None, disk_iops: None, ..*limits })
}

pub(super) fn usr_disk(machine: &Machine) -> Option<BlockDisk> {
    let usr = machine.drives.iter().find(|drive| drive.serial == USR)?;
    Some(BlockDisk { serial: usr.serial.clone(), filesystem: GuestFilesystem::Erofs })
}

fn begin(order: &Order<'_>, usr: Option<BlockDisk>, link: Option<garth_network::Link>) -> Result<GuestBegin, Error> {
    let again = again(order, link)?;
    Ok(GuestBegin {
        generation: again.generation,
        entropy: again.entropy,
        realtime_ns: again.realtime_ns,
        hostname: again.hostname,
        machine_id: Hex(order::machine(order.project.id)),
        hosts: again.hosts,
        resolv_conf: again.resolv_conf,
        network: again.network,
        root: BlockDisk { serial: ROOT.to_owned(), filesystem: GuestFilesystem::Ext4 },
        usr,
        usr_alone_at: None,
        read_only: order.project.spec.read_only,
        limits: inner(&order.project.spec.limits),
        volumes: shares::told(&order.project.spec.volumes),
        capabilities: super::capabilities(&order.project.spec)?,
        agent: order::agent(order.project),
    })
}

fn again(order: &Order<'_>, link: Option<garth_network::Link>) -> Result<GuestAgain, Error> {
    let mut entropy = [0; 64];
    getrandom::fill(&mut entropy).map_err(|error| Error::because(ErrorKind::Guest, error))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanoseconds = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    Ok(GuestAgain {
        // Later than whatever this memory was told before, also by another daemon.
        generation: nanoseconds,
        entropy: Hex(entropy),
        realtime_ns: nanoseconds,
        network: link.zip(order.lease.addresses).map(|(link, own)| network(&link, &own)),
        hostname: order.project.name.to_string(),
        hosts: vec![(order::own_address(order), order.project.name.to_string())],
        resolv_conf: order.lease.resolv_conf.clone(),
    })
}

fn network(link: &garth_network::Link, own: &crate::local::Addresses) -> GuestNetwork {
    GuestNetwork {
        mac: MacAddress(link.mac),
        ipv4: Some(Prefixed { address: own.ipv4, prefix: 32 }),
        gateway_mac: Some(MacAddress(link.gateway_mac)),
        gateway: Some(link.gateway4),
        ipv6: own.ipv6.map(|address| Prefixed { address, prefix: 128 }),
        gateway6: link.gateway6.filter(|_| own.ipv6.is_some()),
        mtu: Some(link.mtu),
    }
}
