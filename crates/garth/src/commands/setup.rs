use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use garth_api::{GuestFiles, SetupMicrovm, SetupProgress, SetupStep};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::context::{Context, Format, Repeat};
use crate::failure::{Failure, Result};
use crate::output::cell;

#[derive(Debug, Args)]
pub struct Setup {
    #[command(subcommand)]
    pub runtime: Runtime,
}

#[derive(Debug, Subcommand)]
pub enum Runtime {
    /// Get a kernel for microVMs and make the files that they start from
    Microvm(Microvm),
}

#[derive(Debug, Args)]
#[command(after_help = "\
The kernel is the newest for virtual machines that apt's sources have. It is downloaded and unpacked
into the data directory, not installed. Run it again after an upgrade of garth or for a newer kernel;
when nothing is new, nothing is done.")]
pub struct Microvm {
    /// Use this kernel: a vmlinux, or a bzImage as /boot/vmlinuz-*
    #[arg(long, value_name = "FILE")]
    pub kernel: Option<PathBuf>,
    /// Where its modules are, as /lib/modules/RELEASE; without, they are taken to be built in
    #[arg(long, value_name = "DIR", requires = "kernel")]
    pub modules: Option<PathBuf>,
}

pub async fn run(context: &Context, args: Setup) -> Result<u8> {
    match args.runtime {
        Runtime::Microvm(args) => microvm(context, args).await,
    }
}

async fn microvm(context: &Context, args: Microvm) -> Result<u8> {
    let ask = SetupMicrovm { kernel: absolute(args.kernel.as_deref())?, modules: absolute(args.modules.as_deref())? };
    let bar = bar(context.format);
    let made =
        context.ask(Repeat::Safe, async |client| client.setup_microvm(&ask, |progress| show(&bar, &progress)).await);
    let made = made.await;
    bar.finish_and_clear();
    context.print(&made?, text)?;
    Ok(0)
}

fn absolute(path: Option<&Path>) -> Result<Option<PathBuf>> {
    let absolute = path.map(std::path::absolute).transpose();
    absolute.map_err(|error| Failure::io("cannot find the current directory", &error))
}

/// Draws on stderr when that is a terminal, and nothing for programs.
fn bar(format: Format) -> ProgressBar {
    let target = match format {
        Format::Text => ProgressDrawTarget::stderr(),
        Format::Json => ProgressDrawTarget::hidden(),
    };
    ProgressBar::with_draw_target(None, target)
}

fn show(bar: &ProgressBar, progress: &SetupProgress) {
    let step = match progress.step {
        SetupStep::Find => "looking for a kernel",
        SetupStep::Download => "downloading the kernel",
        SetupStep::Unpack => "unpacking it",
        SetupStep::Build => "making the guest's files",
    };
    let template = match progress.total {
        0 => "{spinner} {msg}",
        _ => "{msg} {bar:30} {binary_bytes}/{binary_total_bytes}",
    };
    bar.set_length(progress.total);
    bar.set_position(progress.done);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(step);
}

fn text(made: &GuestFiles) -> String {
    let mut text = format!("microVMs start from Linux {}\n", cell(&made.release, 100));
    for source in &made.source {
        let _ = writeln!(text, "  of {}", cell(source, 200));
    }
    for finding in &made.lacking {
        let _ = writeln!(text, "still lacking: {}: {}", cell(&finding.name, 60), cell(&finding.detail, 300));
        if let Some(fix) = &finding.fix {
            let _ = writeln!(text, "  fix: {}", cell(fix, 300));
        }
    }
    text
}
