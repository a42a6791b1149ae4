use clap::Args;
use garth_api::Project;

use super::for_each;
use crate::context::{Context, Format, Repeat};
use crate::failure::Result;
use crate::options::SomeProjects;
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "\
Nothing in a paused project runs; its memory and its addresses stay. Whatever needs its sandbox (exec,
cp, logs, attach, verify, start) resumes it first; ps does not, and says that it is paused.
Clocks go on: a process whose --timeout passed meanwhile is ended when the project is resumed.")]
pub struct Pause {
    #[command(flatten)]
    pub projects: SomeProjects,
}

#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    pub projects: SomeProjects,
}

pub async fn pause(context: &Context, args: Pause) -> Result<u8> {
    let pause = async |name: &_| {
        let project = context.ask(Repeat::Safe, async |client| client.pause(name).await).await?;
        print(context, &project)
    };
    Ok(for_each(context, &args.projects.names, pause).await)
}

pub async fn resume(context: &Context, args: Resume) -> Result<u8> {
    let resume = async |name: &_| {
        let project = context.ask(Repeat::Safe, async |client| client.resume(name).await).await?;
        print(context, &project)
    };
    Ok(for_each(context, &args.projects.names, resume).await)
}

fn print(context: &Context, project: &Project) -> Result<()> {
    match context.format {
        Format::Json => output::json_line(project),
        Format::Text => output::line(project.name.as_str()),
    }
}
