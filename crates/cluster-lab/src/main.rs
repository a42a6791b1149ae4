//! `cluster-lab up` leaves a cluster running on this machine, `cluster-lab down` ends all that were.
#![forbid(unsafe_code)]

use std::time::Instant;

use anyhow::{Result, bail};
use garth_cluster_lab::{Lab, Lasts, Part, Place};

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("up") => up(),
        Some("down") => down(),
        _ => bail!("cluster-lab up | cluster-lab down"),
    }
}

fn up() -> Result<()> {
    let began = Instant::now();
    let say = |what: &str| eprintln!("cluster [{:4} s] {what}", began.elapsed().as_secs());
    Part::Cluster.build()?;
    say("the control plane starts ...");
    let lab = Lab::start(Lasts::UntilTold)?;
    say("the node starts ...");
    lab.add_node()?;
    say("the cluster is up; `just cluster-down` ends it");
    println!("export KUBECONFIG={}", lab.kubeconfig().display());
    println!("{} get nodes", lab.program("kubectl").display());
    lab.leave();
    Ok(())
}

fn down() -> Result<()> {
    for state in Place::kept() {
        Place::end_kept(&state)?;
        eprintln!("cluster: {} is gone", state.display());
    }
    Ok(())
}
