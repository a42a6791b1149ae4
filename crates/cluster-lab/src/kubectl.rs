//! kubectl, as the one who may do everything.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::Lab;
use crate::place::output;

impl Lab {
    /// kubectl, to be given words.
    pub fn kubectl(&self) -> Command {
        self.kubectl_as(self.kubeconfig())
    }

    /// kubectl, as the user of a kubeconfig.
    pub fn kubectl_as(&self, kubeconfig: &Path) -> Command {
        let mut command = Command::new(self.program("kubectl"));
        command.arg("--kubeconfig").arg(kubeconfig);
        command.arg("--cache-dir").arg(self.state().join("kubectl"));
        command
    }

    /// What kubectl prints; an error with what it says if it fails.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        output(self.kubectl().args(words))
    }

    /// Creates or changes the objects of these manifests.
    pub fn apply(&self, manifests: &str) -> Result<()> {
        let mut command = self.kubectl();
        command.args(["apply", "--server-side", "--filename=-"]);
        let mut kubectl =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("kubectl")?;
        let written = kubectl.stdin.take().context("its input")?.write_all(manifests.as_bytes());
        let done = kubectl.wait_with_output().context("kubectl")?;
        ensure!(done.status.success(), "kubectl apply: {}", String::from_utf8_lossy(&done.stderr));
        written.context("manifests")
    }
}
