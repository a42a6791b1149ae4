//! Boots a guest of nobody's, to see whether one does.

use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::time::{Duration, Instant};

use garth_spec::{ByteSize, Handler, Limits, ProjectSpec, ProjectState, Runtime};
use garth_vm::{Begin, Machine};
use jiff::Timestamp;

use super::launch::launch;
use super::machine::boot;
use super::{Host, moving, unconnected};
use crate::doctor::boots::{self, Tried};
use crate::doctor::{Finding, Findings, microvm};
use crate::error::{Error, ErrorKind};
use crate::local::Order;
use crate::project::{Lasting, Project, new_id};

/// Enough for any distribution's kernel.
const MEMORY: ByteSize = ByteSize::mib(256);

impl Host {
    /// Tries each handler of which nothing is known yet, and nothing bad.
    pub(super) fn try_boots(&self, findings: &mut Findings) {
        for (handler, found) in &mut findings.runtimes {
            let tried = found.iter().any(|finding| finding.name == "boot");
            if handler.runtime() == Runtime::Microvm && !tried && found.iter().all(|finding| finding.ok) {
                found.extend(self.try_boot(*handler));
            }
        }
    }

    /// One at a time: a daemon that waited for another finds what that found.
    fn try_boot(&self, handler: Handler) -> Option<Finding> {
        let tried = Tried::of(handler, &self.here())?;
        let (cache, directory) = (&self.guests.cache_dir, boots::directory(&self.guests.cache_dir));
        let locked = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
            let file = File::create(directory.join("lock"))?;
            file.lock().map(|()| file)
        };
        let locked = match locked() {
            Ok(locked) => locked,
            Err(error) => return Some(tried.found(handler, cache, Err(Error::because(ErrorKind::Guest, error)))),
        };
        let found = tried.known(handler, cache);
        let found = found.unwrap_or_else(|| tried.found(handler, cache, self.boot_one(handler)));
        drop(locked);
        Some(found)
    }

    fn boot_one(&self, handler: Handler) -> Result<Duration, Error> {
        let (artifacts, sandboxes) = (self.artifacts()?, self.sandboxes()?);
        let machine = Machine {
            vcpus: 1,
            memory: MEMORY,
            kernel: artifacts.vmlinux(),
            initrd: artifacts.initrd(),
            drives: Vec::new(),
            nic: None,
            shares: Vec::new(),
            accelerator: microvm::accelerator(handler, &self.here())?,
        };
        let project = nobody()?;
        let order = Order { id: moving::new_id(), project: &project, lease: unconnected(None, None) };
        let begun = Instant::now();
        let mut started = launch(self.site(&sandboxes), &order, &mut None, handler, &machine, Begin::Boot)?;
        let agent = started.agent();
        let booted = boot(&mut started, &machine, &agent).map(|()| begun.elapsed());
        started.end(booted)
    }
}

/// A project that is in no store.
fn nobody() -> Result<Project, Error> {
    let limits = Limits { memory: MEMORY, ..Limits::default() };
    Ok(Project {
        id: new_id(Lasting::Ephemeral),
        name: "boot-trial".parse().map_err(|error| Error::because(ErrorKind::Guest, error))?,
        state: ProjectState::Stopped,
        ephemeral: true,
        spec: ProjectSpec { limits, ..ProjectSpec::default() },
        image: None,
        image_config: garth_spec::ImageConfig::default(),
        created_at: Timestamp::now(),
        started_at: None,
        ended: None,
        verified: None,
        sandbox: None,
    })
}
