//! Measures Garth beside its peers and the kernel's own floor, in one run.
//!
//! ```text
//! rounds x (every subject once, in turn)  -->  samples  -->  p50/p95/p99 and ratios to the floor  -->  table, plot, JSON
//! ```
//!
//! Subjects take turns inside a round, so a machine whose speed drifts drifts for all. Peers are timed as their users
//! run them (one process from spawn to exit); Garth through its HTTP API on the unix socket. Run it by `just bench`,
//! which starts the daemon to be measured. Needs root. Nothing here asserts a time.
#![forbid(unsafe_code)]

mod cycles;
mod density;
mod files;
mod garth;
mod peers;
mod report;
mod rootfs;
mod stats;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Parser;

use crate::garth::Garth;
use crate::peers::Peer;
use crate::report::Report;
use crate::stats::Samples;

/// What to measure, and how long.
#[derive(Debug, Parser)]
struct Args {
    /// The socket of the daemon to measure.
    #[arg(long)]
    socket: PathBuf,
    /// Rounds of the one-at-a-time measurements.
    #[arg(long, default_value_t = 60)]
    rounds: usize,
    /// Rounds of the 10- and 50-at-once measurements.
    #[arg(long, default_value_t = 4)]
    burst_rounds: usize,
    /// Idle sandboxes to weigh.
    #[arg(long, value_delimiter = ',', default_value = "1,100,500")]
    idle: Vec<usize>,
    /// Create/delete cycles.
    #[arg(long, default_value_t = 500)]
    cycles: usize,
    /// Where the report goes: benchmarks.md, benchmarks.json, benchmarks.svg.
    #[arg(long, default_value = "docs")]
    out: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let work = tempfile::Builder::new().prefix("garth-bench.").tempdir_in("/var/tmp")?;
    let rootfs = rootfs::make(work.path()).context("making the root filesystem that every subject gets")?;
    let garth = Garth::new(&args.socket, &rootfs).await.context("preparing Garth")?;
    let peers = Peer::all(work.path(), &rootfs)?;

    let mut report = Report::default();
    report.latency("start + `true` + stop", starts(&args, &garth, &peers).await?);
    report.latency("`true` in a running sandbox", execs(&args, &garth, &peers).await?);
    report.density(density::measure(&garth, &args.idle).await?);
    report.files(files::measure(&garth, work.path()).await?);
    report.cycles(cycles::measure(&garth, args.cycles).await?);
    garth.close().await?;
    report.write(&args.out)
}

async fn starts(args: &Args, garth: &Garth, peers: &[Peer]) -> Result<Vec<Samples>> {
    let mut all = Vec::new();
    for at_once in [1, 10, 50] {
        garth.prepare(at_once).await?;
        let mut samples: Vec<Samples> = peers.iter().map(|p| Samples::new(p.name(), at_once)).collect();
        let mut ours = Samples::new("garth", at_once);
        for round in 0..rounds(args, at_once) + 1 {
            for (peer, samples) in peers.iter().zip(&mut samples) {
                let times = peer.start_true_stop(at_once, round)?;
                samples.extend_unless_warm_up(round, times);
            }
            ours.extend_unless_warm_up(round, garth.start_true_stop(at_once).await?);
        }
        all.extend(samples);
        all.push(ours);
    }
    Ok(all)
}

async fn execs(args: &Args, garth: &Garth, peers: &[Peer]) -> Result<Vec<Samples>> {
    let running: Vec<_> = peers.iter().filter_map(|p| p.keep_running().transpose()).collect::<Result<_>>()?;
    let mut all = Vec::new();
    for at_once in [1, 10, 50] {
        let mut samples: Vec<Samples> = running.iter().map(|r| Samples::new(r.name(), at_once)).collect();
        let mut ours = Samples::new("garth", at_once);
        for round in 0..rounds(args, at_once) + 1 {
            for (peer, samples) in running.iter().zip(&mut samples) {
                samples.extend_unless_warm_up(round, peer.exec_true(at_once)?);
            }
            ours.extend_unless_warm_up(round, garth.exec_true(at_once).await?);
        }
        all.extend(samples);
        all.push(ours);
    }
    Ok(all)
}

fn rounds(args: &Args, at_once: usize) -> usize {
    if at_once == 1 { args.rounds } else { args.burst_rounds }
}
