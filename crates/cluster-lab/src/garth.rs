//! Garth in a cluster that is left running: its definitions, its image, an operator and a gateway.

use std::fs::{File, create_dir_all};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use garth_cluster_lab::{Image, Lab, wait_for};

/// The image of agents.
const GARTH_IMAGE: &str = "localhost/garth:lab";

/// What the examples run.
const EXAMPLE_IMAGE: &str = "docker.io/library/busybox:1.35";

/// How long the gateway may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// Installs what this program prints and makes, and starts its two services in the cluster's place, with which they end.
/// Returns where the gateway listens.
pub fn install(lab: &Lab, garth: &Path) -> Result<String> {
    let archive = lab.state().join("garth.tar");
    let words = ["cluster", "image", "--agent-only", "--name", GARTH_IMAGE, "--output"];
    said(Command::new(garth).args(words).arg(&archive))?;
    lab.import_archive(&archive)?;
    lab.import(&Image::busybox(&lab.program(""))?.called(EXAMPLE_IMAGE))?;
    lab.apply(&said(Command::new(garth).args(["cluster", "crds"]))?)?;
    lab.run(&["create", "namespace", "garth"])?;
    let dir = lab.state().join("gateway");
    create_dir_all(&dir)?;
    start(lab, garth, "operator", &["operator", "--agent-image", GARTH_IMAGE])?;
    let dir_word = dir.display().to_string();
    let gateway = ["--data-dir", &dir_word, "serve", "--engine", "kubernetes", "--default-image", EXAMPLE_IMAGE];
    start(lab, garth, "gateway", &gateway)?;
    let socket = dir.join("garth.sock");
    wait_for("the gateway", PATIENCE, || Ok(socket.exists()))?;
    Ok(format!("unix://{}", socket.display()))
}

fn start(lab: &Lab, garth: &Path, name: &str, words: &[&str]) -> Result<()> {
    let log = File::create(lab.state().join(format!("garth-{name}.log")))?;
    let mut command = lab.command(garth);
    command.args(words).env("KUBECONFIG", lab.kubeconfig()).env_remove("GARTH_HOST").env_remove("GARTH_DATA_DIR");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().with_context(|| name.to_owned())?;
    Ok(())
}

/// What a command prints; it must succeed.
fn said(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}
