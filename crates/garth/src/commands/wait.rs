use clap::Args;
use garth_protocol::agent::WaitRequest;

use crate::agent::{Agent, Start};
use crate::context::{Context, Format};
use crate::events::{ended_json, exit_code};
use crate::failure::{Failure, Result};
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
    let agent = Agent::of(context, &args.project.name, Start::OnDemand);
    let request = WaitRequest { id: args.process, ..WaitRequest::default() };
    let answer = agent.ask(async |agent| agent.wait(request.clone()).await).await?.into_owned();
    let Some(ended) = answer.ended.into_option() else {
        return Err(Failure::protocol("the agent answered without how the process ended"));
    };
    if context.format == Format::Json {
        output::json_line(&ended_json(&ended))?;
    }
    exit_code(&ended)
}
