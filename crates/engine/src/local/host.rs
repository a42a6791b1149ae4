//! This host: the crates that touch it, called with what a project asks for.

mod failure;
mod guest;
mod launch;
mod machine;
mod moving;
mod order;
mod rates;
mod sandbox;
mod shares;
mod templates;
mod trial;
mod warm;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use garth_network::NetworkConfig;
use garth_runtime::{AgentBinary, BlockDevice, Level, OciRuntime, Sandboxes, SandboxesConfig};
use garth_spec::{ByteSize, Handler, ImageId, Network, ProjectId, ProjectSpec, Runtime, RuntimeChoice, SandboxId};
use garth_storage::{Disk, Driver, GuestContents, ImageMeta, Pool, PoolOptions};
use sha2::{Digest as _, Sha256};

use super::{Addresses, DiskUse, Lease, LeaseRecord, Live, Order, Prepared, SandboxRecord, Stored};
use crate::doctor::{Finding, Findings, Here};
use crate::error::{Error, ErrorKind};
use crate::guest::GuestConfig;
use crate::images::{ImageEntry, ImageFormat};
use crate::project::random_bits;
use failure::Explain as _;
pub(crate) use machine::MachineRecord;
pub(crate) use sandbox::HostSandbox;
use sandbox::Running;
use templates::Templates;

/// How long the built-in image is taken to be up to date: reading the machine's `/etc` takes milliseconds.
const HOST_IMAGE_FRESH: Duration = Duration::from_secs(60);

/// What [`Host`] needs to know.
#[derive(Debug)]
pub(crate) struct HostConfig {
    pub(crate) data_dir: PathBuf,
    pub(crate) guests: GuestConfig,
    pub(crate) agent: &'static [u8],
}

/// The pool, the network and the sandboxes of one data directory.
#[derive(Debug)]
pub(crate) struct Host {
    data_dir: PathBuf,
    guests: GuestConfig,
    agent: &'static [u8],
    /// Opened again when it could not be: what it lacks may have been installed.
    pool: Mutex<Option<Pool>>,
    /// Held while the pool is looked after, which uses it.
    maintenance: Mutex<()>,
    network: garth_network::Network,
    prepared: AtomicBool,
    /// Gone once the host is closed.
    sandboxes: RwLock<Option<Arc<Sandboxes>>>,
    host_image: Mutex<Option<(ImageId, Instant)>>,
    /// Held while the files of guests are made.
    setup: Mutex<()>,
    templates: Arc<Templates>,
}

impl Host {
    /// Opens what can be opened. A pool that cannot is left for later: listing projects needs none.
    pub(crate) fn open(config: HostConfig) -> Result<Self, Error> {
        let data_dir = config.data_dir;
        let refuse = |error: std::io::Error| Error::because(ErrorKind::Start, error).step("agent");
        let binary = AgentBinary::from_bytes(config.agent).map_err(refuse)?;
        let tag = tag(&data_dir);
        tracing::info!(tag, data_dir = %data_dir.display(), "what is ours on this host has this tag in its name");
        let network = garth_network::Network::open(NetworkConfig::new(&data_dir, tag.as_str())).explain()?;
        let oci = OciRuntime::sysbox();
        let sandboxes = SandboxesConfig { run_dir: run_dir(&data_dir)?, tag, agent: binary, oci };
        let sandboxes = Sandboxes::open(sandboxes).explain();
        let sandboxes = sandboxes.map_err(|error| error.doing(|| "cannot prepare for sandboxes".to_owned()))?;
        let templates = Arc::new(Templates::new(&config.guests.cache_dir));
        let host = Self {
            data_dir,
            guests: config.guests,
            agent: config.agent,
            pool: Mutex::default(),
            maintenance: Mutex::default(),
            network,
            prepared: false.into(),
            sandboxes: RwLock::new(Some(Arc::new(sandboxes))),
            host_image: Mutex::default(),
            setup: Mutex::default(),
            templates,
        };
        if let Err(error) = host.pool() {
            tracing::error!(error = error.chain(), hint = error.suggestion(), "there is no pool of disks");
        }
        Ok(host)
    }

