//! What a daemon does first: it makes the store and this host agree.
//!
//! ```text
//! store says   host shows           then
//! creating     perhaps a disk       undone
//! starting     perhaps a sandbox    ended, stopped
//! running      its sandbox          kept
//! running      none (a reboot)      stopped, "lost"
//! pausing      its sandbox          undone: running
//! paused       its sandbox          kept
//! resuming     its sandbox          finished: running
//! paused       its memory           kept
//! resuming     its memory           undone: paused
//! those three  none                 stopped, "lost"
//! stopping     perhaps a sandbox    ended, stopped
//! removing     perhaps a disk       finished
//! nothing      sandbox, addresses   ended
//! nothing      ephemeral disk       removed
//! nothing      other disk           a project again, as recovered-…: only `rm` deletes
//! nothing      image                removed; kept as recovered-… if the store was restored
//! ```

use std::collections::BTreeSet;

use garth_spec::{ImageName, ProjectId, ProjectSpec, ProjectState, SandboxId, Transition};
use jiff::Timestamp;

use crate::error::Error;
use crate::fault::{self, Point};
use crate::images::{ImageEntry, ImageSource};
use crate::local::{Live, Local, PausedRecord};
use crate::project::{EndedReason, Lasting, Project, lasting};
use crate::store::Durability::{Crash, PowerCut};
use crate::store::{Origin, Store};

/// What there is once store and host agree.
pub(crate) struct Settled {
    pub(crate) projects: Vec<(Project, Option<Live>)>,
    pub(crate) images: Vec<ImageEntry>,
}

/// Makes store and host agree. Safe to be killed at any point and repeated.
pub(crate) fn settle(local: &Local, store: &Store, origin: Origin) -> Result<Settled, Error> {
    fault::reach(Point::ReconcileOpened);
    let found = store.projects()?.into_iter().map(|project| {
        let live = recover(local, &project);
        (project, live)
    });
    let mut projects: Vec<_> = found.collect();
    let keep: Vec<SandboxId> =
        projects.iter().filter(|(_, live)| live.is_some()).filter_map(|(p, _)| sandbox(p)).collect();
    local.sweep_sandboxes(&keep)?;
    if let Err(error) = local.sweep_leases(&keep) {
        // It says so again to whoever asks for an address; projects without network go on.
        tracing::error!(error = error.chain(), hint = error.suggestion(), "the network was not looked at");
    }
    fault::reach(Point::ReconcileSwept);
    for (project, live) in &mut projects {
        settle_sandbox(local, store, project, live.as_ref())?;
    }
    fault::reach(Point::ReconcileSettled);
    let images = match settle_pool(local, store, origin, &mut projects) {
        Ok(images) => images,
        Err(error) => {
            // Without its pool the daemon still lists projects and says what to do about the pool.
            tracing::error!(error = error.chain(), "disks and images were not looked at");
            store.images()?
        }
    };
    fault::reach(Point::ReconcileCleaned);
    Ok(Settled { projects, images })
}

fn sandbox(project: &Project) -> Option<SandboxId> {
    project.sandbox.as_ref().map(|entry| entry.id)
}

/// The sandbox of a project that had a whole one, if it still has. Unless it is paused, it runs then.
fn recover(local: &Local, project: &Project) -> Option<Live> {
    let entry = project.sandbox.as_ref().filter(|_| project.state.has_sandbox())?;
    let recovered = local.recover(entry.id, entry.record.as_ref()?, entry.lease.as_ref());
    let awake = recovered.and_then(|live| match live {
        Some(live) if project.state != ProjectState::Paused => live.sandbox.thaw().map(|()| Some(live)),
        live => Ok(live),
    });
    let live = awake.unwrap_or_else(|error| {
        tracing::error!(project = %project.name, error = error.chain(), "its sandbox cannot be kept");
        None
    })?;
    // A change may have been cut short between the sandbox and the store.
    let limits = &project.spec.limits;
    let limited = live.sandbox.set_limits(limits).and_then(|()| local.limit_network(entry.id, limits.network_rate));
    if let Err(error) = limited {
        tracing::warn!(project = %project.name, error = error.chain(), "its limits could not be set again");
    }
    Some(live)
}

fn settle_sandbox(local: &Local, store: &Store, project: &mut Project, live: Option<&Live>) -> Result<(), Error> {
    let reason = match project.state {
        ProjectState::Running | ProjectState::Paused if live.is_some() => return Ok(()),
        ProjectState::Paused if is_saved(project) => return Ok(()),
        ProjectState::Resuming if is_saved(project) && local.has_memory(project.id) => {
            project.step(Transition::Failed)?;
            return store.save(project, Crash);
        }
        ProjectState::Pausing if live.is_some() => return settled_at(store, project, Transition::Failed),
        ProjectState::Resuming if live.is_some() => return settled_at(store, project, Transition::Ready),
        ProjectState::Running | ProjectState::Pausing | ProjectState::Paused | ProjectState::Resuming => {
            project.step(Transition::Stop)?;
            project.step(Transition::Gone)?;
            EndedReason::Lost
        }
        ProjectState::Starting => {
            project.step(Transition::Failed)?;
            EndedReason::Lost
        }
        ProjectState::Stopping => {
            project.step(Transition::Gone)?;
            EndedReason::Stopped
        }
        ProjectState::Creating | ProjectState::Stopped | ProjectState::Removing => return Ok(()),
    };
    tracing::info!(project = %project.name, ?reason, "stopped");
    project.end(reason, None);
    store.save(project, Crash)
}

