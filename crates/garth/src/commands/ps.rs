use clap::Args;
use garth_protocol::agent::{ListRequest, Process};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::agent::{Agent, Start};
use crate::context::{Context, Format};
use crate::events::{exit_code, reason};
use crate::exit::Exit;
use crate::failure::Result;
use crate::options::OneProject;
use crate::output;

#[derive(Debug, Args)]
pub struct Ps {
    #[command(flatten)]
    pub project: OneProject,
    /// Only those that run
    #[arg(long)]
    pub running: bool,
    /// Print ids only
    #[arg(long, short)]
    pub quiet: bool,
}

pub async fn run(context: &Context, args: Ps) -> Result<u8> {
    let agent = Agent::of(context, &args.project.name, Start::Never);
    let request = ListRequest { running_only: args.running, ..ListRequest::default() };
    let listed = agent.ask(async |agent| agent.list(request.clone()).await).await;
    let processes = match listed {
        Ok(answer) => answer.into_owned().processes,
        Err(failure) if failure.code == "not_running" => {
            output::note(&format!("{} is not running", args.project.name));
            Vec::new()
        }
        Err(failure) => return Err(failure),
    };
    match context.format {
        Format::Json => {
            let processes: Vec<Value> = processes.iter().map(process_json).collect();
            output::json(&json!({ "processes": processes }))?;
        }
        Format::Text if args.quiet => {
            output::print(&processes.iter().map(|process| output::cell(&process.id, 64) + "\n").collect::<String>())?;
        }
        Format::Text => output::print(&table(&processes, output::now()))?,
    }
    Ok(0)
}

fn table(processes: &[Process], now: i64) -> String {
    let rows: Vec<[String; 5]> = processes.iter().map(|process| row(process, now)).collect();
    output::table(["ID", "STATE", "STARTED", "USER", "COMMAND"], &rows)
}

fn row(process: &Process, now: i64) -> [String; 5] {
    [
        output::cell(&process.id, 64),
        state(process),
        output::ago(process.started_at_ms / 1000, now),
        output::cell(&process.user, 32),
        output::cell(&process.argv.join(" "), 60),
    ]
}

fn state(process: &Process) -> String {
    let Some(ended) = process.ended.as_option() else { return "running".to_owned() };
    let ended = match exit_code(ended) {
        Ok(code) if code == Exit::Timeout.code() && reason(ended) == "timeout" => "timed out".to_owned(),
        Ok(code) => format!("exited {code}"),
        Err(_) => "lost".to_owned(),
    };
    if process.lingering { format!("{ended}, children run") } else { ended }
}

/// A process as `ps --json` shows it.
fn process_json(process: &Process) -> Value {
    let ended = process.ended.as_option();
    json!({
        "id": process.id,
        "pid": (process.pid != 0).then_some(process.pid),
        "argv": process.argv,
        "user": process.user,
        "cwd": process.cwd,
        "terminal": process.terminal,
        "detached": process.detached,
        "running": ended.is_none(),
        "lingering": process.lingering,
        "started_at": time(process.started_at_ms),
        "ended_at": time(process.ended_at_ms),
        "reason": ended.map(reason),
        "exit_code": ended.and_then(|ended| exit_code(ended).ok()),
        "first_offset": process.first_offset,
        "next_offset": process.next_offset,
    })
}

fn time(ms: i64) -> Option<String> {
    let time = Timestamp::from_millisecond(ms).ok()?;
    (ms != 0).then(|| time.to_string())
}

#[cfg(test)]
mod tests {
    use garth_protocol::agent::{EndReason, Ended};

    use super::*;

    #[test]
    fn a_process_says_how_it_ended() {
        let mut process = Process { id: "p1".into(), argv: vec!["a\x1b[2J".into()], ..Process::default() };
        assert_eq!(row(&process, 60), ["p1", "running", "1m ago", "", "a\u{fffd}[2J"]);
        process.ended = Some(Ended { reason: EndReason::Exited.into(), exit_code: 3, ..Ended::default() }).into();
        process.lingering = true;
        assert_eq!(state(&process), "exited 3, children run");
        assert_eq!(process_json(&process)["exit_code"], 3);
        assert_eq!(process_json(&process)["pid"], Value::Null);
    }
}
