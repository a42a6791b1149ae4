use clap::{Args, ValueEnum};
use garth_protocol::agent::Stream;

use crate::agent::{Agent, Start};
use crate::context::Context;
use crate::events::Printer;
use crate::failure::Result;
use crate::follow::Follower;
use crate::options::OneProject;

#[derive(Debug, Args)]
#[command(after_help = "\
What a process writes is kept on the project's disk, the oldest going first, and stays readable
after the process, the sandbox or the daemon ended. With --json every piece has its offset:
the next one begins at offset plus length. Both streams share one offset.")]
pub struct Logs {
    #[command(flatten)]
    pub project: OneProject,
    /// Id of the process, as printed by exec -d and ps
    #[arg(value_name = "PROCESS")]
    pub process: String,
    /// Stay until the process ends
    #[arg(long, short)]
    pub follow: bool,
    /// Begin at this byte of the output
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub since_offset: u64,
    /// Only one of the streams
    #[arg(long, value_name = "STREAM")]
    pub only: Option<Only>,
}

/// A stream of a process without a terminal.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Only {
    /// Standard output
    Stdout,
    /// Standard error
    Stderr,
}

pub async fn run(context: &Context, args: Logs) -> Result<u8> {
    let agent = Agent::of(context, &args.project.name, Start::Once);
    let mut follower = Follower::attach(&agent, &args.process, args.since_offset, args.follow).await?;
    let only = args.only.map(|only| match only {
        Only::Stdout => Stream::Stdout,
        Only::Stderr => Stream::Stderr,
    });
    // How the process ended is what `wait` is for.
    Printer::new(context.format).only(only).show_kept(&mut follower).await?;
    Ok(0)
}
