//! The steps of each operation, in order, with what undoes them. They block, and run one project's
//! operation at a time; after each step stands the name by which a test kills the daemon there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use garth_spec::{Handler, ImageName, Limits, ProjectSpec, ProjectState, Runtime, SandboxId, Transition};
use garth_verify::Verified;
use jiff::Timestamp;

use crate::engine::Shared;
use crate::error::{Error, ErrorKind};
use crate::fault::{self, Point};
use crate::local::{Live, Local, Order, PausedRecord, Woken};
use crate::project::{EndedReason, Project, SandboxEntry, random_bits};
use crate::store::Durability::Crash;

/// How long processes have to end when no one says.
const GRACE: Duration = Duration::from_secs(2);
/// The same for a system with an init of its own, which stops its services first.
const INIT_GRACE: Duration = Duration::from_secs(10);

/// How long the processes of a project have to end when no one says.
pub(crate) fn grace(spec: &ProjectSpec) -> Duration {
    if spec.init.is_some() { INIT_GRACE } else { GRACE }
}

/// Refuses a spec before anything is made for it.
pub(crate) fn check(local: &Local, spec: &ProjectSpec) -> Result<(), Error> {
    spec.check()?;
    check_strength(spec)?;
    local.check(spec)?;
    handler(local, spec).map(drop)
}

/// The spec with the weakest runtime of this host that carries it out and is `least` or stronger.
pub(crate) fn at_least(local: &Local, least: Runtime, spec: &ProjectSpec) -> Result<ProjectSpec, Error> {
    let of = |runtime: Runtime| ProjectSpec { runtime: runtime.into(), at_least: Some(least), ..spec.clone() };
    let stronger = Runtime::ALL.into_iter().filter(|runtime| *runtime > least).map(of);
    let first = of(least);
    // What the one that was named lacks is what people want to know.
    let Err(lacking) = check(local, &first) else { return Ok(first) };
    stronger.into_iter().find(|spec| check(local, spec).is_ok()).ok_or(lacking)
}

/// What carries the spec out here: all of it.
fn handler(local: &Local, spec: &ProjectSpec) -> Result<Handler, Error> {
    let handler = local.handler(spec.runtime)?;
    spec.check_handler(handler)?;
    local.check_handler(handler, spec)?;
    Ok(handler)
}

fn check_strength(spec: &ProjectSpec) -> Result<(), Error> {
    let runtime = spec.runtime.runtime();
    match spec.at_least.filter(|at_least| runtime < *at_least) {
        Some(at_least) => Err(ErrorKind::RuntimeTooWeak { runtime, at_least }.into()),
        None => Ok(()),
    }
}

/// Makes a project's disk; on failure nothing is left.
pub(crate) fn create(shared: &Shared, project: &mut Project) -> Result<(), Error> {
    let doing = |error: Error| error.doing(|| format!("cannot create {}", project.name));
    shared.store.insert(project).map_err(doing)?;
    fault::reach(Point::CreateRecorded);
    let made = make_disk(shared, project).and_then(|()| {
        fault::reach(Point::CreateDiskMade);
        project.step(Transition::Made)?;
        shared.store.save(project, project.durability())
    });
    if let Err(error) = made {
        project.state = ProjectState::Creating;
        let undone = shared.local.remove_disk(project.id).and_then(|()| shared.store.delete(project));
        if let Err(left) = undone {
            tracing::error!(project = %project.name, error = left.chain(), "the next start of the daemon undoes this");
        }
        return Err(error.doing(|| format!("cannot create {}", project.name)));
    }
    fault::reach(Point::CreateCommitted);
    Ok(())
}

fn make_disk(shared: &Shared, project: &mut Project) -> Result<(), Error> {
    if project.spec.image == ImageName::host() {
        shared.images.ensure_host(&shared.local, &shared.store).map_err(|error| error.step("image"))?;
    }
    shared.images.with(&project.spec.image, |image| {
        project.image = Some(image.id);
        project.image_config = image.config.clone();
        shared.local.create_disk(project.id, image.id, project.spec.limits.disk).map_err(|error| error.step("disk"))
    })
}

/// Makes a project's sandbox; on failure the project is stopped and says why.
pub(crate) fn start(shared: &Shared, project: &mut Project) -> Result<Live, Error> {
    let doing = |error: Error, project: &Project| error.doing(|| format!("cannot start {}", project.name));
    let handler = handler(&shared.local, &project.spec).map_err(|error| doing(error, project))?;
    project.step(Transition::Start)?;
    let id = SandboxId::from_bits(random_bits());
    project.sandbox = Some(SandboxEntry {
        id,
        runtime: handler.runtime(),
        handler,
        network: project.spec.network,
        record: None,
        lease: None,
        addresses: None,
        volumes: project.spec.volumes.clone(),
        read_only: project.spec.read_only,
        has_init: project.spec.init.is_some(),
        capabilities: project.spec.capabilities.clone(),
        paused: None,
    });
    // Not written down: a sandbox that the store does not know is ended by the next daemon, which is what becomes of
    // one that was starting.
    fault::reach(Point::StartBegun);
    bring_up(shared, project, id, handler).map_err(|error| {
        fault::reach(Point::StartFailed);
        give_up(shared, project, id, &error);
        doing(error, project)
    })
}

