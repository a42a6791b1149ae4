//! One program of a cluster, running in the lab's place.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::place::{Place, run};
use crate::wait::wait_for;

/// What can be killed and started on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// What the API server stores its objects in.
    Etcd,
    /// The API server.
    ApiServer,
    /// The controllers, service accounts and garbage collection among them.
    ControllerManager,
    /// The scheduler.
    Scheduler,
    /// The node's container runtime.
    Containerd,
    /// The node's agent.
    Kubelet,
    /// What plays fake nodes.
    Kwok,
    /// What makes fake nodes for Pods that no node has room for.
    Karpenter,
    /// The controller of agent-sandbox.
    AgentSandbox,
}

impl Component {
    /// Whether it is built by `tests/cluster/build extras`.
    pub fn is_extra(self) -> bool {
        matches!(self, Self::Kwok | Self::Karpenter | Self::AgentSandbox)
    }

    /// Whether it ends itself when it no longer knows what is true, and counts on being started again: the scheduler does when a
    /// Pod was made again by the same name while its watch was broken.
    fn ends_itself(self) -> bool {
        matches!(self, Self::Scheduler | Self::ControllerManager)
    }

    /// The program's name, and that of its log.
    pub fn program(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::Kwok => "kwok",
            Self::Karpenter => "karpenter",
            Self::AgentSandbox => "agent-sandbox-controller",
        }
    }
}

/// Says its number, then is the program.
const SAY_PID_AND_BECOME: &str = "echo $$ >\"$0\"; exec \"$@\"";
/// Starts the program again when it ended and nobody killed it, as a kubelet does with those of the control plane; not for ever.
const SAY_PID_AND_RESTART: &str = "for again in 1 2 3 4 5; do
  \"$@\" & echo $! >\"$0\"; wait $!; status=$?
  [ -e \"$0\" ] || exit 0
done; exit $status";

/// The last bytes of a log that are looked at, and the last lines of them that are shown.
const TAIL: u64 = 16000;
const LINES: usize = 25;

/// A started one. It is dropped when it has ended, by a kill or with the place.
pub struct Running {
    component: Component,
    // nsenter: it ends as the program does.
    entered: Child,
}

impl Running {
    /// Starts it; its log is continued.
    pub fn start(place: &Place, bin: &Path, component: Component, arguments: &[String]) -> Result<Self> {
        let program = bin.join(component.program());
        let log = OpenOptions::new().create(true).append(true).open(log_path(place, component)).context("its log")?;
        let mut command = place.command("sh");
        let script = if component.ends_itself() { SAY_PID_AND_RESTART } else { SAY_PID_AND_BECOME };
        command.args(["-c", script]).arg(pid_path(place, component)).arg(&program).args(arguments);
        // Programs that it starts: the shims, runc, mount.
        command.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", bin.display()));
        // For those that have no flag for it.
        command.env("KUBECONFIG", place.state().join("admin.kubeconfig"));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let entered = command.spawn().with_context(|| program.display().to_string())?;
        Ok(Self { component, entered })
    }

    /// An error, with the end of its log, if it has ended.
    pub fn check(&mut self, place: &Place) -> Result<()> {
        match self.entered.try_wait().context("nsenter")? {
            None => Ok(()),
            Some(status) => {
                bail!("{} ended: {status}\n{}", self.component.program(), log_tail(place, self.component))
            }
        }
    }

    /// Kills it as a crash would, and waits until it is gone.
    pub fn kill(mut self, place: &Place) -> Result<()> {
        let mut pid = String::new();
        wait_for("its process id", Duration::from_secs(60), || {
            pid = fs::read_to_string(pid_path(place, self.component)).unwrap_or_default();
            Ok(pid.ends_with('\n'))
        })?;
        // Without the number of a predecessor, in case that it is started again.
        fs::remove_file(pid_path(place, self.component)).context("its process id")?;
        run(place.command("kill").args(["-KILL", pid.trim()]))?;
        self.entered.wait().context("nsenter")?;
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.entered.wait();
    }
}

/// The end of a component's log.
pub fn log_tail(place: &Place, component: Component) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut log = fs::File::open(log_path(place, component))?;
        let length = log.metadata()?.len();
        log.seek(SeekFrom::Start(length.saturating_sub(TAIL)))?;
        let mut bytes = Vec::new();
        log.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    // Half of what a healthy component says.
    let lines: Vec<&str> = text.lines().filter(|line| !line.contains("aches")).collect();
    let last = lines[lines.len().saturating_sub(LINES)..].join("\n");
    format!("--- {}.log ---\n{last}\n", component.program())
}

fn log_path(place: &Place, component: Component) -> std::path::PathBuf {
    place.state().join(format!("{}.log", component.program()))
}

fn pid_path(place: &Place, component: Component) -> std::path::PathBuf {
    place.state().join(format!("{}.pid", component.program()))
}