    fn here(&self) -> Here<'_> {
        Here { agent: self.agent, guests: &self.guests }
    }

    fn pool(&self) -> Result<Pool, Error> {
        let mut slot = lock(&self.pool);
        if let Some(pool) = &*slot {
            return Ok(pool.clone());
        }
        let pool = Pool::open(&self.data_dir, &PoolOptions::default()).explain()?;
        for warning in pool.warnings() {
            tracing::warn!(warning, "pool");
        }
        if let Ok(sandboxes) = self.sandboxes() {
            let device = pool.device().explain()?.map(|(major, minor)| BlockDevice { major, minor });
            sandboxes.set_disks(device);
        }
        Ok(slot.insert(pool).clone())
    }

    fn disk(&self, project: ProjectId) -> Result<Disk, Error> {
        self.pool()?.disk(project).explain()?.ok_or_else(|| ErrorKind::DiskMissing(project).into())
    }

    fn sandboxes(&self) -> Result<Arc<Sandboxes>, Error> {
        let sandboxes = self.sandboxes.read().unwrap_or_else(PoisonError::into_inner);
        sandboxes.clone().ok_or_else(|| ErrorKind::Closing.into())
    }

    pub(super) fn make_host_image(&self, have: Option<ImageId>) -> Result<Option<Stored>, Error> {
        let mut made = lock(&self.host_image);
        if let Some((id, at)) = *made
            && Some(id) == have
            && at.elapsed() < HOST_IMAGE_FRESH
        {
            return Ok(None);
        }
        let image = garth_image::host::ensure(&self.pool()?).explain()?;
        *made = Some((image.id, Instant::now()));
        Ok((Some(image.id) != have).then(|| stored(image)))
    }

    pub(super) fn import(&self, id: ImageId, format: ImageFormat, from: &mut dyn Read) -> Result<Stored, Error> {
        let draft = self.pool()?.new_image(id).explain()?;
        let limits = garth_image::Limits::default();
        let imported = garth_image::import(from, order::format(format), &draft.path(), &limits).explain()?;
        let (entries, bytes, usr) = (imported.entries, imported.bytes, garth_storage::UsrSource::Image);
        let image = draft.commit(ImageMeta { config: imported.config, usr, entries, bytes }).explain()?;
        Ok(stored(image))
    }

    pub(super) fn check_image_unused(&self, image: &ImageEntry) -> Result<(), Error> {
        if self.has_quotas() {
            // A snapshot outlives what it was taken from.
            return Ok(());
        }
        match self.disks()?.iter().any(|(_, from)| *from == image.id) {
            true => Err(Error::from(ErrorKind::ImageInUse(image.name.clone()))
                .hint("on this pool (overlay driver) disks read their image's files: remove the projects first")),
            false => Ok(()),
        }
    }

    pub(super) fn remove_image(&self, id: ImageId) -> Result<(), Error> {
        self.pool()?.remove_image(id).explain()
    }

    pub(super) fn images(&self) -> Result<Vec<Stored>, Error> {
        Ok(self.pool()?.images().explain()?.into_iter().map(stored).collect())
    }

    pub(super) fn create_disk(&self, project: ProjectId, image: ImageId, limit: ByteSize) -> Result<(), Error> {
        self.pool()?.create_disk(project, image, limit).explain().map(drop)
    }

    pub(super) fn remove_disk(&self, project: ProjectId) -> Result<(), Error> {
        let pool = self.pool()?;
        pool.remove_guest_disk(project).and_then(|()| pool.remove_disk(project)).explain()
    }

    pub(super) fn disks(&self) -> Result<Vec<(ProjectId, ImageId)>, Error> {
        let pool = self.pool()?;
        let mut disks = Vec::new();
        for id in pool.disks().explain()? {
            disks.extend(pool.disk(id).explain()?.map(|disk| (id, disk.image())));
        }
        Ok(disks)
    }

    pub(super) fn set_disk_limit(&self, project: ProjectId, limit: ByteSize) -> Result<(), Error> {
        if let Some(guest) = self.pool()?.guest_disk(project)
            && guest.usage().explain()?.limit.is_some_and(|size| limit < size)
        {
            let kind = ErrorKind::LimitRefused { what: "disk", limit: limit.to_string() };
            return Err(Error::from(kind).hint("a microVM's disk grows, with its next start, and never shrinks"));
        }
        self.disk(project)?.set_limit(limit).explain()
    }

    pub(super) fn disk_use(&self, project: ProjectId) -> Result<DiskUse, Error> {
        let usage = match self.pool()?.guest_disk(project) {
            Some(disk) => disk.usage().explain()?,
            None => self.disk(project)?.usage().explain()?,
        };
        Ok(DiskUse { used: usage.used, limit: usage.limit })
    }

    pub(super) fn has_memory(&self, project: ProjectId) -> bool {
        self.pool().ok().and_then(|pool| pool.guest_disk(project)).is_some_and(|disk| disk.memory().exists())
    }

    pub(super) fn has_quotas(&self) -> bool {
        self.pool().is_ok_and(|pool| pool.driver() == Driver::Btrfs)
    }

    pub(super) fn sweep_pool(&self) -> Result<(), Error> {
        let swept = self.pool()?.sweep().explain()?;
        if !swept.drafts.is_empty() {
            tracing::info!(drafts = ?swept.drafts, "removed what was half-made");
        }
        Ok(())
    }

    pub(super) fn handler(&self, choice: RuntimeChoice) -> Result<Handler, Error> {
        crate::doctor::handler(choice, &self.here())
    }

    /// Whether this host has, and shows, what the spec names of it.
    pub(super) fn check(&self, spec: &ProjectSpec) -> Result<(), Error> {
        let mut hosts = spec.volumes.values().map(|volume| Path::new(&volume.host));
        hosts.try_for_each(|host| garth_runtime::check_volume(host, &self.data_dir)).explain()?;
        capabilities(spec).map(drop)
    }

    /// Whether this handler does here what the spec asks of it.
    pub(super) fn check_handler(&self, handler: Handler, spec: &ProjectSpec) -> Result<(), Error> {
        if handler.runtime() == Runtime::Microvm {
            shares::check(&spec.volumes)?;
        }
        self.check_rates(handler, &spec.limits)
    }

    pub(super) fn lease(&self, id: SandboxId, handler: Handler, network: Network) -> Result<Lease, Error> {
        match handler {
            Handler::DefaultNative => self.lease_plain(id, network),
            Handler::SysboxNative => {
                let prepared = self.sandboxes()?.prepare(Level::Sysbox).explain()?;
                self.lease_owned(id, Prepared::Native(Box::new(prepared)), network)
            }
            Handler::SysboxRunc => {
                let prepared = self.sandboxes()?.prepare_container().explain()?;
                self.lease_owned(id, Prepared::Container(prepared), network)
            }
            Handler::MicrovmQemu | Handler::MicrovmFirecracker | Handler::MicrovmCloudHypervisor => {
                self.lease_tapped(id, network)
            }
        }
    }

    fn lease_plain(&self, id: SandboxId, network: Network) -> Result<Lease, Error> {
        match network {
            Network::None => {
                let netns = garth_network::Network::loopback_only().explain()?;
                Ok(unconnected(Some(netns), None))
            }
            Network::Internet => Ok(connected(self.network.lease(id).explain()?, None)),
        }
    }

    /// A machine gets the wire's end itself, and has no namespace to enter.
    fn lease_tapped(&self, id: SandboxId, network: Network) -> Result<Lease, Error> {
        match network {
            Network::None => Ok(unconnected(None, None)),
            Network::Internet => {
                let lease = self.network.lease(id).explain()?;
                let (tap, link) = (lease.tap().explain(), lease.link);
                let tap = tap.inspect_err(|_| self.network.release(id))?;
                Ok(Lease { tap: Some(tap), link: Some(link), ..connected(lease, None) })
            }
        }
    }

    /// The network namespace belongs to the sandbox's users, so it is there before the network is.
    fn lease_owned(&self, id: SandboxId, prepared: Prepared, network: Network) -> Result<Lease, Error> {
        let missing = || Error::because(ErrorKind::Start, "the sandbox has no network namespace").step("network");
        let netns = prepared.netns().ok_or_else(missing)?;
        match network {
            Network::None => {
                garth_network::Network::loopback_in(netns).explain()?;
                Ok(unconnected(None, Some(prepared)))
            }
            Network::Internet => {
                let own = netns.try_clone_to_owned();
                let own = own.map_err(|error| Error::because(ErrorKind::Network, error).step("network"))?;
                Ok(connected(self.network.lease_in(id, own).explain()?, Some(prepared)))
            }
        }
    }

    pub(super) fn prepare_network(&self) {
        if self.prepared.swap(true, Relaxed) {
            return;
        }
        // No sandbox has this id, so should the daemon die here, the next one takes the lease back.
        let id = SandboxId::from_bits(random_bits());
        if self.network.lease(id).is_ok() {
            self.network.release(id);
        }
    }

    pub(super) fn release(&self, id: SandboxId) -> Result<(), Error> {
        self.network.release(id);
        Ok(())
    }

    pub(super) fn start(&self, order: Order<'_>) -> Result<Live, Error> {
        let disk = self.disk(order.project.id).map_err(|error| error.step("disk"))?;
        let handler = order.project.sandbox.as_ref().map(|entry| entry.handler);
        if let Some(handler) = handler.filter(|handler| handler.runtime() == Runtime::Microvm) {
            return self.start_on_guest_disk(order, handler, &disk);
        }
        let guest = self.pool()?.guest_disk(order.project.id);
        if let Some(guest) = &guest {
            self.move_to_tree(order.project, &disk, guest)?;
        }
        let project = order.project.id;
        let live = self.start_on_tree(order, &disk)?;
        if guest.is_some()
            && let Err(error) = self.pool()?.remove_guest_disk(project).explain()
        {
            live.sandbox.destroy()?;
            return Err(error);
        }
        Ok(live)
    }

    /// The sandbox of a level that shares this kernel.
    fn start_on_tree(&self, order: Order<'_>, disk: &Disk) -> Result<Live, Error> {
        let sandboxes = self.sandboxes()?;
        let plan = order::plan(&order, disk, &self.data_dir, capabilities(&order.project.spec)?);
        let Lease { prepared, netns, .. } = order.lease;
        let running = match prepared {
            Some(Prepared::Native(prepared)) => Running::Native(prepared.start(order.id, &plan).explain()?),
            Some(Prepared::Container(prepared)) => Running::Container(prepared.start(order.id, &plan).explain()?),
            None => Running::Native(sandboxes.start(order.id, &plan, netns).explain()?),
        };
        HostSandbox::adopt(sandboxes, running)
    }

    /// The machine's `/usr` as guests mount it.
    fn usr_image(&self) -> Result<PathBuf, Error> {
        garth_image::host::usr(&self.guests.cache_dir).explain().map_err(|error| error.step("copy /usr for guests"))
    }

    /// A machine on the project's disk in guest form. One that never ran has its tree made into that; the files of one
    /// that did are moved.
    fn start_on_guest_disk(&self, order: Order<'_>, handler: Handler, disk: &Disk) -> Result<Live, Error> {
        let (pool, project) = (self.pool()?, order.project);
        let limit = project.spec.limits.disk;
        let (guest, is_new) = match pool.guest_disk(project.id) {
            Some(found) => {
                if found.usage().explain()?.limit.is_some_and(|known| known < limit) {
                    found.grow(limit).explain()?;
                }
                (found, false)
            }
            None if project.started_at.is_none() => {
                let draft = pool.draft_guest_disk(disk, limit, GuestContents::Tree).explain()?;
                (draft.publish().explain()?, true)
            }
            None => (self.move_to_guest(project, handler, disk)?, true),
        };
        let id = project.id;
        let started = self.start_machine(order, handler, &guest, None);
        match started {
            // The old form goes once the new one has started.
            Ok(live) if is_new => match pool.empty_disk(disk, limit).explain() {
                Ok(_) => Ok(live),
                Err(error) => live.sandbox.destroy().and(Err(error)),
            },
            Err(error) if is_new => pool.remove_guest_disk(id).explain().and(Err(error)),
            other => other,
        }
    }

    pub(super) fn recover(
        &self,
        id: SandboxId,
        record: &SandboxRecord,
        lease: Option<&LeaseRecord>,
    ) -> Result<Option<Live>, Error> {
        let sandboxes = self.sandboxes()?;
        let lease = match lease {
            None => None,
            Some(LeaseRecord::Host(lease)) => Some(lease),
            #[cfg(any(test, feature = "fake"))]
            Some(LeaseRecord::Fake(_)) => return Ok(None),
        };
        let Some(sandbox) = Running::recover(&sandboxes, id, record)? else { return Ok(None) };
        if let Some(lease) = lease
            && !self.network.recover(id, lease).explain()?
        {
            // Its wire went without it: what is left of it is ended by the sweep that follows.
            sandbox.destroy()?;
            return Ok(None);
        }
        HostSandbox::adopt(sandboxes, sandbox).map(Some)
    }

    pub(super) fn sweep_sandboxes(&self, keep: &[SandboxId]) -> Result<(), Error> {
        let swept = self.sandboxes()?.sweep(keep).explain()?;
        if swept != garth_runtime::Swept::default() {
            tracing::info!(?swept, "ended what no project has");
        }
        Ok(())
    }

    pub(super) fn sweep_leases(&self, keep: &[SandboxId]) -> Result<(), Error> {
        self.network.sweep(keep).explain()
    }

    pub(super) fn maintain(&self) -> Result<(), Error> {
        let _maintenance = lock(&self.maintenance);
        // None where there is none yet, and none any more.
        let Some(pool) = lock(&self.pool).clone() else { return Ok(()) };
        let maintained = pool.maintain().explain()?;
        if maintained.grown > 0 || maintained.given_back > 0 {
            tracing::info!(?maintained, "pool");
        }
        Ok(())
    }

    pub(super) fn findings(&self) -> Findings {
        let pool = self.pool().map(|pool| (format!("{:?}", pool.driver()).to_lowercase(), pool.warnings().to_vec()));
        let mut findings = crate::doctor::probe(&self.here());
        self.try_boots(&mut findings);
        findings.storage.insert(
            0,
            match pool {
                Ok((driver, warnings)) if warnings.is_empty() => Finding::fine("pool", format!("the {driver} driver")),
                Ok((driver, warnings)) => {
                    Finding::fine("pool", format!("the {driver} driver: {}", warnings.join("; ")))
                }
                Err(error) => {
                    Finding { name: "pool".to_owned(), ok: false, detail: error.chain(), fix: error.suggestion() }
                }
            },
        );
        findings
    }

    /// Lets go of what is kept ready; of the network and the pool too when nothing runs.
    pub(super) fn close(&self, running: usize) -> Result<(), Error> {
        self.templates.stop();
        let sandboxes = self.sandboxes.write().unwrap_or_else(PoisonError::into_inner).take();
        if running > 0 {
            return Ok(());
        }
        if let Some(sandboxes) = sandboxes {
            sandboxes.settle();
        }
        self.network.close().explain()?;
        let _maintenance = lock(&self.maintenance);
        lock(&self.pool).take().map_or(Ok(()), |pool| pool.close().explain())
    }
}