fn bring_up(shared: &Shared, project: &mut Project, id: SandboxId, handler: Handler) -> Result<Live, Error> {
    let begun = Instant::now();
    let lease = shared.local.lease(id, handler, project.spec.network).map_err(|error| error.step("network"))?;
    shared.local.limit_network(id, project.spec.limits.network_rate)?;
    fault::reach(Point::StartLeased);
    let leased = begun.elapsed();
    let (record, addresses) = (lease.record.clone(), lease.addresses);
    let live = shared.local.start(Order { id, project, lease })?;
    fault::reach(Point::StartStarted);
    let started = begun.elapsed();
    let mut running = project.clone();
    running.step(Transition::Ready)?;
    running.started_at = Some(Timestamp::now());
    if let Some(entry) = &mut running.sandbox {
        entry.record = Some(live.sandbox.record());
        entry.lease = record;
        entry.addresses = addresses;
    }
    if let Err(error) = shared.store.save(&running, Crash) {
        live.sandbox.destroy()?;
        return Err(error);
    }
    fault::reach(Point::StartCommitted);
    tracing::debug!(project = %project.name, %id, ?leased, ?started, stored = ?begun.elapsed(), "started");
    *project = running;
    Ok(live)
}

/// Undoes what a failed start left. The sandbox itself is gone: whoever fails to start one removes it.
fn give_up(shared: &Shared, project: &mut Project, id: SandboxId, error: &Error) {
    let released = shared.local.release(id);
    let moved = project.step(Transition::Failed);
    project.end(EndedReason::StartFailed, Some(error.chain()));
    if let Err(left) = released.and(moved).and_then(|()| shared.store.save(project, Crash)) {
        tracing::error!(project = %project.name, error = left.chain(), "the next start of the daemon undoes this");
    }
}

/// Brings a project's sandbox to rest. On failure it runs on.
pub(crate) fn pause(shared: &Shared, project: &mut Project, live: Arc<Live>) -> Result<Option<Arc<Live>>, Error> {
    let doing = |error: Error, project: &Project| error.doing(|| format!("cannot pause {}", project.name));
    project.step(Transition::Pause).map_err(|error| doing(error, project))?;
    note(shared, project);
    fault::reach(Point::PauseRecorded);
    let rest = match shared.local.pause(project, live) {
        Ok(rest) => rest,
        Err(error) => {
            project.step(Transition::Failed)?;
            note(shared, project);
            return Err(doing(error.step("freeze"), project));
        }
    };
    fault::reach(Point::PauseRested);
    project.step(Transition::Rests)?;
    if let Some(entry) = &mut project.sandbox {
        entry.paused = Some(rest.record);
        if rest.record == PausedRecord::Saved {
            // Its wire went with it; it is given another when it wakes.
            (entry.lease, entry.addresses) = (None, None);
        }
    }
    note(shared, project);
    fault::reach(Point::PauseCommitted);
    Ok(rest.live)
}

/// Wakes a project's sandbox. On failure it stays paused.
pub(crate) fn resume(shared: &Shared, project: &mut Project, live: Option<Arc<Live>>) -> Result<Arc<Live>, Error> {
    let doing = |error: Error, project: &Project| error.doing(|| format!("cannot resume {}", project.name));
    project.step(Transition::Resume).map_err(|error| doing(error, project))?;
    note(shared, project);
    fault::reach(Point::ResumeRecorded);
    let Woken { live, lease } = match shared.local.resume(project, live) {
        Ok(woken) => woken,
        Err(error) => {
            project.step(Transition::Failed)?;
            note(shared, project);
            return Err(doing(error.step("wake"), project));
        }
    };
    fault::reach(Point::ResumeWoken);
    project.step(Transition::Ready)?;
    if let Some(entry) = &mut project.sandbox {
        entry.record = Some(live.sandbox.record());
        entry.paused = None;
        if let Some((record, addresses)) = lease {
            entry.lease = record;
            entry.addresses = addresses;
        }
    }
    note(shared, project);
    fault::reach(Point::ResumeCommitted);
    Ok(live)
}

/// Notes that the sandbox is to end, so that the next daemon goes on with it: its processes are being ended by now.
pub(crate) fn begin_stop(shared: &Shared, project: &mut Project) -> Result<(), Error> {
    project.step(Transition::Stop)?;
    note(shared, project);
    fault::reach(Point::StopRecorded);
    Ok(())
}

