use clap::Args;

use crate::context::Context;
use crate::failure::Result;
use crate::options::{OneProject, PlaceOptions, ProcessOptions};
use crate::process::{self, Printed};
use crate::terminal;

/// The best shell there is, as a login shell.
const SHELL: [&str; 3] =
    ["/bin/sh", "-c", "if command -v bash >/dev/null 2>&1; then exec bash -l; else exec /bin/sh -l; fi"];

#[derive(Debug, Args)]
pub struct Shell {
    #[command(flatten)]
    pub project: OneProject,
    /// Give it no terminal: for a script on standard input
    #[arg(long)]
    pub no_tty: bool,
    #[command(flatten)]
    pub place: PlaceOptions,
}

pub async fn run(context: &Context, args: Shell) -> Result<u8> {
    let options = options(args.place, args.no_tty);
    process::run(context, &args.project.name, &options, &command(), Printed::Id).await
}

/// A shell talks to standard input, and has a terminal if there is one here.
pub fn options(place: PlaceOptions, no_tty: bool) -> ProcessOptions {
    let tty = !no_tty && terminal::both_ends();
    ProcessOptions { interactive: true, tty, no_tty, place, ..ProcessOptions::default() }
}

pub fn command() -> Vec<String> {
    SHELL.map(str::to_owned).to_vec()
}
