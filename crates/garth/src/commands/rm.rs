use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use clap::Args;
use garth_spec::ProjectName;
use serde_json::json;

use super::for_each;
use crate::context::{Context, Format, Repeat};
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::options::SomeProjects;
use crate::output;

#[derive(Debug, Args)]
pub struct Rm {
    #[command(flatten)]
    pub projects: SomeProjects,
    /// Do not ask; a project that is not there is no error
    #[arg(long, short, visible_alias = "yes", visible_short_alias = 'y')]
    pub force: bool,
}

pub async fn run(context: &Context, args: Rm) -> Result<u8> {
    let names = &args.projects.names;
    if !args.force {
        confirm(names)?;
    }
    let remove = async |name: &ProjectName| {
        match context.ask(Repeat::Unsafe, async |client| client.remove(name).await).await {
            Err(failure) if args.force && failure.exit == Exit::NotFound => return Ok(()),
            other => other?,
        }
        match context.format {
            Format::Json => output::json_line(&json!({ "removed": name })),
            Format::Text => output::line(name.as_str()),
        }
    };
    Ok(for_each(context, names, remove).await)
}

fn confirm(names: &[ProjectName]) -> Result<()> {
    let names: Vec<&str> = names.iter().map(ProjectName::as_str).collect();
    let names = names.join(", ");
    if !io::stdin().is_terminal() {
        let message = format!("deleting {names} needs a confirmation, and there is no terminal to ask on");
        return Err(Failure::new(Exit::Refused, "not_confirmed", message).hint("add -f to delete without being asked"));
    }
    eprint!("Delete {names} and all files in it for good? [y/N] ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(|error| Failure::io("cannot read the answer", &error))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Refused, "not_confirmed", "nothing was deleted")),
    }
}
