use std::time::Duration;

use clap::Args;
use garth_api::StopRequest;

use super::for_each;
use crate::context::{Context, Format, Repeat};
use crate::failure::Result;
use crate::options::SomeProjects;
use crate::{duration, output};

#[derive(Debug, Args)]
pub struct Stop {
    #[command(flatten)]
    pub projects: SomeProjects,
    #[command(flatten)]
    pub grace: Grace,
}

#[derive(Debug, Args)]
pub struct Restart {
    #[command(flatten)]
    pub projects: SomeProjects,
    #[command(flatten)]
    pub grace: Grace,
}

#[derive(Debug, Args)]
pub struct Grace {
    /// Time for processes to end by themselves before they are killed; 0 kills at once [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse_or_zero)]
    pub grace: Option<Duration>,
}

impl Grace {
    fn request(&self) -> StopRequest {
        StopRequest { grace_ms: self.grace.map(|grace| duration::millis(grace).into()) }
    }
}

pub async fn stop(context: &Context, args: Stop) -> Result<u8> {
    let request = args.grace.request();
    let stop = async |name: &_| {
        let project = context.ask(Repeat::Safe, async |client| client.stop(name, &request).await).await?;
        match context.format {
            Format::Json => output::json_line(&project),
            Format::Text => output::line(name.as_str()),
        }
    };
    Ok(for_each(context, &args.projects.names, stop).await)
}

pub async fn restart(context: &Context, args: Restart) -> Result<u8> {
    let request = args.grace.request();
    let restart = async |name: &_| {
        let project = context.ask(Repeat::Safe, async |client| client.restart(name, &request).await).await?;
        match context.format {
            Format::Json => output::json_line(&project),
            Format::Text => output::line(name.as_str()),
        }
    };
    Ok(for_each(context, &args.projects.names, restart).await)
}
