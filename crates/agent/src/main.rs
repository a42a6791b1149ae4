//! `garth-agent spawner LEVEL`: makes the inits of sandboxes for the daemon at its standard input; in each, becomes the agent.
//! `garth-agent jail`: makes the jail that the daemon at its standard input asks for, and becomes the program in it.
//! `garth-agent holder`: keeps the namespaces of a container for the daemon at its standard input.
//! `garth-agent container`: process 1 of a container that an OCI runtime made; becomes the agent.
//! `garth-agent probe`: tries what standard input says, inside a sandbox.
//! `garth-agent kvm-probe`: says in one line of JSON whether KVM works here.
//! `garth-agent guest`, or as `/init`: PID 1 of a virtual machine.
//! `garth-agent install DIRECTORY DISK`: puts itself beside the files of another image, and makes the disk's directories.
//! `garth-agent pod`: process 1 of a Kubernetes Pod; becomes the agent, for whoever shows the project's token.
//! `garth-agent serve --socket PATH --state-dir DIR`: the agent as an ordinary process.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use garth_agent::{Agent, Connections, ServeError, serve};
use garth_runtime::Level;
use garth_runtime::inside::Entered;
use garth_spec::AgentConfig;

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args_os();
    // The kernel hands the words of its command line that it does not know to the init.
    if arguments.next().is_some_and(|name| name == "/init") {
        garth_agent::guest::run();
    }
    match arguments.next().as_deref().and_then(|mode| mode.to_str()) {
        Some("spawner") => spawner(arguments.next().as_deref().and_then(|level| level.to_str()))?,
        Some("guest") => garth_agent::guest::run(),
        Some("holder") => garth_runtime::oci::holder::run(channel()?),
        Some("container") => drop(garth_runtime::oci::run(channel()?, serve_sandbox).transpose()?),
        Some("serve") => serve_at(arguments.map(PathBuf::from))?,
        Some("install") => match (arguments.next(), arguments.next()) {
            (Some(directory), Some(disk)) => garth_agent::pod::install(directory.as_ref(), disk.as_ref())?,
            _ => bail!("usage: garth-agent install DIRECTORY DISK"),
        },
        Some("pod") => return Ok(ExitCode::from(garth_agent::pod::run()?)),
        Some("jail") => garth_runtime::jail::run(channel()?),
        Some("kvm-probe") => println!("{}", serde_json::to_string(&garth_kernel::kvm::probe())?),
        Some("probe") => {
            let words = arguments.map(|word| word.to_string_lossy().into_owned());
            return Ok(ExitCode::from(garth_agent::probe::run(words)?));
        }
        _ => bail!("usage: garth-agent serve --socket PATH --state-dir DIR [--config FILE]"),
    }
    Ok(ExitCode::SUCCESS)
}

fn spawner(level: Option<&str>) -> anyhow::Result<()> {
    let level = level.and_then(Level::of_word).context("usage: garth-agent spawner default|sysbox")?;
    let served = garth_runtime::spawner::run(level, channel()?, serve_sandbox);
    Ok(served.transpose().map(drop)?)
}

/// The daemon's end of it.
fn channel() -> anyhow::Result<OwnedFd> {
    garth_kernel::descriptors::take_stdin().context("no channel on standard input")
}

fn serve_sandbox(entered: Entered) -> Result<(), ServeError> {
    serve(Agent {
        connections: Connections::Socket(entered.listener),
        state_dir: entered.state_dir,
        config: entered.config,
    })
}

fn serve_at(mut arguments: impl Iterator<Item = PathBuf>) -> anyhow::Result<()> {
    let (mut socket, mut state_dir, mut config) = (None, None, AgentConfig::default());
    while let (Some(flag), Some(value)) = (arguments.next(), arguments.next()) {
        match flag.to_str() {
            Some("--socket") => socket = Some(value),
            Some("--state-dir") => state_dir = Some(value),
            Some("--config") => config = read_config(&value)?,
            _ => bail!("unknown argument {}", flag.display()),
        }
    }
    let socket = socket.context("--socket is missing")?;
    let state_dir = state_dir.context("--state-dir is missing")?;
    let listener = UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    let state = std::fs::File::open(&state_dir).with_context(|| format!("cannot open {}", state_dir.display()))?;
    serve(Agent { connections: Connections::Socket(listener), state_dir: OwnedFd::from(state), config })?;
    Ok(())
}

fn read_config(path: &Path) -> anyhow::Result<AgentConfig> {
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no agent configuration", path.display()))
}
