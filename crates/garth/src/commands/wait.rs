use clap::Args;
use garth_protocol::agent::WaitRequest;

use crate::agent::{Agent, Start};
use crate::context::{Context, Format};
use crate::events::{ended_json, exit_code};
use crate::failure::{Failure, Result};
use crate::follow::lost;
use crate::options::OneProject;
use crate::output;

#[derive(Debug, Args)]
pub struct Wait {
    #[command(flatten)]
    pub project: OneProject,
    /// Id of the process, as printed by exec -d and ps
    #[arg(value_name = "PROCESS")]
    pub process: String,
}

pub async fn run(context: &Context, args: Wait) -> Result<u8> {
    let agent = Agent::of(context, &args.project.name, Start::Once);
    let request = WaitRequest { id: args.process, ..WaitRequest::default() };
    let ended = match agent.ask(async |agent| agent.wait(request.clone()).await).await {
        Ok(answer) => answer.into_owned().ended.into_option(),
        Err(failure) if failure.code == "not_running" => Some(lost()),
        Err(failure) => return Err(failure),
    };
    let ended = ended.ok_or_else(|| Failure::protocol("the agent answered without how the process ended"))?;
    if context.format == Format::Json {
        output::json_line(&ended_json(&ended))?;
    }
    exit_code(&ended)
}
