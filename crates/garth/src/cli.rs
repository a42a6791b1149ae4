//! The command line as types: every verb, flag and help text; parsing and nothing else.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    attach, cluster, completion, cp, create, doctor, exec, image, inspect, key, kill, logs, ls, operator, pause, ps,
    rm, run, serve, set, setup, shell, start, stop, verify, wait,
};
use crate::daemon::Host;
use crate::exit;

const EXAMPLES: &str = "\
Examples:
  garth run --rm -- python3 -c 'print(6*7)'       a sandbox that leaves nothing
  garth create web --memory 512MiB --disk 2GiB    a project: its files stay until `garth rm`
  garth exec web -- sh -c 'echo kept > /root/note'
  garth shell web                                 a terminal in it
  p=$(garth exec -d web -- ./server)              in the background
  garth logs -f web $p
  garth cp web:/root/note .

The daemon is started when none runs. `garth doctor` says what this machine can do;
`garth help exit-codes` what an exit code means.";

/// A sandbox with a persistent filesystem for every agent project.
#[derive(Debug, Parser)]
#[command(name = "garth", version, after_help = EXAMPLES, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Every command")]
pub struct Global {
    /// Directory of the daemon to use, with its projects, images and socket [env: GARTH_DATA_DIR]
    /// [default: /var/lib/garth]
    // Not clap's env and default: it would show them in every usage line as if they had to be given.
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Daemon to use, by its socket (unix:///PATH) or its address (https://HOST, http://HOST:PORT; with GARTH_API_KEY
    /// set); never starts one [env: GARTH_HOST]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "data_dir")]
    pub host: Option<Host>,
    /// Print JSON, for errors too
    #[arg(long, global = true)]
    pub json: bool,
}

/// One verb each; the fields are in the verb's own file.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a command in a new project, or in the one of this name
    Run(run::Run),
    /// Make a project; nothing runs yet
    Create(create::Create),
    /// Start projects
    Start(start::Start),
    /// Stop projects; their files stay
    Stop(stop::Stop),
    /// Stop projects and start them again
    Restart(stop::Restart),
    /// Freeze running projects where they are; their memory stays
    Pause(pause::Pause),
    /// Let paused projects go on where they were
    #[command(visible_alias = "unpause")]
    Resume(pause::Resume),
    /// Delete projects and their files for good
    #[command(visible_aliases = ["remove", "delete"])]
    Rm(rm::Rm),
    /// List projects
    #[command(visible_alias = "list")]
    Ls(ls::Ls),
    /// Show everything about projects
    Inspect(inspect::Inspect),
    /// Run a command in a project; starts it when it is stopped, resumes it when it is paused
    Exec(exec::Exec),
    /// Open a shell in a project
    #[command(visible_alias = "connect")]
    Shell(shell::Shell),
    /// List the processes that were started in a project
    Ps(ps::Ps),
    /// Send a signal to a process and all it started
    Kill(kill::Kill),
    /// Print what a process has written
    Logs(logs::Logs),
    /// Follow a process: its output from now on, and your input
    Attach(attach::Attach),
    /// Wait for a process to end, and end with its exit code
    Wait(wait::Wait),
    /// Copy files into or out of a project
    #[command(visible_alias = "copy")]
    Cp(cp::Cp),
    /// Change a project's limits, network, runtime, environment or labels
    Set(set::Set),
    /// Check that the boundary of a project's sandbox holds, from inside it
    Verify(verify::Verify),
    /// Import, list and remove images
    #[command(visible_alias = "images")]
    Image(image::Image),
    /// Make, list and revoke keys of callers over the network
    Key(key::Key),
    /// Run the daemon in the foreground
    Serve(serve::Serve),
    /// Get what a runtime needs beside garth itself
    Setup(setup::Setup),
    /// Say what works on this machine, what is missing, and how to fix it
    Doctor(doctor::Doctor),
    /// Run the operator of a Kubernetes cluster in the foreground
    Operator(operator::Operator),
    /// Print or make what a Kubernetes cluster needs
    Cluster(cluster::Cluster),
    /// Print a completion script for a shell
    Completion(completion::Completion),
    /// What each exit code means
    #[command(hide = true, name = "exit-codes", override_help = format!("{}\n", exit::TABLE))]
    ExitCodes,
    /// This command line as a page of documentation
    #[command(hide = true)]
    Reference,
}

impl Command {
    /// Whether the exit code is that of a program in the sandbox, so that our failures become 125.
    pub const fn ends_as_a_program(&self) -> bool {
        matches!(self, Self::Run(_) | Self::Exec(_) | Self::Shell(_) | Self::Attach(_) | Self::Wait(_))
    }
}

/// The verb of a command line that could not be parsed: the first word that is no flag.
pub fn verb(words: &[String]) -> &str {
    let mut words = words.iter().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--data-dir" | "--host" => drop(words.next()),
            flag if flag.starts_with('-') => {}
            verb => return verb,
        }
    }
    ""
}

/// The same as [`Command::ends_as_a_program`], by name.
pub fn ends_as_a_program(verb: &str) -> bool {
    matches!(verb, "run" | "exec" | "shell" | "connect" | "attach" | "wait")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_verb_is_found_behind_flags() {
        let found = |line: &str| verb(&line.split(' ').map(str::to_owned).collect::<Vec<_>>()).to_owned();
        assert_eq!(found("garth --data-dir /x --json exec"), "exec");
        assert_eq!(found("garth --data-dir=/x wait"), "wait");
        assert_eq!(found("garth --host exec ls"), "ls");
        assert_eq!(found("garth rm exec"), "rm");
    }

    #[test]
    fn words_after_the_dashes_are_never_flags() {
        let cli = Cli::try_parse_from(["garth", "exec", "web", "--", "ls", "--json", "--", "-x"]).expect("parses");
        assert!(!cli.global.json);
        let Command::Exec(exec) = cli.command else { panic!("not exec") };
        assert_eq!(exec.command, ["ls", "--json", "--", "-x"]);
    }

    #[test]
    fn a_command_without_the_dashes_is_refused() {
        assert!(Cli::try_parse_from(["garth", "exec", "web", "ls"]).is_err());
    }
}
