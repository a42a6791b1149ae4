//! A host made of numbers in a file, so that a test can kill the daemon and look at what is left. It
//! refuses what a real host could not do, and notes it, so that every test is also a test of order.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use garth_runtime::Ending;
use garth_spec::{
    ByteSize, Handler, ImageConfig, ImageId, Limits, Network, ProjectId, ProjectSpec, RuntimeChoice, SandboxId,
};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::{Addresses, DiskUse, Lease, LeaseRecord, Live, Order, SandboxRecord, Stored, Usage};
use crate::agent::{Agent, Door};
use crate::doctor::Findings;
use crate::error::{Error, ErrorKind};
use crate::guest::{GuestReport, KernelSource, Progress, Step};
use crate::images::{ImageEntry, ImageFormat};

/// What there is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct World {
    pub(crate) images: BTreeSet<ImageId>,
    pub(crate) disks: BTreeMap<ProjectId, (ImageId, u64)>,
    pub(crate) sandboxes: BTreeMap<SandboxId, ProjectId>,
    pub(crate) leases: BTreeSet<SandboxId>,
    /// Sandboxes at rest.
    pub(crate) frozen: BTreeSet<SandboxId>,
    /// What works here besides the default runtime.
    pub(crate) handlers: Vec<Handler>,
    pub(crate) starts: u64,
    /// Sandboxes that ended to be started again.
    pub(crate) rebooted: BTreeSet<SandboxId>,
    /// What no host could do and the engine asked for.
    pub(crate) impossible: Vec<String>,
    /// Operations that fail.
    pub(crate) broken: BTreeSet<String>,
}

/// The fake host.
#[derive(Debug)]
pub(crate) struct Fake {
    path: PathBuf,
    world: Mutex<World>,
    changes: watch::Sender<()>,
}

/// A sandbox of the fake host.
#[derive(Debug)]
pub(crate) struct FakeSandbox {
    host: Arc<Fake>,
    id: SandboxId,
}

const HOST_IMAGE: ImageId = ImageId::from_bits(1);

fn leased(record: Option<LeaseRecord>, addresses: Option<Addresses>) -> Lease {
    Lease { prepared: None, netns: None, record, addresses, tap: None, link: None, resolv_conf: None }
}

impl Fake {
    /// The host whose state this file holds.
    pub(crate) fn open(path: &Path) -> Arc<Self> {
        let world = fs::read(path).ok().map(|bytes| serde_json::from_slice(&bytes).expect("a world"));
        let world = Mutex::new(world.unwrap_or_default());
        Arc::new(Self { path: path.to_owned(), world, changes: watch::channel(()).0 })
    }

