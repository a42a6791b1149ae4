//! The duties of PID 1: no zombie stays, and a SIGTERM from outside ends the sandbox in order.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use garth_kernel::signalfd::SignalFd;
use garth_kernel::supervise::Exit;
use rustix::process::{Pid, Signal, WaitOptions};
use tokio::io::Interest;

use crate::Shared;
use crate::process::{descendants, kill_descendants, signal_descendants};
use crate::readiness::watch;

/// What a SIGTERM gives the processes before they are killed.
const GRACE: Duration = Duration::from_secs(5);
/// How often a shutdown looks whether everything has ended by itself.
const LOOK_EVERY: Duration = Duration::from_millis(2);
/// How long a kill looks for survivors.
const PATIENCE: Duration = Duration::from_secs(5);

/// Begins to collect the signals that the agent answers to.
pub fn signals() -> io::Result<SignalFd> {
    SignalFd::new(&[Signal::CHILD, Signal::TERM, Signal::INT])
}

/// Reaps until a SIGTERM or SIGINT comes, then shuts down. Before there is anything to reap for it only ends.
pub async fn run(signals: SignalFd, shared: impl Future<Output = Arc<Shared>>) -> io::Result<()> {
    let signals = watch(signals, Interest::READABLE)?;
    let asked = async {
        loop {
            if let end @ (Ok(Signal::TERM | Signal::INT) | Err(_)) =
                signals.async_io(Interest::READABLE, SignalFd::read).await
            {
                break end;
            }
        }
    };
    let shared = &tokio::select! {
        biased;
        shared = shared => shared,
        end = asked => return end.map(drop),
    };
    loop {
        // Also before the first signal: children may have ended while nobody looked.
        reap(shared);
        match signals.async_io(Interest::READABLE, SignalFd::read).await? {
            Signal::TERM | Signal::INT => break,
            _ => {}
        }
    }
    let reaping = async {
        loop {
            reap(shared);
            if signals.async_io(Interest::READABLE, SignalFd::read).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _ = shut_down(shared, GRACE) => {}
        () = reaping => {}
    }
    Ok(())
}

fn reap(shared: &Shared) {
    while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
        shared.processes.reaped(pid, Exit::from_status(status.as_raw()));
    }
}

/// Asks everything to end, waits for that up to `grace`, and kills the rest. Returns how many had to be killed.
pub async fn shut_down(shared: &Arc<Shared>, grace: Duration) -> u32 {
    shared.processes.close();
    let live = shared.processes.live();
    let supervisors: Vec<Pid> = live.iter().map(|process| process.supervisor()).collect();
    // Interactive shells ignore SIGTERM, and take the loss of their terminal for an order to go.
    for process in live.iter().filter(|process| process.facts().terminal) {
        process.signal_leader(Signal::HUP);
    }
    let killed = tokio::task::spawn_blocking(move || end_all(&supervisors, grace)).await.unwrap_or(0);
    // The last output is worth a moment; a disk that hangs is not worth more.
    let _ = tokio::time::timeout(PATIENCE, shared.processes.settle()).await;
    killed
}

/// Supervisors are left alone: they end when nothing is below them. Adopted orphans are descendants as well.
fn end_all(supervisors: &[Pid], grace: Duration) -> u32 {
    let own = rustix::process::getpid();
    let wanted = |pid: Pid| !supervisors.contains(&pid);
    signal_descendants(own, Signal::TERM, wanted);
    // A stopped process ends only when it goes on.
    signal_descendants(own, Signal::CONT, wanted);
    let deadline = Instant::now() + grace;
    while Instant::now() < deadline {
        if !descendants(own).into_iter().any(wanted) {
            return 0;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    kill_descendants(own, PATIENCE, wanted, || false)
}