/// Whether it is paused without a process: its memory is on disk.
fn is_saved(project: &Project) -> bool {
    project.sandbox.as_ref().is_some_and(|entry| entry.paused == Some(PausedRecord::Saved))
}

/// A pause or its end that was cut short leaves a sandbox that runs.
fn settled_at(store: &Store, project: &mut Project, transition: Transition) -> Result<(), Error> {
    project.step(transition)?;
    if let Some(entry) = &mut project.sandbox {
        entry.paused = None;
    }
    store.save(project, Crash)
}

fn settle_pool(
    local: &Local,
    store: &Store,
    origin: Origin,
    projects: &mut Vec<(Project, Option<Live>)>,
) -> Result<Vec<ImageEntry>, Error> {
    let mut images = store.images()?;
    local.sweep_pool()?;
    finish_removals(local, store, projects);
    settle_disks(local, store, projects)?;
    settle_images(local, store, origin, &mut images)?;
    Ok(images)
}

/// Undoes what was being created and finishes what was being removed; what fails is tried again by `rm`.
fn finish_removals(local: &Local, store: &Store, projects: &mut Vec<(Project, Option<Live>)>) {
    projects.retain(|(project, _)| {
        if !matches!(project.state, ProjectState::Creating | ProjectState::Removing) {
            return true;
        }
        let removed = local.remove_disk(project.id).and_then(|()| store.delete(project));
        removed
            .inspect_err(|error| tracing::error!(project = %project.name, error = error.chain(), "cannot remove it"))
            .is_err()
    });
}

fn settle_disks(local: &Local, store: &Store, projects: &mut Vec<(Project, Option<Live>)>) -> Result<(), Error> {
    let disks = local.disks()?;
    for (project, _) in projects.iter() {
        if !disks.iter().any(|(disk, _)| *disk == project.id) {
            tracing::error!(project = %project.name, id = %project.id, "its disk is missing");
        } else if local.has_quotas() {
            // A change may have been cut short between the disk and the store.
            let limited = local.set_disk_limit(project.id, project.spec.limits.disk);
            limited
                .unwrap_or_else(|error| tracing::warn!(project = %project.name, error = error.chain(), "disk limit"));
        }
    }
    let known: BTreeSet<ProjectId> = projects.iter().map(|(project, _)| project.id).collect();
    for (id, image) in disks.into_iter().filter(|(id, _)| !known.contains(id)) {
        if lasting(id) == Lasting::Ephemeral {
            tracing::warn!(%id, "removing the disk of an ephemeral project that no one knows");
            local.remove_disk(id)?;
            continue;
        }
        // Rows come first and go last: this store is older than the pool, because someone restored it or because
        // the power went a moment after the disk was made.
        let project = adopted(id, local.images()?.into_iter().find(|stored| stored.id == image));
        tracing::warn!(%id, name = %project.name, "a disk that the store does not know is a project again");
        store.insert(&project)?;
        store.save(&project, PowerCut)?;
        projects.push((project, None));
    }
    Ok(())
}

/// A project made up for a disk whose row is lost.
fn adopted(id: ProjectId, image: Option<crate::local::Stored>) -> Project {
    Project {
        id,
        name: format!("recovered-{id}").parse().expect("hexadecimal digits are part of a name"),
        state: ProjectState::Stopped,
        ephemeral: false,
        spec: ProjectSpec::default(),
        image: image.as_ref().map(|image| image.id),
        image_config: image.map(|image| image.config).unwrap_or_default(),
        created_at: Timestamp::now(),
        started_at: None,
        ended: None,
        verified: None,
        sandbox: None,
    }
}

fn settle_images(local: &Local, store: &Store, origin: Origin, images: &mut Vec<ImageEntry>) -> Result<(), Error> {
    let stored = local.images()?;
    let (there, gone): (Vec<_>, Vec<_>) = images.drain(..).partition(|image| stored.iter().any(|s| s.id == image.id));
    *images = there;
    for image in gone {
        tracing::error!(image = %image.name, id = %image.id, "its files are missing; forgetting it");
        store.delete_image(&image)?;
    }
    for unknown in stored {
        if images.iter().any(|image| image.id == unknown.id) {
            continue;
        }
        if origin == Origin::Continued {
            // On a pool without snapshots, disks may still read the files of an image that was forgotten.
            if let Err(error) = local.remove_image(unknown.id) {
                tracing::debug!(id = %unknown.id, error = error.chain(), "an image that no one knows stays");
            }
            continue;
        }
        let image = ImageEntry {
            id: unknown.id,
            name: format!("recovered-{}", unknown.id)
                .parse::<ImageName>()
                .expect("hexadecimal digits are part of a name"),
            source: ImageSource::Imported,
            config: unknown.config,
            size: unknown.size,
            created_at: Timestamp::now(),
        };
        store.insert_image(&image)?;
        images.push(image);
    }
    Ok(())
}
