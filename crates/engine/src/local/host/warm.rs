//! Machines that go on from a template instead of booting, and the making of templates.
//!
//! A template is an economy: whatever is wrong with one, the project's machine boots as it would have without. It is made
//! after the first start of its shape, in the background, by a machine of its own that no project's file is shown to.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use garth_network::Network;
use garth_runtime::Sandboxes;
use garth_spec::{GuestBegin, GuestPrepare, Handler};
use garth_vm::{Begin, DriveAccess, Machine, Snapshot, Template};
use tokio::sync::Notify;

use super::failure::Explain as _;
use super::launch::{Site, Started, launch};
use super::machine::{DISK, boot_unless, runtime, usr_disk};
use super::templates::Templates;
use super::{Host, moving, unconnected};
use crate::error::{Error, ErrorKind};
use crate::local::{Live, Order};
use crate::project::Project;

/// How long a restored agent may take to answer before the machine boots instead: a hundred times what it needs.
const AWAKE: Duration = Duration::from_secs(20);
/// The same for what it does with its orders. One in some hundred translated guests was seen that never did.
const BEGUN: Duration = Duration::from_secs(20);
/// A disk that nobody looks at: some bytes more than nothing.
const EMPTY: u64 = 1 << 20;

/// A machine and what it goes on from.
struct Warm<'a> {
    machine: &'a Machine,
    template: &'a Template,
    snapshot: &'a Snapshot,
}

impl Host {
    /// Starts a project's machine from its template; `None` when there is none.
    pub(super) fn start_warm(
        &self,
        order: &Order<'_>,
        tap: &mut Option<OwnedFd>,
        handler: Handler,
        machine: &Machine,
        template: &Template,
        begin: &dyn Fn() -> Result<GuestBegin, Error>,
    ) -> Option<Result<Live, Error>> {
        let snapshot = self.templates.find(template)?;
        Some(self.clone_of(order, tap, handler, &Warm { machine, template, snapshot: &snapshot }, begin))
    }

    fn clone_of(
        &self,
        order: &Order<'_>,
        tap: &mut Option<OwnedFd>,
        handler: Handler,
        warm: &Warm<'_>,
        begin: &dyn Fn() -> Result<GuestBegin, Error>,
    ) -> Result<Live, Error> {
        let asked = Instant::now();
        let sandboxes = self.sandboxes()?;
        let mut started =
            launch(self.site(&sandboxes), order, tap, handler, warm.machine, Begin::Restore(warm.snapshot))?;
        let (agent, launched) = (started.agent(), asked.elapsed());
        let loaded = started.control.load(warm.template.machine(), warm.snapshot).explain();
        let loaded_after = asked.elapsed();
        let done = loaded.and_then(|()| {
            started.control.measure_drives(warm.machine).explain()?;
            started.control.resume().explain()?;
            runtime().block_on(agent.booted(AWAKE))?;
            let awake = asked.elapsed();
            self.tell(&agent, "begin", &begin()?, BEGUN)?;
            let begun = asked.elapsed();
            tracing::debug!(?launched, loaded = ?loaded_after, ?awake, ?begun, "went on from a template");
            Ok(())
        });
        self.adopt(started, agent, done)
    }

    /// Has the template made that the next machine of this shape goes on from.
    pub(super) fn make_template(&self, project: &Project, handler: Handler, template: Template) {
        let Ok(sandboxes) = self.sandboxes() else { return };
        if !self.templates.lacks(&template) {
            return;
        }
        let (templates, project) = (Arc::clone(&self.templates), moving::quiet(project));
        self.templates.begin(move |cancelled| {
            let maker = Maker { sandboxes, templates, handler, project };
            match maker.make(&template, cancelled) {
                Ok(()) => tracing::info!(key = template.key(), "the next machine of this shape need not boot"),
                Err(error) => tracing::warn!(error = error.chain(), "no template was made"),
            }
        });
    }
}

/// Makes a template, with the limits of the project that will not be in it.
struct Maker {
    sandboxes: Arc<Sandboxes>,
    templates: Arc<Templates>,
    handler: Handler,
    project: Project,
}

impl Maker {
    fn make(&self, template: &Template, cancelled: &Notify) -> Result<(), Error> {
        self.templates.make(template, |disks, place| {
            let machine = template.machine_with(disks);
            for drive in machine.drives.iter().filter(|drive| drive.access == DriveAccess::ReadWrite) {
                let made = File::create_new(&drive.file).and_then(|file| file.set_len(EMPTY));
                made.map_err(|error| Error::because(ErrorKind::Guest, error).step("make an empty disk"))?;
            }
            // For those that cannot have an interface without a wire.
            let wire = machine.nic.map(|_| Network::tap_only()).transpose().explain()?;
            let (netns, mut tap) = wire.unzip();
            let order = Order { id: moving::new_id(), project: &self.project, lease: unconnected(netns, None) };
            // It has no volumes.
            let site = Site { sandboxes: &self.sandboxes, hidden: Path::new("/") };
            let mut started = launch(site, &order, &mut tap, self.handler, &machine, Begin::Template)?;
            let saved = save(&mut started, &machine, place, cancelled);
            started.guest.sandbox.destroy().explain().and(saved)
        })
    }
}

/// Boots it, and saves it as soon as its agent waits for orders.
fn save(started: &mut Started, machine: &Machine, place: &Path, cancelled: &Notify) -> Result<Snapshot, Error> {
    let agent = started.agent();
    boot_unless(started, machine, &agent, cancelled.notified())?;
    let order = serde_json::to_vec(&GuestPrepare { usr: usr_disk(machine) });
    let order = order.map_err(|error| Error::because(ErrorKind::Guest, error))?;
    runtime()
        .block_on(agent.post("/garth/guest/prepare", order, DISK))
        .map_err(|error| error.step("prepare the guest"))?;
    drop(agent);
    started.control.pause().explain()?;
    started.control.save(machine, place).explain()?.record().explain()
}
