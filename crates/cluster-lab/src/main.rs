//! `cluster-lab up [GARTH]` leaves a cluster running on this machine, with that program's operator and gateway in it;
//! `cluster-lab down` ends all that were, or the one whose folder is named.
#![forbid(unsafe_code)]

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use garth_cluster_lab::{Lab, Lasts, Part, Place, garth};

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["up"] => up(None),
        ["up", garth] => up(Some(Path::new(garth))),
        ["down"] => Place::kept().iter().try_for_each(|state| down(state)),
        ["down", state] => down(Path::new(state)),
        _ => bail!("cluster-lab up [GARTH] | cluster-lab down [FOLDER]"),
    }
}

fn up(garth: Option<&Path>) -> Result<()> {
    let began = Instant::now();
    let say = |what: &str| eprintln!("cluster [{:4} s] {what}", began.elapsed().as_secs());
    Part::Cluster.build()?;
    say("the control plane starts ...");
    let lab = Lab::start(Lasts::UntilTold)?;
    say("the node starts ...");
    lab.add_node()?;
    let gateway = garth.map(|garth| {
        say("Garth starts ...");
        garth::install(&lab, &std::path::absolute(garth)?)
    });
    let gateway = gateway.transpose()?;
    say(&format!("the cluster is up; `just cluster-down {}` ends it", lab.state().display()));
    println!("export KUBECONFIG={}", lab.kubeconfig().display());
    println!("export PATH={}:$PATH", lab.program("").display());
    if let Some(gateway) = gateway {
        println!("export GARTH_HOST=unix://{}", gateway.socket.display());
    }
    lab.leave();
    Ok(())
}

fn down(state: &Path) -> Result<()> {
    Place::end_kept(state)?;
    eprintln!("cluster: {} is gone", state.display());
    Ok(())
}
