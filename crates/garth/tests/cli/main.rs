//! What the command line prints and how it ends: exit code, standard output and standard error as snapshots
//! (`SNAPSHOTS=overwrite cargo test -p garth --test cli` takes new ones; read the difference). Needs root.

#[path = "../support/yard.rs"]
#[allow(dead_code, clippy::allow_attributes, reason = "shared by test programs that use a part each")]
mod yard;

#[path = "../support/terminal.rs"]
mod screen;

mod completion;
mod daemon;
mod pools;
mod processes;
mod projects;
mod setup;
mod snapshot;
mod terminal;
mod usage;
