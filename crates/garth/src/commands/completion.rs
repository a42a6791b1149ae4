use clap::{Args, ValueEnum};
use clap_complete::env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh};

use crate::failure::{Failure, Result};
use crate::output;

#[derive(Debug, Args)]
#[command(after_help = "\
Names of projects and images are completed from the daemon that runs.

  bash:  garth completion bash > /etc/bash_completion.d/garth
  zsh:   garth completion zsh > ~/.zfunc/_garth        (a directory in $fpath)
  fish:  garth completion fish > ~/.config/fish/completions/garth.fish")]
pub struct Completion {
    /// The shell
    pub shell: Shell,
}

/// A shell that completions are there for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Shell {
    Bash,
    Elvish,
    Fish,
    Powershell,
    Zsh,
}

pub fn run(args: &Completion) -> Result<u8> {
    let mut script = Vec::new();
    completer(args.shell)
        .write_registration("COMPLETE", "garth", "garth", "garth", &mut script)
        .map_err(|error| Failure::io("cannot make the script", &error))?;
    output::print(&String::from_utf8_lossy(&script))?;
    Ok(0)
}

fn completer(shell: Shell) -> &'static dyn EnvCompleter {
    match shell {
        Shell::Bash => &Bash,
        Shell::Elvish => &Elvish,
        Shell::Fish => &Fish,
        Shell::Powershell => &Powershell,
        Shell::Zsh => &Zsh,
    }
}
