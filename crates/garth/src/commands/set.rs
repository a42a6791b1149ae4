use clap::{ArgAction, Args};
use garth_api::{Changed, LimitsPatch, ProjectPatch};
use garth_spec::{Network, RuntimeChoice};

use crate::context::{Context, Repeat};
use crate::failure::{Failure, Result};
use crate::options::{CapabilityOptions, EnvOption, Label, LimitOptions, OneProject, VolumeOptions};

#[derive(Debug, Args)]
#[command(after_help = "\
Limits and labels change at once, all else with the next start. --cap-drop and --cap-add take the place
of what was asked before: --cap-add ALL alone gives back all that the runtime has.
Another runtime stops the sandbox; the files stay.

Examples:
  garth set web --memory 1GiB --cpus 2
  garth set web -e DEBUG=1 --unset-env OLD --label team=core")]
pub struct Set {
    #[command(flatten)]
    pub project: OneProject,
    #[command(flatten)]
    pub limits: LimitOptions,
    /// How it is isolated: default, sysbox or microvm; by one handler alone: sysbox/sysbox-runc, …
    #[arg(long)]
    pub runtime: Option<RuntimeChoice>,
    /// What it can reach: internet or none
    #[arg(long)]
    pub network: Option<Network>,
    /// Environment variable for every process; can be given again
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub env: Vec<EnvOption>,
    /// Environment variable to take away; can be given again
    #[arg(long, value_name = "NAME")]
    pub unset_env: Vec<String>,
    /// User that processes run as; empty for the image's own
    #[arg(long, short)]
    pub user: Option<String>,
    /// Directory that processes run in; empty for the image's own
    #[arg(long, short, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Program of the image that is process 1, such as /sbin/init; empty for none
    #[arg(long, value_name = "PATH")]
    pub init: Option<String>,
    /// Keep sudo and other set-user-id programs from gaining anything
    #[arg(long, value_name = "true|false", action = ArgAction::Set)]
    pub no_new_privs: Option<bool>,
    /// Make its root read-only, but for /tmp, /run, /dev/shm and volumes
    #[arg(long, value_name = "true|false", action = ArgAction::Set)]
    pub read_only: Option<bool>,
    #[command(flatten)]
    pub capabilities: CapabilityOptions,
    #[command(flatten)]
    pub volumes: VolumeOptions,
    /// Path of a volume to take away; can be given again
    #[arg(long, value_name = "PATH")]
    pub unset_volume: Vec<String>,
    /// Label; can be given again
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
    /// Label to take away; can be given again
    #[arg(long, value_name = "KEY")]
    pub unset_label: Vec<String>,
}

pub async fn run(context: &Context, args: Set) -> Result<u8> {
    let patch = patch(&args);
    if patch == ProjectPatch::default() {
        return Err(Failure::usage("there is nothing to change").hint("see garth set --help"));
    }
    let name = &args.project.name;
    let changed = context.ask(Repeat::Safe, async |client| client.patch(name, &patch).await).await?;
    context.print(&changed, text)?;
    Ok(0)
}

fn patch(args: &Set) -> ProjectPatch {
    let LimitOptions { memory, cpus, disk, pids, rates } = args.limits;
    let limits = LimitsPatch {
        memory,
        cpus,
        pids,
        disk,
        disk_rate: rates.disk_rate.map(|rate| rate.0),
        disk_iops: rates.disk_iops.map(|rate| rate.0),
        network_rate: rates.network_rate.map(|rate| rate.0),
    };
    let given = args.env.iter().map(|env| (env.name.clone(), env.value.clone()));
    let taken = args.unset_env.iter().map(|name| (name.clone(), None));
    let shown = args.volumes.volumes.iter().map(|option| (option.path.clone(), Some(option.volume.clone())));
    let hidden = args.unset_volume.iter().map(|path| (path.clone(), None));
    let labels = args.labels.iter().map(|label| (label.key.clone(), Some(label.value.clone())));
    let unlabelled = args.unset_label.iter().map(|key| (key.clone(), None));
    ProjectPatch {
        limits: (limits != LimitsPatch::default()).then_some(limits),
        runtime: args.runtime,
        network: args.network,
        env: given.chain(taken).collect(),
        user: args.user.clone().map(or_nothing),
        workdir: args.workdir.clone().map(or_nothing),
        init: args.init.clone().map(or_nothing),
        no_new_privs: args.no_new_privs,
        read_only: args.read_only,
        capabilities: args.capabilities.given(),
        volumes: shown.chain(hidden).collect(),
        labels: labels.chain(unlabelled).collect(),
    }
}

fn or_nothing(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn text(changed: &Changed) -> String {
    let mut text = format!("{}\n", changed.project.name);
    if changed.stopped {
        text += "the sandbox was stopped; the change is there with the next start\n";
    }
    if !changed.at_next_start.is_empty() {
        text += &format!("with the next start (garth restart {}): ", changed.project.name);
        text += &format!("{}\n", changed.at_next_start.join(", "));
    }
    text
}
