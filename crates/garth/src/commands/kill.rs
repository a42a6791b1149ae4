use clap::Args;
use garth_protocol::agent::{SignalRequest, SignalScope};
use serde_json::json;

use super::for_each;
use crate::agent::{Agent, Start};
use crate::context::{Context, Format};
use crate::failure::Result;
use crate::options::OneProject;
use crate::output;
use crate::signals::SignalName;

#[derive(Debug, Args)]
pub struct Kill {
    #[command(flatten)]
    pub project: OneProject,
    /// Ids of the processes, as printed by exec -d and ps
    #[arg(value_name = "PROCESS", required = true)]
    pub processes: Vec<String>,
    /// Signal to send: a name or a number
    #[arg(long, short, default_value = "KILL")]
    pub signal: SignalName,
    /// Only to the process itself, not to what it started
    #[arg(long)]
    pub leader: bool,
}

pub async fn run(context: &Context, args: Kill) -> Result<u8> {
    let agent = Agent::of(context, &args.project.name, Start::Never);
    let scope = if args.leader { SignalScope::Leader } else { SignalScope::Tree };
    let kill = async |id: &String| {
        let request =
            SignalRequest { id: id.clone(), signal: args.signal.0, scope: scope.into(), ..SignalRequest::default() };
        let answer = agent.ask(async |agent| agent.signal(request.clone()).await).await?.into_owned();
        match context.format {
            Format::Json => output::json_line(&json!({ "process": id, "signaled": answer.signaled })),
            Format::Text => output::line(id),
        }
    };
    Ok(for_each(context, &args.processes, kill).await)
}
