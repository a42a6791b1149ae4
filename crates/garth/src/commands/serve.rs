use clap::Args;

use crate::daemon::Endpoint;
use crate::exit::Exit;
use crate::failure::{Failure, Result};

#[derive(Debug, Args)]
#[command(after_help = "\
Every other command starts a daemon when none answers; this one keeps it in the foreground, for an
init system. SIGTERM ends the daemon and leaves all sandboxes running: the next one finds them.")]
pub struct Serve {
    /// Started by another command: own session, first line of output says whether it works
    #[arg(long, hide = true)]
    pub background: bool,
}

pub fn run(endpoint: &Endpoint, args: &Serve) -> Result<u8> {
    let _ = args.background;
    match endpoint {
        Endpoint::Socket(_) => Err(Failure::usage("serve takes a data directory, not a host").hint("unset GARTH_HOST")),
        Endpoint::DataDir(_) => Err(Failure::new(Exit::Failed, "not_built", "this build has no daemon")),
    }
}
