//! A process with this program's own input, output and signals: `run`, `exec`, `shell`, `attach`.
//!
//! ```text
//! stdin ------> Input ----> agent          loops side by side on one thread;
//! signals ----> agent                      the session is over when the output is
//! stdout <----- Sink <----- Follower
//! ```

use std::convert::Infallible;
use std::future::pending;

use garth_protocol::agent::{ResizeRequest, SignalRequest, SignalScope};
use rustix::process::{Signal, getpid, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use crate::agent::Agent;
use crate::context::Format;
use crate::events::Printer;
use crate::exit::Exit;
use crate::failure::{Failure, Result};
use crate::follow::Follower;
use crate::input::Input;
use crate::signals::Signals;
use crate::terminal::{self, Raw};

/// What a session connects.
#[derive(Debug, Clone, Copy)]
pub struct Wiring {
    /// Bytes that the process's input had before; none when it gets none from here.
    pub input: Option<u64>,
    /// Whether the process has a terminal: it follows the size of the one here.
    pub terminal: bool,
    pub format: Format,
}

/// Follows a process to its end; the code to exit with.
pub async fn run(agent: &Agent<'_>, mut follower: Follower<'_>, wiring: Wiring, mut signals: Signals) -> Result<u8> {
    let id = follower.id().to_owned();
    let raw = if wiring.terminal && wiring.input.is_some() { enter_raw()? } else { None };
    let mut printer = Printer::new(wiring.format);
    let shown = tokio::select! {
        shown = printer.show(&mut follower) => shown,
        never = pass_input(agent, &id, wiring.input) => match never {},
        never = pass_signals(agent, &id, &mut signals) => match never {},
        never = follow_size(agent, &id, wiring.terminal) => match never {},
        never = make_way(raw.as_ref()) => match never {},
    };
    if shown.as_ref().is_err_and(|failure| failure.exit == Exit::ReaderGone) {
        // As if the process had written to that reader itself.
        send_signal(agent, &id, Signal::PIPE, SignalScope::Tree).await;
    }
    shown
}

fn enter_raw() -> Result<Option<Raw>> {
    Raw::enter().map_err(|error| Failure::io("cannot make the terminal raw", &error))
}

async fn pass_input(agent: &Agent<'_>, id: &str, position: Option<u64>) -> Infallible {
    if let Some(position) = position {
        // An input that is not taken any more ends nothing: the process's end does.
        let _ = Input::open().send(agent, id, position).await;
    }
    pending().await
}

async fn pass_signals(agent: &Agent<'_>, id: &str, signals: &mut Signals) -> Infallible {
    loop {
        let (signal, scope) = signals.next().await;
        send_signal(agent, id, signal, scope).await;
    }
}

/// A process that ended meanwhile needs no signal, and a daemon that is gone for good is noticed by
/// whoever waits for output: nothing to tell here.
async fn send_signal(agent: &Agent<'_>, id: &str, signal: Signal, scope: SignalScope) {
    let (id, signal) = (id.to_owned(), signal.as_raw());
    let request = SignalRequest { id, signal, scope: scope.into(), ..SignalRequest::default() };
    let _ = agent.ask(async |agent| agent.signal(request.clone()).await).await;
}

async fn follow_size(agent: &Agent<'_>, id: &str, terminal: bool) -> Infallible {
    let Some(mut changes) = terminal.then(|| signal(SignalKind::window_change()).ok()).flatten() else {
        return pending().await;
    };
    loop {
        changes.recv().await;
        let request =
            ResizeRequest { id: id.to_owned(), terminal: terminal::size().into(), ..ResizeRequest::default() };
        let _ = agent.ask(async |agent| agent.resize(request.clone()).await).await;
    }
}

/// Someone stops this program (`kill -TSTP`; ctrl-Z goes to the process): the shell gets its
/// terminal back as it was, and raw mode returns with SIGCONT.
async fn make_way(raw: Option<&Raw>) -> Infallible {
    // Without a raw terminal the signal keeps its meaning: nothing may catch it.
    let Some(raw) = raw else { return pending().await };
    let Ok(mut stops) = signal(SignalKind::from_raw(Signal::TSTP.as_raw())) else { return pending().await };
    loop {
        stops.recv().await;
        raw.restore();
        let _ = kill_process(getpid(), Signal::STOP);
        let _ = raw.again();
    }
}
