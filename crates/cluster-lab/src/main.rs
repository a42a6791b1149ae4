//! `cluster-lab up` leaves a cluster running on this machine; `cluster-lab down` ends all that were, or the one whose folder
//! is named.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use garth_cluster_lab::{Lab, Lasts, Part, Place};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["up"] => up(),
        ["down"] => Place::kept().iter().try_for_each(|state| down(state)),
        ["down", state] => down(Path::new(state)),
        _ => bail!("cluster-lab up | cluster-lab down [FOLDER]"),
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
    say(&format!("the cluster is up; `just cluster-down {}` ends it", lab.state().display()));
    println!("export KUBECONFIG={}", lab.kubeconfig().display());
    println!("export PATH={}:$PATH", lab.program("").display());
    lab.leave();
    Ok(())
}

fn down(state: &Path) -> Result<()> {
    Place::end_kept(state)?;
    eprintln!("cluster: {} is gone", state.display());
    Ok(())
}
