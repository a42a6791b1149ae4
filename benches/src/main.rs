//! Measures Garth beside its peers and the kernel's own floor, in one run.
//!
//! ```text
//! rounds x (every subject once, in turn)  -->  samples  -->  quantiles, ratios, budgets  -->  tables, plot, JSON
//! ```
//!
//! Subjects take turns inside a round, so a machine whose speed drifts drifts for all. Peers are timed as their users
//! run them (one process from spawn to exit); Garth through its HTTP API on the unix socket. Run it by `just bench`,
//! which starts the daemon to be measured. Needs root. Nothing here asserts a time.
#![forbid(unsafe_code)]

mod bare;
mod budgets;
mod cycles;
mod daemon;
mod density;
mod files;
mod garth;
mod guests;
mod lxcfs;
mod machines;
mod meminfo;
mod peers;
mod plot;
mod report;
mod rootfs;
mod stats;
mod subject;

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use garth_spec::Runtime;

use crate::daemon::Daemon;
use crate::garth::Garth;
use crate::peers::{Peer, Running};
use crate::report::{Report, What};
use crate::stats::Samples;
use crate::subject::{Subject, take_turns};

/// What to measure, and how long. Nothing of what gets 0 rounds, cycles or idle sandboxes.
#[derive(Debug, Parser)]
struct Args {
    /// The socket of the daemon to measure.
    #[arg(long)]
    socket: PathBuf,
    /// Rounds of the one-at-a-time measurements.
    #[arg(long, default_value_t = 100)]
    rounds: usize,
    /// Rounds of the 10- and 50-at-once measurements.
    #[arg(long, default_value_t = 4)]
    burst_rounds: usize,
    /// Rounds of 200 reads of /proc/meminfo.
    #[arg(long, default_value_t = 20)]
    read_rounds: usize,
    /// Rounds of machines with a kernel of their own.
    #[arg(long, default_value_t = 10)]
    machine_rounds: usize,
    /// Rounds of work inside such a machine.
    #[arg(long, default_value_t = 10)]
    guest_rounds: usize,
    /// Such machines, idle, to weigh.
    #[arg(long, value_delimiter = ',', default_value = "1,10,30")]
    idle_guests: Vec<usize>,
    /// Rounds of work with files, compilers and processes.
    #[arg(long, default_value_t = 40)]
    work_rounds: usize,
    /// Idle sandboxes to weigh.
    #[arg(long, value_delimiter = ',', default_value = "1,100,500")]
    idle: Vec<usize>,
    /// Create/delete cycles, for each runtime.
    #[arg(long, default_value_t = 500)]
    cycles: usize,
    /// Where the report goes: benchmarks.md, benchmarks.json, benchmarks.svg.
    #[arg(long, default_value = "docs")]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let begin = Instant::now();
    let mut report = Report::default();
    let work = tempfile::Builder::new().prefix("garth-bench.").tempdir_in("/var/tmp")?;
    let rootfs = rootfs::make(work.path()).context("making the root filesystem that every subject gets")?;
    let garth = Garth::new(&args.socket, &rootfs).await.context("preparing Garth")?;
    let sysbox = match garth.with(Runtime::Sysbox).await {
        Ok(sysbox) => Some(sysbox),
        Err(error) => {
            report.notes.push(format!("sysbox does not run here: {error:#}"));
            None
        }
    };
    let garths: Vec<&Garth> = std::iter::once(&garth).chain(&sysbox).collect();
    let peers = Peer::all(work.path(), &rootfs, &mut report.notes)?;
    let daemon = Daemon::of(&garth).await.context("finding the daemon")?;

    let say = |what: &str| eprintln!("{:4.0} s: {what}", begin.elapsed().as_secs_f64());
    say("starts");
    let starts = starts(&args, &garths, &peers, &mut report.notes).await?;
    report.latency(What::Start, &starts);
    say("processes in running sandboxes");
    let execs = execs(&args, &garths, &peers, &mut report.notes).await?;
    report.latency(What::Exec, &execs);
    say("reads of /proc/meminfo");
    if args.read_rounds > 0 {
        let reads = meminfo::measure(&peers, &garths, work.path(), args.read_rounds, &mut report.notes).await?;
        report.latency(What::Meminfo, &reads);
    }
    say("machines");
    if args.machine_rounds > 0 {
        match machines::measure(&garth, work.path(), args.machine_rounds).await {
            Ok(machines) => report.latency(What::Machine, &machines),
            Err(error) => report.notes.push(format!("microvm does not run here: {error:#}")),
        }
    }
    say("inside machines");
    if args.guest_rounds > 0 {
        match guests::compare(&garth, work.path(), args.guest_rounds).await {
            Ok(beside) => report.guests = beside,
            Err(error) => report.notes.push(format!("work inside a microvm: {error:#}")),
        }
    }
    say("idle machines");
    let idle: Vec<usize> = args.idle_guests.iter().copied().filter(|count| *count > 0).collect();
    if !idle.is_empty() {
        match guests::weigh(&garth, &daemon, work.path(), &idle).await {
            Ok(weights) => report.weights = weights,
            Err(error) => report.notes.push(format!("memory of idle microvms: {error:#}")),
        }
    }
    say("work inside");
    if args.work_rounds > 0 {
        report.work = files::measure(&garths, work.path(), args.work_rounds).await?;
    }
    for garth in &garths {
        say(&format!("{}: idle sandboxes", garth.name()));
        let idle: Vec<usize> = args.idle.iter().copied().filter(|count| *count > 0).collect();
        report.density.extend(density::measure(garth, &daemon, &idle).await?);
    }
    for garth in &garths {
        say(&format!("{}: cycles", garth.name()));
        if args.cycles > 0 {
            report.cycles.push(cycles::measure(garth, &daemon, args.cycles).await?);
        }
    }
    say("the daemon alone");
    for garth in &garths {
        garth.stop(0).await?;
    }
    report.daemon = Some(daemon.idle()?);
    garth.close().await?;
    report.seconds = begin.elapsed().as_secs_f64();
    report.write(&args.out)
}

async fn starts(args: &Args, garths: &[&Garth], peers: &[Peer], notes: &mut Vec<String>) -> Result<Vec<Samples>> {
    let ours = garths.iter().copied().map(Subject::GarthLife);
    let subjects: Vec<_> = peers.iter().map(Subject::Life).chain(ours).collect();
    all_numbers(args, &subjects, notes).await
}

async fn execs(args: &Args, garths: &[&Garth], peers: &[Peer], notes: &mut Vec<String>) -> Result<Vec<Samples>> {
    let running: Vec<Running> = peers.iter().filter_map(|p| p.keep_running().transpose()).collect::<Result<_>>()?;
    let ours = garths.iter().copied().map(Subject::GarthExec);
    let subjects: Vec<_> = running.iter().map(Subject::Exec).chain(ours).collect();
    all_numbers(args, &subjects, notes).await
}

/// One, ten and fifty at once.
async fn all_numbers(args: &Args, subjects: &[Subject<'_>], notes: &mut Vec<String>) -> Result<Vec<Samples>> {
    let mut all = Vec::new();
    for (at_once, rounds) in [(1, args.rounds), (10, args.burst_rounds), (50, args.burst_rounds)] {
        all.extend(take_turns(subjects.to_vec(), at_once, rounds, notes).await?);
    }
    Ok(all)
}