    /// Looks at, or meddles with, what there is.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.lock();
        let out = change(&mut world);
        let draft = self.path.with_extension("new");
        fs::write(&draft, serde_json::to_vec(&*world).expect("json")).expect("write the world");
        fs::rename(&draft, &self.path).expect("keep the world");
        self.changes.send_replace(());
        out
    }

    /// A copy of what there is.
    pub(crate) fn look(&self) -> World {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no test panics with the world in its hands")
    }

    fn act(&self, name: &str, change: impl FnOnce(&mut World) -> Result<(), String>) -> Result<(), Error> {
        self.change(|world| {
            if world.broken.contains(name) {
                return Err(Error::because(ErrorKind::Storage, format!("{name} is broken")));
            }
            change(world).map_err(|what| {
                world.impossible.push(what.clone());
                Error::because(ErrorKind::Storage, what)
            })
        })
    }

    pub(super) fn make_host_image(&self, have: Option<ImageId>) -> Result<Option<Stored>, Error> {
        self.act("image", |world| {
            world.images.insert(HOST_IMAGE);
            Ok(())
        })?;
        Ok((have != Some(HOST_IMAGE)).then(|| stored(HOST_IMAGE)))
    }

    pub(super) fn import(&self, id: ImageId, _: ImageFormat, from: &mut dyn Read) -> Result<Stored, Error> {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).map_err(|error| Error::because(ErrorKind::Image, error))?;
        self.act("import", |world| world.images.insert(id).then_some(()).ok_or_else(|| format!("image {id} twice")))?;
        Ok(stored(id))
    }

    pub(super) fn check_image_unused(&self, _: &ImageEntry) -> Result<(), Error> {
        Ok(())
    }

    pub(super) fn remove_image(&self, id: ImageId) -> Result<(), Error> {
        self.act("remove_image", |world| {
            world.images.remove(&id);
            Ok(())
        })
    }

    pub(super) fn images(&self) -> Result<Vec<Stored>, Error> {
        Ok(self.lock().images.iter().copied().map(stored).collect())
    }

    pub(super) fn create_disk(&self, project: ProjectId, image: ImageId, limit: ByteSize) -> Result<(), Error> {
        self.act("create_disk", |world| {
            if !world.images.contains(&image) {
                return Err(format!("a disk from the missing image {image}"));
            }
            match world.disks.insert(project, (image, limit.bytes())) {
                None => Ok(()),
                Some(_) => Err(format!("two disks for {project}")),
            }
        })
    }

    pub(super) fn remove_disk(&self, project: ProjectId) -> Result<(), Error> {
        self.act("remove_disk", |world| {
            if world.sandboxes.values().any(|user| *user == project) {
                return Err(format!("the disk of {project} went while a sandbox used it"));
            }
            world.disks.remove(&project);
            Ok(())
        })
    }

    pub(super) fn disks(&self) -> Result<Vec<(ProjectId, ImageId)>, Error> {
        Ok(self.lock().disks.iter().map(|(project, (image, _))| (*project, *image)).collect())
    }

    pub(super) fn set_disk_limit(&self, project: ProjectId, limit: ByteSize) -> Result<(), Error> {
        self.act("set_disk_limit", |world| {
            let disk = world.disks.get_mut(&project).ok_or_else(|| format!("no disk of {project} to limit"))?;
            disk.1 = limit.bytes();
            Ok(())
        })
    }

    pub(super) fn disk_use(&self, project: ProjectId) -> Result<DiskUse, Error> {
        let limit = self.lock().disks.get(&project).map(|disk| disk.1);
        Ok(DiskUse { used: 0, limit: limit.and_then(|bytes| ByteSize::from_bytes(bytes).ok()) })
    }

    pub(super) fn has_quotas(&self) -> bool {
        true
    }

    pub(super) fn sweep_pool(&self) -> Result<(), Error> {
        Ok(())
    }

    /// The default runtime, and what a test adds.
    pub(super) fn handler(&self, choice: RuntimeChoice) -> Result<Handler, Error> {
        let more = self.look().handlers;
        match choice.handlers().find(|handler| *handler == Handler::DefaultNative || more.contains(handler)) {
            Some(handler) => Ok(handler),
            None => {
                Err(ErrorKind::RuntimeUnavailable { runtime: choice, missing: "this host is a fake".to_owned() }.into())
            }
        }
    }

    pub(super) fn check_handler(&self, _: Handler, _: &ProjectSpec) -> Result<(), Error> {
        Ok(())
    }

    pub(super) fn limit_network(&self, _: SandboxId, _: Option<ByteSize>) -> Result<(), Error> {
        self.act("limit_network", |_| Ok(()))
    }

    pub(super) fn check(&self, _: &ProjectSpec) -> Result<(), Error> {
        Ok(())
    }

    pub(super) fn lease(&self, id: SandboxId, _: Handler, network: Network) -> Result<Lease, Error> {
        if network == Network::None {
            return Ok(leased(None, None));
        }
        self.act("lease", |world| world.leases.insert(id).then_some(()).ok_or_else(|| format!("two leases for {id}")))?;
        let addresses = Some(Addresses { ipv4: Ipv4Addr::new(192, 0, 2, 1), ipv6: None });
        Ok(leased(Some(LeaseRecord::Fake(id)), addresses))
    }

    pub(super) fn prepare_network(&self) {}

    pub(super) fn release(&self, id: SandboxId) -> Result<(), Error> {
        self.act("release", |world| {
            if world.sandboxes.contains_key(&id) {
                return Err(format!("the addresses of {id} went while it ran"));
            }
            world.leases.remove(&id);
            Ok(())
        })
    }

    /// Nothing here is ever saved.
    pub(super) fn wake(&self, _: Order<'_>) -> Result<Live, Error> {
        Err(ErrorKind::Sandbox.into())
    }

    pub(super) fn start(self: &Arc<Self>, order: Order<'_>) -> Result<Live, Error> {
        let (id, project) = (order.id, order.project.id);
        self.act("start", |world| {
            if !world.disks.contains_key(&project) {
                return Err(format!("a sandbox of {project} without a disk"));
            }
            if world.sandboxes.values().any(|running| *running == project) {
                return Err(format!("two sandboxes of {project}"));
            }
            world.sandboxes.insert(id, project);
            world.starts += 1;
            Ok(())
        })?;
        Ok(self.live(id))
    }

    pub(super) fn recover(
        self: &Arc<Self>,
        id: SandboxId,
        record: &SandboxRecord,
        lease: Option<&LeaseRecord>,
    ) -> Result<Option<Live>, Error> {
        assert!(matches!(record, SandboxRecord::Fake(fake) if *fake == id));
        let world = self.look();
        let leased = lease.is_none() || world.leases.contains(&id);
        Ok((world.sandboxes.contains_key(&id) && leased).then(|| self.live(id)))
    }

    pub(super) fn sweep_sandboxes(&self, keep: &[SandboxId]) -> Result<(), Error> {
        self.act("sweep", |world| {
            world.sandboxes.retain(|id, _| keep.contains(id));
            world.frozen.retain(|id| keep.contains(id));
            Ok(())
        })
    }

    pub(super) fn sweep_leases(&self, keep: &[SandboxId]) -> Result<(), Error> {
        self.act("sweep", |world| {
            world.leases.retain(|id| keep.contains(id));
            Ok(())
        })
    }

    pub(super) fn maintain(&self) -> Result<(), Error> {
        Ok(())
    }

    /// A kernel of the user's is refused, so that tests see a setup fail.
    pub(super) fn setup_microvm(
        &self,
        kernel: KernelSource,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<GuestReport, Error> {
        for done in [0, 10] {
            progress(Progress { step: Step::Download, done, total: 10 });
        }
        match kernel {
            KernelSource::Distribution => Ok(GuestReport {
                release: "6.12".to_owned(),
                source: vec!["linux-image 6.12-1".to_owned()],
                directory: self.path.with_file_name("guest"),
                lacking: Vec::new(),
            }),
            KernelSource::File { kernel, .. } => {
                Err(Error::because(ErrorKind::Guest, format!("{} is no kernel", kernel.display())).hint("another"))
            }
        }
    }

    pub(super) fn findings(&self) -> Findings {
        Findings { runtimes: Handler::ALL.map(|handler| (handler, Vec::new())).into(), ..Findings::default() }
    }

    pub(super) fn close(&self, _: usize) -> Result<(), Error> {
        Ok(())
    }

    fn live(self: &Arc<Self>, id: SandboxId) -> Live {
        let sandbox = super::Sandbox::Fake(FakeSandbox { host: Arc::clone(self), id });
        let door = Door::Socket(self.path.with_file_name("agent.sock"));
        Live { sandbox, agent: Arc::new(Agent::behind(door)) }
    }
}

