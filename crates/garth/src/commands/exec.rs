use clap::Args;

use crate::context::Context;
use crate::failure::Result;
use crate::options::{OneProject, ProcessOptions};
use crate::process::{self, Printed};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  garth exec web -- ls -l /root
  echo hello | garth exec -i web -- cat
  garth exec -it web -- bash
  garth exec --timeout 30s web -- make test
  p=$(garth exec -d web -- ./server); garth logs -f web $p")]
pub struct Exec {
    #[command(flatten)]
    pub project: OneProject,
    #[command(flatten)]
    pub process: ProcessOptions,
    /// The program and its arguments, passed on word for word
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

pub async fn run(context: &Context, args: Exec) -> Result<u8> {
    process::run(context, &args.project.name, &args.process, &args.command, Printed::Id).await
}
