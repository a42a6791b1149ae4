//! `garth-agent spawner LEVEL`: makes the inits of sandboxes for the daemon at its standard input; in each, becomes the agent.
//! `garth-agent jail`: makes the jail that the daemon at its standard input asks for, and becomes the program in it.
//! `garth-agent probe`: tries what standard input says, inside a sandbox.
//! `garth-agent kvm-probe`: says in one line of JSON whether KVM works here.
//! `garth-agent guest`, or as `/init`: PID 1 of a virtual machine.
//! `garth-agent serve --socket PATH --state-dir DIR`: the agent as an ordinary process.
#![forbid(unsafe_code)]

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};
use garth_agent::{Agent, Connections, serve};
use garth_runtime::Level;
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
        Some("serve") => serve_at(arguments.map(PathBuf::from))?,
        Some("jail") => {
            let channel = garth_kernel::descriptors::take_stdin().context("no channel on standard input")?;
            garth_runtime::jail::run(channel);
        }
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
    let channel = garth_kernel::descriptors::take_stdin().context("no channel on standard input")?;
    let served = garth_runtime::spawner::run(level, channel, |entered| {
        let connections = Connections::Socket(entered.listener);
        serve(Agent { connections, state_dir: entered.state_dir, config: entered.config })
    });
    Ok(served.transpose().map(drop)?)
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
