//! The agent as PID 1 of a virtual machine: from the kernel's first call to the ordinary agent.
//!
//! ```text
//!  kernel --exec /init--> early: /dev /proc /sys, modules --> line: the channel to the host
//!  host --POST begin--> begin: seed, clock, name, disks, /etc, network, the disk as root --> the agent, on the same line
//!  host --POST prepare (for a template)--> the image's /usr is mounted, other disks have no driver; then saved
//!  host --POST again (after a restore) | freeze (before a copy) | power-->
//! ```
//!
//! Nothing here isolates anything: the machine does. So nothing is masked or filtered, and /proc and /sys are this
//! kernel's own. What a project asks for besides, as a root that cannot be written, holds for programs that mean well.

mod api;
mod begin;
mod bounds;
mod devices;
mod disks;
mod early;
mod init;
mod line;
mod network;
mod port;
mod power;
mod volumes;

use std::io;

pub(crate) use api::{Machine, PATHS, not_begun};
pub(crate) use line::Line;
pub use line::Place;

use crate::Connections;
use crate::server::Site;

/// Something that a guest could not do.
#[derive(Debug, thiserror::Error)]
#[error("{step}")]
pub(crate) struct GuestFailure {
    step: String,
    kind: Kind,
    #[source]
    source: io::Error,
}

/// Whose fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The request makes no sense.
    Invalid,
    /// It makes none now.
    Conflict,
    /// The kernel refused.
    Failed,
}

impl GuestFailure {
    fn new(kind: Kind, step: impl Into<String>, why: impl Into<String>) -> Self {
        Self { step: step.into(), kind, source: io::Error::other(why.into()) }
    }
}

/// Names the step that failed.
trait At<T> {
    fn at(self, step: impl FnOnce() -> String) -> Result<T, GuestFailure>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, step: impl FnOnce() -> String) -> Result<T, GuestFailure> {
        self.map_err(|error| GuestFailure { step: step(), kind: Kind::Failed, source: error.into() })
    }
}

/// Never returns: when PID 1 ends the kernel panics, so the machine goes off instead.
pub fn run() -> ! {
    if let Err(failure) = serve() {
        // Nobody is there to be told but the console.
        eprintln!("garth-agent: {failure:#}");
    }
    power::off()
}

fn serve() -> anyhow::Result<()> {
    early::mounts()?;
    early::limits()?;
    early::modules()?;
    let place = Place::find()?;
    crate::run(Connections::Channel(place), || Ok(Site::of_machine(Machine::default())))?;
    Ok(())
}
