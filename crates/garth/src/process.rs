//! Starting a process the way its flags say, and staying with it or not.

use garth_protocol::agent::StartRequest;
use garth_spec::ProjectName;
use serde_json::json;

use crate::agent::{Agent, Start};
use crate::context::{Context, Format};
use crate::events::not_started;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::follow::{Follower, Happened, new_id};
use crate::options::ProcessOptions;
use crate::session::{self, Wiring};
use crate::signals::Signals;
use crate::terminal;
use crate::{duration, output, waits};

/// The most that one Start carries: more than execve(2) ever takes (6 MiB, MAX_ARG_STRLEN aside), so that
/// nothing that could run is refused here.
const LONGEST: usize = 8 << 20;

/// How the id of a process that is left running is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Printed {
    /// The id.
    Id,
    /// The project's name and the id, as `logs` and `wait` take them.
    NameAndId,
}

/// Runs a command in a project to its end, or only starts it; the code to exit with.
pub async fn run(
    context: &Context,
    project: &ProjectName,
    options: &ProcessOptions,
    command: &[String],
    printed: Printed,
) -> Result<u8> {
    let agent = Agent::of(context, project, Start::OnDemand);
    let terminal = wants_terminal(options);
    let request = request(options, command, terminal)?;
    let start = waits::told(context, project, Follower::start(&agent, request));
    if options.detach {
        return leave(context, project, &mut start.await?, printed).await;
    }
    let mut signals = Signals::catch()?;
    let follower = match signals.while_starting(start).await {
        Ok(started) => started?,
        Err(signal) => return Ok(128 + signal.as_raw().unsigned_abs() as u8),
    };
    let input = options.interactive.then_some(0);
    session::run(&agent, follower, Wiring { input, terminal, format: context.format }, signals).await
}

async fn leave(context: &Context, project: &ProjectName, follower: &mut Follower<'_>, printed: Printed) -> Result<u8> {
    match follower.next().await? {
        Some(Happened::Failed(failed)) => return Err(not_started(failed)),
        Some(_) => {}
        None => return Err(Failure::protocol("the agent did not say whether the process started")),
    }
    let id = follower.id();
    match (context.format, printed) {
        (Format::Json, _) => output::json_line(&json!({ "project": project, "process": id }))?,
        (Format::Text, Printed::Id) => output::line(id)?,
        (Format::Text, Printed::NameAndId) => output::line(format!("{project} {id}"))?,
    }
    Ok(0)
}

/// Whether the process gets a terminal: asked for, or a person types at one here.
fn wants_terminal(options: &ProcessOptions) -> bool {
    let typed = options.interactive && !options.detach && terminal::both_ends();
    !options.no_tty && (options.tty || typed)
}

fn request(options: &ProcessOptions, command: &[String], terminal: bool) -> Result<StartRequest> {
    let mut env: std::collections::HashMap<String, String> = options.place.variables().collect();
    if terminal {
        let local = || std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned());
        env.entry("TERM".to_owned()).or_insert_with(local);
    }
    let words: usize = command.iter().map(|word| word.len() + 8).sum();
    let variables: usize = env.iter().map(|(name, value)| name.len() + value.len() + 8).sum();
    if words + variables > LONGEST {
        let size = crate::output::bytes((words + variables) as u64);
        let message = format!("the command and its environment are {size} long: more than the kernel takes");
        let failure = Failure::new(Exit::NotExecutable, "arguments_too_long", message);
        return Err(failure.hint("pass long input through a file (garth cp) or standard input (-i)"));
    }
    Ok(StartRequest {
        id: new_id()?,
        argv: command.to_vec(),
        env: env.into_iter().collect(),
        cwd: options.place.workdir.clone().unwrap_or_default(),
        user: options.place.user.clone().unwrap_or_default(),
        terminal: terminal.then(terminal::size).into(),
        stdin: options.interactive,
        timeout_ms: options.timeout.map_or(0, |timeout| duration::millis(timeout).into()),
        detached: options.detach,
        ..StartRequest::default()
    })
}
