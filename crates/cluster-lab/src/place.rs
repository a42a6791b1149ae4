//! The place that a lab runs in: namespaces of its own (mounts, processes, network), a folder, cgroups, and a wire to the
//! machine. `keeper.sh` makes it and cleans up after it, whatever becomes of this process.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::binaries;
use crate::wait::wait_for;

const KEEPER: &str = include_str!("keeper.sh");

/// Labs that one machine can have at a time.
const MOST: u8 = 32;

/// How long a place lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lasts {
    /// Until it is dropped, or its process ends.
    WithItsOwner,
    /// Until [`Place::end_kept`].
    UntilTold,
}

/// See the module.
#[derive(Debug)]
pub struct Place {
    number: u8,
    state: PathBuf,
    first: u32,
    keeper: Child,
    // Its end ends the place.
    held: Option<ChildStdin>,
}

impl Place {
    /// The first that is free.
    pub fn take(lasts: Lasts) -> Result<Self> {
        ensure!(rustix::process::geteuid().is_root(), "a lab needs root");
        for number in 0..MOST {
            if let Some(place) = Self::take_numbered(number, lasts)? {
                place.wire().context("the wire between the machine and the lab")?;
                return Ok(place);
            }
        }
        bail!("{MOST} labs run already: `just cluster-down` ends those that were left running")
    }

    fn take_numbered(number: u8, lasts: Lasts) -> Result<Option<Self>> {
        let state = states().join(number.to_string());
        let (hold, input): (&[&str], _) = match lasts {
            Lasts::WithItsOwner => (&["cat"], Stdio::piped()),
            Lasts::UntilTold => (&["sleep", "infinity"], Stdio::null()),
        };
        let mut command = Command::new("sh");
        command.args(["-c", KEEPER, "keeper", &number.to_string()]).arg(&state).args(hold);
        // A group of its own: who interrupts the tests at a terminal does not interrupt it before it has cleaned up.
        command.stdin(input).stdout(Stdio::piped()).process_group(0);
        let mut keeper = command.spawn().context("sh")?;
        let mut said = String::new();
        let mut output = BufReader::new(keeper.stdout.take().context("its output")?);
        output.read_line(&mut said).context("the keeper")?;
        if said.trim() == "taken" {
            keeper.wait().context("the keeper")?;
            return Ok(None);
        }
        let Ok(first) = said.trim().parse::<u32>() else {
            drop(keeper.stdin.take());
            output.read_to_string(&mut said).context("the keeper")?;
            keeper.wait().context("the keeper")?;
            bail!("no place for a lab: {}", said.trim());
        };
        let held = keeper.stdin.take();
        if lasts == Lasts::UntilTold {
            fs::write(state.join("kept"), first.to_string()).context("its process 1")?;
        }
        Ok(Some(Self { number, state, first, keeper, held }))
    }

    /// A pair of devices: the machine reaches the node's address and all of its Pods, and they the machine.
    fn wire(&self) -> Result<()> {
        let device = format!("garth-lab{}", self.number);
        let first = self.first.to_string();
        let outside = |words: &[&str]| run(Command::new("ip").args(words));
        let inside = |words: &[&str]| run(Command::new("nsenter").args(["-t", &first, "-n", "ip"]).args(words));
        outside(&["link", "add", &device, "type", "veth", "peer", "name", "eth0", "netns", &first])?;
        inside(&["address", "add", &format!("{}/24", self.node_address()), "dev", "eth0"])?;
        inside(&["link", "set", "eth0", "up"])?;
        inside(&["route", "add", "default", "via", &self.machine_address()])?;
        inside(&["address", "add", &format!("{}/32", crate::API_SERVICE), "dev", "lo"])?;
        outside(&["address", "add", &format!("{}/24", self.machine_address()), "dev", &device])?;
        outside(&["link", "set", &device, "up"])?;
        outside(&["route", "add", &self.pod_range(), "via", &self.node_address()])
    }

    /// Its files, the same inside and outside. They go with the place.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The machine, seen from inside.
    pub fn machine_address(&self) -> String {
        format!("10.66.{}.1", self.number)
    }

    /// The node and the API server.
    pub fn node_address(&self) -> String {
        format!("10.66.{}.2", self.number)
    }

    /// The addresses of Pods.
    pub fn pod_range(&self) -> String {
        format!("10.67.{}.0/24", self.number)
    }

    /// The cgroup below which all Pods are, in each hierarchy.
    pub fn cgroup(&self) -> String {
        format!("/garth-lab-{}", self.number)
    }

    /// A program to be run inside.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.first.to_string(), "--mount", "--pid", "--net", "--"]).arg(program);
        command
    }

    /// Lets go of a place that lasts until it is told to end.
    pub fn leave(self) {
        std::mem::forget(self);
    }

    /// The folders of those that were left running.
    pub fn kept() -> Vec<PathBuf> {
        let entries = fs::read_dir(states()).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|state| state.join("kept").exists()).collect()
    }

    /// Ends one of those.
    pub fn end_kept(state: &Path) -> Result<()> {
        let first = fs::read_to_string(state.join("kept")).context("its process 1")?;
        let program = fs::read_to_string(format!("/proc/{first}/cmdline")).unwrap_or_default();
        if !program.starts_with("sleep\0infinity") {
            // The machine was started anew meanwhile.
            return fs::remove_dir_all(state).with_context(|| state.display().to_string());
        }
        let first = first.parse().ok().and_then(rustix::process::Pid::from_raw).context("its process 1")?;
        rustix::process::kill_process(first, rustix::process::Signal::KILL).context("its process 1")?;
        wait_for("the lab's end", Duration::from_secs(60), || Ok(!state.exists()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.held.take().is_none() {
            let _ = Self::end_kept(&self.state);
        }
        let _ = self.keeper.wait();
    }
}

/// The folder that has one for each lab.
fn states() -> PathBuf {
    binaries::cache().join("labs")
}

/// Runs a program that must succeed.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// What a program that must succeed prints.
pub fn output(command: &mut Command) -> Result<String> {
    let done = command.output().with_context(|| format!("{command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(done.status.success(), "{command:?}: {}{}", text(&done.stdout), text(&done.stderr));
    Ok(text(&done.stdout))
}
