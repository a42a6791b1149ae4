use std::convert::Infallible;

use clap::Args;
use garth_api::{CreateProject, Project};
use garth_spec::{ProjectName, Runtime};

use super::{inspect, shell};
use crate::context::{Context, Repeat};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::options::{ProcessOptions, SpecOptions};
use crate::process::{self, Printed};
use crate::{output, terminal};

#[derive(Debug, Args)]
#[command(after_help = "\
Without --name the project gets a made-up name; it stays until `garth rm`. With --rm it goes with
the command, even when this program is killed. A named project that exists is used as it is.

Examples:
  garth run --rm -- python3 -c 'print(6*7)'
  garth run --name web --memory 512MiB -i -t -- bash
  garth run --name web -d -- python3 -m http.server")]
pub struct Run {
    /// Name of the project to make, or to use if it exists
    #[arg(long, add = crate::complete::projects())]
    pub name: Option<ProjectName>,
    /// Remove the project and its files when the command ends
    #[arg(long, conflicts_with = "detach")]
    pub rm: bool,
    #[command(flatten)]
    pub spec: SpecOptions,
    #[command(flatten)]
    pub process: ProcessOptions,
    /// The program and its arguments, passed on word for word [default: the image's own command, or a shell]
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

pub async fn run(context: &Context, args: Run) -> Result<u8> {
    let project = project(context, &args).await?;
    if !args.rm {
        if args.name.is_none() {
            output::note(&format!("project {} stays: garth rm {0}", project.name));
        }
        return command(context, &project, args).await;
    }
    let ran_and_removed = async {
        let ran = command(context, &project, args).await;
        // The daemon would do it when the hold drops; done here, it is done when this program ends.
        let removed = context.ask(Repeat::Unsafe, async |client| client.remove(&project.name).await).await;
        match removed {
            Err(failure) if failure.exit != Exit::NotFound => ran.and(Err(failure)),
            _ => ran,
        }
    };
    tokio::select! {
        code = ran_and_removed => code,
        never = hold(context, &project.name) => match never {},
    }
}

/// The project to run in: a new one, or the one of that name if it is as asked.
async fn project(context: &Context, args: &Run) -> Result<Project> {
    let wanted =
        CreateProject { name: args.name.clone(), ephemeral: args.rm, spec: args.spec.spec(&args.process.place) };
    // One that is made up and ephemeral and that nobody was told of goes by itself.
    let repeat = if args.rm && args.name.is_none() { Repeat::Safe } else { Repeat::Unsafe };
    let made = context.ask(repeat, async |client| client.create(&wanted).await).await;
    let (Err(failure), Some(name), false) = (&made, &args.name, args.rm) else { return made };
    if failure.code != "already_exists" {
        return made;
    }
    let there = context.ask(Repeat::Safe, async |client| client.project(name).await).await?;
    if let Some(least) = args.spec.at_least.filter(|least| there.spec.runtime.runtime() < *least) {
        let message = format!("project {name} exists and has the runtime {}, weaker than {least}", there.spec.runtime);
        return Err(Failure::new(Exit::Refused, "runtime_too_weak", message)
            .hint(format!("garth set {name} --runtime {least} stops it and keeps its files")));
    }
    if (SpecOptions { at_least: None, ..args.spec.clone() }).over(&there.spec) == there.spec {
        return Ok(there);
    }
    let message = format!("project {name} exists and is not as asked");
    Err(Failure { message, ..failure.clone() }
        .hint(format!("see garth inspect {name}; change it with garth set {name}, or leave the flags out")))
}

async fn command(context: &Context, project: &Project, args: Run) -> Result<u8> {
    let (options, command) = if args.command.is_empty() {
        default_command(context, project, args.process).await?
    } else {
        (args.process, args.command)
    };
    if project.spec.runtime.runtime() == Runtime::Microvm {
        let started = context.ask(Repeat::Safe, async |client| client.start(&project.name).await).await?;
        inspect::warn_of_translation(&started);
    }
    let printed = if args.name.is_some() { Printed::Id } else { Printed::NameAndId };
    process::run(context, &project.name, &options, &command, printed).await
}

/// What the image says, else a shell for whoever sits here.
async fn default_command(
    context: &Context,
    project: &Project,
    options: ProcessOptions,
) -> Result<(ProcessOptions, Vec<String>)> {
    let image = context.ask(Repeat::Safe, async |client| client.image(&project.spec.image).await).await?;
    let command: Vec<String> = image.config.entrypoint.into_iter().chain(image.config.cmd).collect();
    if !command.is_empty() {
        return Ok((options, command));
    }
    if options.tty || terminal::both_ends() {
        return Ok((shell::options(options.place, options.no_tty), shell::command()));
    }
    Err(Failure::usage(format!("there is no command, and the image {} has none", project.spec.image))
        .hint("put the command after --, as in: garth run -- uname -a"))
}

/// Holds the project as long as this program lives, over restarts of the daemon.
async fn hold(context: &Context, name: &ProjectName) -> Infallible {
    while let Ok(mut hold) = context.ask(Repeat::Safe, async |client| client.hold(name).await).await {
        hold.ended().await;
    }
    std::future::pending().await
}
