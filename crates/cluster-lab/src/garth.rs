//! Garth in a cluster that is left running: its definitions, its image, an operator and a gateway.

use std::fs::{File, create_dir_all};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::{Image, Lab, wait_for};

/// The image of agents.
const GARTH_IMAGE: &str = "localhost/garth:lab";

/// What the examples run.
const EXAMPLE_IMAGE: &str = "docker.io/library/busybox:1.35";

/// Where the operator answers Prometheus, within the lab.
const METRICS: &str = "127.0.0.1:9090";

/// How long the gateway may take until it answers.
const PATIENCE: Duration = Duration::from_secs(60);

/// What was installed.
#[derive(Debug)]
pub struct Installed {
    /// Where the gateway listens.
    pub socket: PathBuf,
    /// The operator's pid.
    pub operator: u32,
}

/// Installs what this program prints and makes, and starts its two services in the cluster's place, with which they end.
pub fn install(lab: &Lab, garth: &Path) -> Result<Installed> {
    let archive = lab.state().join("garth.tar");
    let words = ["cluster", "image", "--agent-only", "--name", GARTH_IMAGE, "--output"];
    said(Command::new(garth).args(words).arg(&archive))?;
    lab.import_archive(&archive)?;
    lab.import(&Image::busybox(&lab.program(""))?.called(EXAMPLE_IMAGE))?;
    lab.apply(&said(Command::new(garth).args(["cluster", "crds"]))?)?;
    lab.run(&["create", "namespace", "garth"])?;
    let dir = lab.state().join("gateway");
    create_dir_all(&dir)?;
    let operator = ["operator", "--agent-image", GARTH_IMAGE, "--metrics", METRICS];
    let operator = start(lab, garth, "operator", &operator)?;
    let dir_word = dir.display().to_string();
    let gateway = ["--data-dir", &dir_word, "serve", "--engine", "kubernetes", "--default-image", EXAMPLE_IMAGE];
    start(lab, garth, "gateway", &gateway)?;
    let socket = dir.join("garth.sock");
    wait_for("the gateway", PATIENCE, || Ok(socket.exists()))?;
    Ok(Installed { socket, operator })
}

/// What the operator says to Prometheus.
pub fn metrics(lab: &Lab) -> Result<String> {
    let read = "import sys, urllib.request as http; print(http.urlopen(sys.argv[1], timeout=10).read().decode())";
    said(lab.command("python3").args(["-c", read, &format!("http://{METRICS}/metrics")]))
}

fn start(lab: &Lab, garth: &Path, name: &str, words: &[&str]) -> Result<u32> {
    let log = File::create(lab.state().join(format!("garth-{name}.log")))?;
    let mut command = lab.command(garth);
    command.args(words).env("KUBECONFIG", lab.kubeconfig()).env_remove("GARTH_HOST").env_remove("GARTH_DATA_DIR");
    let started = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn();
    Ok(started.with_context(|| name.to_owned())?.id())
}

/// What a command prints; it must succeed.
fn said(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("{command:?}"))?;
    ensure!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    Ok(String::from_utf8(out.stdout)?)
}