/// The capabilities that a spec leaves of its level's; `None` where it leaves all.
fn capabilities(spec: &ProjectSpec) -> Result<Option<u64>, Error> {
    if spec.capabilities.are_the_levels() {
        return Ok(None);
    }
    let runtime = spec.runtime.runtime();
    let level = match runtime {
        Runtime::Default => Level::Default.capabilities(),
        Runtime::Sysbox => Level::Sysbox.capabilities(),
        // Its root is that of its kernel.
        Runtime::Microvm => Ok(u64::MAX),
    };
    let level = level.map_err(|error| Error::because(ErrorKind::Start, error))?;
    let beyond = |capability| ErrorKind::CapabilityBeyondLevel { capability, runtime };
    Ok(Some(spec.capabilities.of(level).map_err(beyond)?))
}

/// A lease of nothing but loopback.
fn unconnected(netns: Option<OwnedFd>, prepared: Option<Prepared>) -> Lease {
    Lease { prepared, netns, record: None, addresses: None, tap: None, link: None, resolv_conf: None }
}

fn connected(lease: garth_network::Lease, prepared: Option<Prepared>) -> Lease {
    Lease {
        record: Some(LeaseRecord::Host(lease.record())),
        addresses: Some(Addresses { ipv4: lease.ipv4, ipv6: lease.ipv6 }),
        resolv_conf: Some(format!("nameserver {}\n", lease.nameserver)),
        netns: Some(lease.netns),
        tap: None,
        link: None,
        prepared,
    }
}

/// Where each running sandbox has its directory: closed to all but root, since an agent's socket asks
/// no one who they are.
fn run_dir(data_dir: &Path) -> Result<PathBuf, Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    let dir = data_dir.join("run");
    match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::because(ErrorKind::DataDir(dir), error))
        }
        _ => Ok(dir),
    }
}

/// Six letters and digits that tell this data directory from the others on this host.
fn tag(data_dir: &Path) -> String {
    const DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let digest = Sha256::digest(data_dir.as_os_str().as_bytes());
    digest.iter().take(6).map(|byte| char::from(DIGITS[usize::from(*byte) % 36])).collect()
}

fn stored(image: garth_storage::Image) -> Stored {
    Stored { id: image.id, config: image.meta.config, size: Some(image.meta.bytes) }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_directories_have_tags_of_their_own() {
        let (one, two) = (tag(Path::new("/var/lib/garth")), tag(Path::new("/var/lib/garth2")));
        assert_ne!(one, two);
        assert!(one.len() == 6 && one.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{one}");
    }
}
