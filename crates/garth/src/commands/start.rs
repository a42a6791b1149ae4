use clap::Args;

use super::{for_each, inspect};
use crate::context::{Context, Format, Repeat};
use crate::failure::Result;
use crate::options::SomeProjects;
use crate::{output, waits};

#[derive(Debug, Args)]
pub struct Start {
    #[command(flatten)]
    pub projects: SomeProjects,
}

pub async fn run(context: &Context, args: Start) -> Result<u8> {
    let start = async |name: &_| {
        let started = context.ask(Repeat::Safe, async |client| client.start(name).await);
        let project = waits::told(context, name, started).await?;
        inspect::warn_of_translation(&project);
        match context.format {
            Format::Json => output::json_line(&project),
            Format::Text => output::line(name.as_str()),
        }
    };
    Ok(for_each(context, &args.projects.names, start).await)
}