impl FakeSandbox {
    pub(super) fn record(&self) -> SandboxRecord {
        SandboxRecord::Fake(self.id)
    }

    pub(super) async fn ended(&self) {
        let mut changes = self.host.changes.subscribe();
        while self.host.look().sandboxes.contains_key(&self.id) {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    pub(super) fn set_limits(&self, _: &Limits) -> Result<(), Error> {
        self.host.act("set_limits", |_| Ok(()))
    }

    pub(super) fn freeze(&self) -> Result<(), Error> {
        self.host.act("freeze", |world| match world.sandboxes.contains_key(&self.id) {
            // One whose init is gone is an empty cgroup, which is at rest at once.
            false => Ok(()),
            true => world.frozen.insert(self.id).then_some(()).ok_or_else(|| format!("{} paused twice", self.id)),
        })
    }

    pub(super) fn thaw(&self) -> Result<(), Error> {
        self.host.act("thaw", |world| {
            world.frozen.remove(&self.id);
            Ok(())
        })
    }

    pub(super) fn usage(&self) -> Result<Usage, Error> {
        Ok(Usage::default())
    }

    pub(super) fn ending(&self) -> Ending {
        let rebooted = self.host.look().rebooted.contains(&self.id);
        if rebooted { Ending::Rebooted } else { Ending::Unknown }
    }

    pub(super) fn destroy(&self) -> Result<(), Error> {
        self.host.act("destroy", |world| {
            world.sandboxes.remove(&self.id);
            world.frozen.remove(&self.id);
            Ok(())
        })
    }
}

fn stored(id: ImageId) -> Stored {
    Stored { id, config: ImageConfig::default(), size: Some(0) }
}
