//! The command line of Garth: for people at a terminal and for programs that drive it.
//!
//! ```text
//! words --cli--> a verb --commands--> the daemon's API (garth-api), started on demand
//!                                  \-> the agent in a sandbox (garth-protocol), through the daemon
//! ```
//!
//! It knows no way to a sandbox but the daemon's API, keeps no state of its own and decides nothing
//! about sandboxes. `garth serve` is the daemon itself.
#![forbid(unsafe_code)]

mod agent;
mod cli;
mod commands;
mod complete;
mod context;
mod daemon;
mod duration;
mod events;
mod exit;
mod failure;
mod follow;
mod input;
mod options;
mod output;
mod process;
mod reference;
mod session;
mod signals;
mod sink;
mod tarball;
mod terminal;
mod transfer;
mod unpack;
mod waits;

use std::io;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command};
use context::{Context, Format};
use daemon::Endpoint;
use exit::Exit;
use failure::{Failure, Result};

fn main() -> ExitCode {
    if std::env::var_os("COMPLETE").is_some() {
        clap_complete::CompleteEnv::with_factory(Cli::command).complete();
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(misused(&error)),
    };
    let format = if cli.global.json { Format::Json } else { Format::Text };
    let beside_a_program = cli.command.ends_as_a_program();
    let ended = run(cli, format);
    ExitCode::from(ended.unwrap_or_else(|failure| {
        report(&failure, format);
        if beside_a_program { failure.exit.beside_a_program().code() } else { failure.exit.code() }
    }))
}

/// Prints what is wrong with the command line, or the help that was asked for.
fn misused(error: &clap::Error) -> u8 {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        let _ = error.print();
        return 0;
    }
    let words: Vec<String> = std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let verb = cli::verb(&words);
    let dashes = words.iter().any(|word| word == "--");
    let hint = (matches!(verb, "run" | "exec") && !dashes)
        .then_some("the command comes after --, as in: garth exec NAME -- ls -l");
    let json = words.iter().take_while(|word| *word != "--").any(|word| word == "--json");
    if json {
        let text = error.render().to_string();
        let message = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        let message = message.split_whitespace().collect::<Vec<_>>().join(" ");
        report(&Failure::usage(message).hint(hint.unwrap_or("garth help")), Format::Json);
    } else {
        let _ = error.print();
        if let Some(hint) = hint {
            eprintln!("  hint: {hint}");
        }
    }
    if cli::ends_as_a_program(verb) { Exit::Ours.code() } else { Exit::Usage.code() }
}

fn run(cli: Cli, format: Format) -> Result<u8> {
    let endpoint = Endpoint::of(&cli.global, |name| std::env::var_os(name))?;
    match cli.command {
        Command::Serve(args) => commands::serve::run(&endpoint, &args),
        Command::Operator(args) => commands::operator::run(args),
        Command::Cluster(args) => commands::cluster::run(args),
        Command::Completion(args) => commands::completion::run(&args),
        Command::ExitCodes => output::line(exit::TABLE).map(|()| 0),
        Command::Reference => output::print(&reference::page()).map(|()| 0),
        command => {
            let runtime = runtime().map_err(|error| Failure::io("cannot start", &error))?;
            let code = runtime.block_on(dispatch(&Context::new(endpoint, format), command));
            // A thread may still read standard input: nothing waits for it.
            runtime.shutdown_background();
            code
        }
    }
}

async fn dispatch(context: &Context, command: Command) -> Result<u8> {
    use commands::{
        attach, cp, create, doctor, exec, image, inspect, key, kill, logs, ls, pause, ps, rm, run, set, setup, shell,
        start, stop, verify, wait,
    };
    match command {
        Command::Run(args) => run::run(context, args).await,
        Command::Create(args) => create::run(context, args).await,
        Command::Start(args) => start::run(context, args).await,
        Command::Pause(args) => pause::pause(context, args).await,
        Command::Resume(args) => pause::resume(context, args).await,
        Command::Stop(args) => stop::stop(context, args).await,
        Command::Restart(args) => stop::restart(context, args).await,
        Command::Rm(args) => rm::run(context, args).await,
        Command::Ls(args) => ls::run(context, args).await,
        Command::Inspect(args) => inspect::run(context, args).await,
        Command::Exec(args) => exec::run(context, args).await,
        Command::Shell(args) => shell::run(context, args).await,
        Command::Ps(args) => ps::run(context, args).await,
        Command::Kill(args) => kill::run(context, args).await,
        Command::Logs(args) => logs::run(context, args).await,
        Command::Attach(args) => attach::run(context, args).await,
        Command::Wait(args) => wait::run(context, args).await,
        Command::Cp(args) => cp::run(context, args).await,
        Command::Set(args) => set::run(context, args).await,
        Command::Verify(args) => verify::run(context, args).await,
        Command::Image(args) => image::run(context, args).await,
        Command::Key(args) => key::run(context, args).await,
        Command::Setup(args) => setup::run(context, args).await,
        Command::Doctor(args) => doctor::run(context, args).await,
        Command::Serve(_) | Command::Operator(_) | Command::Cluster(_) => Ok(0),
        Command::Completion(_) | Command::ExitCodes | Command::Reference => Ok(0),
    }
}

/// One thread: a command waits for one thing after the other, and threads cost time to start.
fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Prints a failure where whoever asked looks for it.
fn report(failure: &Failure, format: Format) {
    if failure.exit == Exit::ReaderGone {
        return;
    }
    match format {
        // The reader may be gone; the exit code remains.
        Format::Json => drop(output::json_line(&failure.json())),
        Format::Text => eprintln!("{}", failure.text()),
    }
}