/// Ends the sandbox, or what is left of it. Safe to repeat until it succeeds.
pub(crate) fn finish_stop(
    shared: &Shared,
    project: &mut Project,
    live: Option<&Live>,
    reason: EndedReason,
) -> Result<(), Error> {
    let doing = |error: Error, project: &Project| error.doing(|| format!("cannot stop {}", project.name));
    if project.state.has_sandbox() {
        // Not written down: killed from here on, the daemon leaves a sandbox that is what the store says, or gone.
        project.step(Transition::Stop)?;
    }
    let mut detail = None;
    if let Some(live) = live {
        detail = (reason == EndedReason::Died).then(|| how_it_died(live)).flatten();
        live.sandbox.destroy().map_err(|error| doing(error.step("destroy"), project))?;
    }
    fault::reach(Point::StopDestroyed);
    if let Some(id) = project.sandbox.as_ref().map(|entry| entry.id) {
        shared.local.release(id).map_err(|error| doing(error.step("network"), project))?;
    }
    fault::reach(Point::StopReleased);
    project.step(Transition::Gone)?;
    project.end(reason, detail);
    note(shared, project);
    fault::reach(Point::StopCommitted);
    Ok(())
}

/// Saves what the next daemon would find out by itself. A store that cannot be written, on a full
/// disk above all, must not keep anyone from stopping sandboxes.
fn note(shared: &Shared, project: &Project) {
    if let Err(error) = shared.store.save(project, Crash) {
        tracing::warn!(project = %project.name, error = error.chain(), "the store is behind");
    }
}

fn how_it_died(live: &Live) -> Option<String> {
    let usage = live.sandbox.usage().ok()?;
    (usage.oom_kills > 0).then(|| "the kernel killed something in it for memory".to_owned())
}

/// Takes on a new spec: limits at once, the rest at the next start. On failure nothing has changed.
pub(crate) fn change(
    shared: &Shared,
    project: &mut Project,
    live: Option<&Live>,
    to: ProjectSpec,
) -> Result<(), Error> {
    let doing = |error: Error, project: &Project| error.doing(|| format!("cannot change {}", project.name));
    let from = project.spec.limits;
    let disk = from.disk != to.limits.disk;
    let sandbox = live.filter(|_| from != Limits { disk: from.disk, ..to.limits });
    if disk {
        shared.local.set_disk_limit(project.id, to.limits.disk).map_err(|error| doing(error.step("disk"), project))?;
        fault::reach(Point::ChangeDiskLimited);
    }
    let limited = limit(shared, project, sandbox, &to.limits);
    let saved = limited.and_then(|()| {
        fault::reach(Point::ChangeSandboxLimited);
        let changed = Project { spec: to, ..project.clone() };
        shared.store.save(&changed, changed.durability())?;
        *project = changed;
        Ok(())
    });
    if let Err(error) = saved {
        let disk_back = if disk { shared.local.set_disk_limit(project.id, from.disk) } else { Ok(()) };
        let back = disk_back.and(limit(shared, project, sandbox, &from));
        if let Err(left) = back {
            tracing::error!(project = %project.name, error = left.chain(), "limits are not what the store says");
        }
        return Err(doing(error.step("limits"), project));
    }
    fault::reach(Point::ChangeCommitted);
    Ok(())
}

fn limit(shared: &Shared, project: &Project, live: Option<&Live>, to: &Limits) -> Result<(), Error> {
    let (Some(live), Some(entry)) = (live, &project.sandbox) else { return Ok(()) };
    live.sandbox.set_limits(to)?;
    shared.local.limit_network(entry.id, to.network_rate)
}

/// Keeps how the check of a project's boundary ended.
pub(crate) fn verified(shared: &Shared, project: &mut Project, verified: Verified) -> Result<(), Error> {
    let checked = Project { verified: Some(verified), ..project.clone() };
    shared.store.save(&checked, checked.durability())?;
    *project = checked;
    Ok(())
}

/// Deletes a project that has no sandbox, with its disk. Safe to repeat until it succeeds.
pub(crate) fn remove(shared: &Shared, project: &mut Project) -> Result<(), Error> {
    let doing = |error: Error, project: &Project| error.doing(|| format!("cannot remove {}", project.name));
    if project.state != ProjectState::Removing {
        let mut removing = project.clone();
        removing.step(Transition::Remove)?;
        match shared.store.save(&removing, removing.durability()) {
            // Removing is how room is made. Killed between here and the end, it leaves a project
            // that says that its disk is missing, and that can be removed.
            Err(error) if *error.kind() == ErrorKind::NoSpace => {
                tracing::warn!(project = %project.name, error = error.chain(), "removing it all the same");
            }
            saved => saved.map_err(|error| doing(error, project))?,
        }
        *project = removing;
    }
    fault::reach(Point::RemoveRecorded);
    shared.local.remove_disk(project.id).map_err(|error| doing(error.step("disk"), project))?;
    fault::reach(Point::RemoveDiskGone);
    shared.store.delete(project).map_err(|error| doing(error, project))?;
    fault::reach(Point::RemoveCommitted);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_weaker_than_promised_is_refused() {
        let spec =
            |runtime: Runtime, at_least| ProjectSpec { runtime: runtime.into(), at_least, ..ProjectSpec::default() };
        assert!(check_strength(&spec(Runtime::Default, Some(Runtime::Default))).is_ok());
        for at_least in [Runtime::Sysbox, Runtime::Microvm] {
            let error = check_strength(&spec(Runtime::Default, Some(at_least))).expect_err("too weak");
            assert_eq!(*error.kind(), ErrorKind::RuntimeTooWeak { runtime: Runtime::Default, at_least });
        }
    }
}
