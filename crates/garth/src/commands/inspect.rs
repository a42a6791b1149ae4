use std::fmt::Write as _;

use clap::Args;
use garth_api::{EndedReason, Project, Verified, Waiting};
use garth_spec::{Accelerator, Volume};

use crate::context::{Context, Repeat};
use crate::failure::Result;
use crate::options::OneProject;
use crate::output::{self, ago, bytes, cell, now};

#[derive(Debug, Args)]
pub struct Inspect {
    #[command(flatten)]
    pub project: OneProject,
}

pub async fn run(context: &Context, args: Inspect) -> Result<u8> {
    let name = &args.project.name;
    let project = context.ask(Repeat::Safe, async |client| client.project(name).await).await?;
    context.print(&project, text)?;
    Ok(0)
}

fn text(project: &Project) -> String {
    let mut text = String::new();
    for (key, value) in rows(project) {
        let _ = writeln!(text, "{key:<12}  {}", cell(&value, 200));
    }
    text
}

fn rows(project: &Project) -> Vec<(&'static str, String)> {
    let spec = &project.spec;
    let mut rows = vec![
        ("name", project.name.to_string()),
        ("id", project.id.to_string()),
        ("state", state(project)),
        ("runtime", runtime(project)),
        ("image", spec.image.to_string()),
        ("network", network(project)),
        ("memory", of(project.usage.as_ref().map(|usage| usage.memory), spec.limits.memory.bytes())),
        ("disk", of(project.disk.as_ref().and_then(|disk| disk.used), spec.limits.disk.bytes())),
        ("cpus", spec.limits.cpus.to_string()),
        (
            "pids",
            project.usage.as_ref().map_or(String::new(), |usage| format!("{} of ", usage.pids))
                + &spec.limits.pids.to_string(),
        ),
        ("created", format!("{} ({})", project.created_at, ago(project.created_at.as_second(), now()))),
    ];
    rows.extend(project.waiting.as_ref().map(|waiting| ("waiting", waited(waiting))));
    rows.extend(spec.limits.disk_rate.map(|rate| ("disk rate", format!("{rate}/s"))));
    rows.extend(spec.limits.disk_iops.map(|iops| ("disk iops", iops.to_string())));
    rows.extend(spec.limits.network_rate.map(|rate| ("network rate", format!("{rate}/s"))));
    rows.extend(spec.at_least.map(|least| ("at least", least.to_string())));
    rows.extend(project.verified.as_ref().map(|verified| ("verified", verdict(verified))));
    if project.ephemeral {
        rows.push(("ephemeral", "yes: goes with whoever holds it".to_owned()));
    }
    rows.extend(spec.user.clone().map(|user| ("user", user)));
    rows.extend(spec.workdir.clone().map(|dir| ("workdir", dir)));
    rows.extend(spec.env.iter().map(|(name, value)| ("env", format!("{name}={value}"))));
    if spec.read_only {
        rows.push(("root", "read-only".to_owned()));
    }
    rows.extend(spec.capabilities.drop.iter().map(|one| ("without", one.to_string())));
    rows.extend(spec.capabilities.add.iter().map(|one| ("with", one.to_string())));
    rows.extend(spec.volumes.iter().map(|(path, volume)| ("volume", shown(path, volume))));
    rows.extend(spec.labels.iter().map(|(key, value)| ("label", format!("{key}={value}"))));
    if let Some(usage) = project.usage.as_ref().filter(|usage| usage.oom_kills > 0) {
        rows.push(("memory ran out", format!("{} times", usage.oom_kills)));
    }
    rows
}

fn shown(path: &str, volume: &Volume) -> String {
    format!("{} at {path}{}", volume.host, if volume.read_only { ", read-only" } else { "" })
}

fn waited(waiting: &Waiting) -> String {
    let since = waiting.since.map_or(String::new(), |since| format!(" ({})", ago(since.as_second(), now())));
    format!("{}{since}", waiting.message)
}

fn verdict(verified: &Verified) -> String {
    let Verified { at, runtime, checks, failed, .. } = verified;
    match verified.passed {
        true => format!("pass: {checks} checks of {runtime} at {at}"),
        false => format!("fail at {at}: {} ({} of {checks} checks of {runtime})", failed.join(", "), failed.len()),
    }
}

fn state(project: &Project) -> String {
    let since = project.started_at.filter(|_| project.sandbox_id.is_some());
    let ended = project.ended.as_ref().filter(|_| project.sandbox_id.is_none());
    match (since, ended) {
        (Some(since), _) => format!("{} since {since}", project.state),
        (_, Some(ended)) => {
            let why = ended.detail.clone().unwrap_or_else(|| why(ended.reason).to_owned());
            format!("{} since {} ({why})", project.state, ended.at)
        }
        _ => project.state.to_string(),
    }
}

fn why(reason: EndedReason) -> &'static str {
    match reason {
        EndedReason::Stopped => "stopped",
        EndedReason::Died => "died",
        EndedReason::Rebooted => "rebooted",
        EndedReason::RebootLoop => "rebooted again and again",
        EndedReason::PoweredOff => "switched itself off",
        EndedReason::Lost => "lost",
        EndedReason::StartFailed => "start failed",
        EndedReason::Idle => "idle",
    }
}

fn runtime(project: &Project) -> String {
    let by = match (project.runtime.handler, project.runtime.accelerator) {
        (Some(handler), Some(Accelerator::Tcg)) => format!(" (carried out by {handler}, translated: {SLOW})"),
        (Some(handler), Some(Accelerator::Kvm)) => format!(" (carried out by {handler}, with KVM)"),
        (Some(handler), None) => format!(" (carried out by {handler})"),
        (None, _) => String::new(),
    };
    format!("{}{by}", project.runtime.requested)
}

/// What a user should know of a guest that runs without KVM.
const SLOW: &str = "10 to 50 times slower, and the boundary is QEMU's and not the processor's";

/// Says so where a sandbox has just been started.
pub(super) fn warn_of_translation(project: &Project) {
    if project.runtime.accelerator == Some(Accelerator::Tcg) {
        output::note(&format!("without KVM, QEMU translates {} (TCG): {SLOW}; see garth doctor", project.name));
    }
}

fn network(project: &Project) -> String {
    let addresses = project.addresses.as_ref();
    let v4 = addresses.and_then(|found| found.ipv4).map(|address| format!(" {address}"));
    let v6 = addresses.and_then(|found| found.ipv6).map(|address| format!(" {address}"));
    format!("{}{}{}", project.spec.network, v4.unwrap_or_default(), v6.unwrap_or_default())
}

fn of(used: Option<u64>, limit: u64) -> String {
    used.map_or(String::new(), |used| format!("{} of ", bytes(used))) + &bytes(limit)
}
