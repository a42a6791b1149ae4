use clap::Args;
use garth_api::CreateProject;
use garth_spec::ProjectName;

use crate::context::{Context, Repeat};
use crate::failure::Result;
use crate::options::{PlaceOptions, SpecOptions};

#[derive(Debug, Args)]
pub struct Create {
    /// Its name, which is its hostname too; a made-up one when left out
    pub name: Option<ProjectName>,
    #[command(flatten)]
    pub spec: SpecOptions,
    #[command(flatten, next_help_heading = "Its processes")]
    pub place: PlaceOptions,
}

pub async fn run(context: &Context, args: Create) -> Result<u8> {
    let project = CreateProject { name: args.name, ephemeral: false, spec: args.spec.spec(&args.place) };
    let made = context.ask(Repeat::Unsafe, async |client| client.create(&project).await).await?;
    context.print(&made, |made| format!("{}\n", made.name))?;
    Ok(0)
}
