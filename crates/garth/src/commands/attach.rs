use clap::Args;
use garth_protocol::agent::GetRequest;

use crate::agent::{Agent, Start};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::follow::Follower;
use crate::options::OneProject;
use crate::session::{self, Wiring};
use crate::signals::Signals;

#[derive(Debug, Args)]
#[command(after_help = "\
The process goes on when this program is killed. A process that was started with -i or -t takes
your input; signals are passed on.")]
pub struct Attach {
    #[command(flatten)]
    pub project: OneProject,
    /// Id of the process, as printed by exec -d and ps
    #[arg(value_name = "PROCESS")]
    pub process: String,
    /// Print the output from this byte on, not only what comes from now on
    #[arg(long, value_name = "OFFSET")]
    pub since_offset: Option<u64>,
    /// Pass no input on
    #[arg(long)]
    pub no_stdin: bool,
}

pub async fn run(context: &Context, args: Attach) -> Result<u8> {
    let agent = Agent::of(context, &args.project.name, Start::Never);
    let request = GetRequest { id: args.process.clone(), ..GetRequest::default() };
    let answer = agent.ask(async |agent| agent.get(request.clone()).await).await?.into_owned();
    let Some(process) = answer.process.into_option() else {
        return Err(Failure::protocol("the agent answered without the process"));
    };
    let since = args.since_offset.unwrap_or(process.next_offset);
    let follower = Follower::attach(&agent, &args.process, since, true).await?;
    let input = (process.input_open && !args.no_stdin).then_some(process.input_offset);
    let wiring = Wiring { input, terminal: process.terminal, format: context.format };
    session::run(&agent, follower, wiring, Signals::catch()?).await
}
