//! Measures Garth on Kubernetes: real API server, scheduler, kubelet and containerd for what a user waits for; nodes that kwok
//! plays, and the controller of agent-sandbox beside ours on the same API server, for rates.
//!
//! ```text
//! node   create, then the first command: cold, and from a pool      rates   asked for at a steady rate --> can be used
//! way    a request by the gateway, and straight to the agent        many    thousands of projects: the operator's memory
//! ```
//!
//! Run it by `just bench-cluster`. Needs root, and the extras of `tests/cluster/build`. Nothing here asserts a time.
#![forbid(unsafe_code)]

mod node;
mod rates;
#[allow(dead_code, clippy::allow_attributes, reason = "shared with the other benchmark, which uses more of it")]
#[path = "../../src/stats.rs"]
mod stats;
mod table;
mod way;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Parser;
use garth_cluster_lab::{Lab, garth};

use crate::table::Table;

#[derive(Debug, Parser)]
struct Options {
    /// The program to measure
    #[arg(long, value_name = "FILE")]
    garth: PathBuf,
    /// First commands of a kind
    #[arg(long, default_value_t = 20)]
    starts: usize,
    /// Sandboxes asked for in a second; it takes a pool of as many as come in all, which has to be filled first
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10])]
    rates: Vec<u32>,
    /// How long each rate is kept up
    #[arg(long, default_value_t = 5)]
    seconds: u32,
    /// Projects that the operator looks after while nothing happens
    #[arg(long, default_value_t = 5000)]
    projects: u32,
    /// Where the tables are written
    #[arg(long, default_value = "docs/benchmarks-cluster.md")]
    output: PathBuf,
}

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    ensure!(Lab::is_possible("the benchmark") && Lab::has_extras("the benchmark"), "see above");
    let lab = Lab::with_node()?;
    let installed = garth::install(&lab, &std::path::absolute(&options.garth)?)?;
    let mut table = Table::default();
    node::measure(&lab, &installed.socket, options.starts, &mut table).await?;
    way::measure(&lab, &installed.socket, &mut table).await?;
    lab.run(&["cordon", garth_cluster_lab::NODE])?;
    rates::measure(&lab, &options.rates, options.seconds, &mut table).await?;
    rates::many(&lab, options.projects, installed.operator, &mut table).await?;
    let text = table.text();
    print!("{text}");
    Ok(std::fs::write(&options.output, text)?)
}
