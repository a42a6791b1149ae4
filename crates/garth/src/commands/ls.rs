use clap::Args;
use garth_api::{Project, ProjectList};
use garth_spec::ProjectState;

use crate::context::{Context, Format, Repeat};
use crate::failure::Result;
use crate::options::Label;
use crate::output;

#[derive(Debug, Args)]
pub struct Ls {
    /// Only those that run
    #[arg(long)]
    pub running: bool,
    /// All of them, as without it
    #[arg(long, short, hide = true, conflicts_with = "running")]
    pub all: bool,
    /// Only those with this label; can be given again
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub labels: Vec<Label>,
    /// Print names only
    #[arg(long, short)]
    pub quiet: bool,
}

pub async fn run(context: &Context, args: Ls) -> Result<u8> {
    let mut list = context.ask(Repeat::Safe, async |client| client.projects().await).await?;
    list.projects.retain(|project| wanted(project, &args));
    if args.quiet && context.format == Format::Text {
        output::print(&list.projects.iter().map(|project| format!("{}\n", project.name)).collect::<String>())?;
    } else {
        context.print(&list, |list| table(list, output::now()))?;
    }
    Ok(0)
}

fn wanted(project: &Project, args: &Ls) -> bool {
    let labelled = |label: &Label| project.spec.labels.get(&label.key) == Some(&label.value);
    (!args.running || project.state == ProjectState::Running) && args.labels.iter().all(labelled)
}

fn table(list: &ProjectList, now: i64) -> String {
    let rows: Vec<[String; 6]> = list.projects.iter().map(|project| row(project, now)).collect();
    output::table(["NAME", "STATE", "RUNTIME", "IMAGE", "MEMORY", "CREATED"], &rows)
}

fn row(project: &Project, now: i64) -> [String; 6] {
    [
        project.name.to_string(),
        project.state.to_string(),
        project.runtime.requested.to_string(),
        project.spec.image.to_string(),
        project.spec.limits.memory.to_string(),
        output::ago(project.created_at.as_second(), now),
    ]
}
