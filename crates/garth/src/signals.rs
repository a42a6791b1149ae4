//! Signals to this program, on their way to the process.

use std::collections::VecDeque;
use std::fs::File;
use std::future::{pending, poll_fn};
use std::io::{self, Read as _};
use std::pin::pin;
use std::str::FromStr;
use std::task::Poll;
use std::time::Duration;

use garth_protocol::agent::SignalScope;
use rustix::process::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::failure::{Failure, Result};

/// The signals that are passed on, and to whom: what a keyboard or a closed terminal would send to
/// the foreground goes to all that the process started, the rest to the process alone.
const PASSED_ON: [(SignalKind, Signal, SignalScope); 6] = [
    (SignalKind::interrupt(), Signal::INT, SignalScope::Tree),
    (SignalKind::quit(), Signal::QUIT, SignalScope::Tree),
    (SignalKind::hangup(), Signal::HUP, SignalScope::Tree),
    (SignalKind::terminate(), Signal::TERM, SignalScope::Leader),
    (SignalKind::user_defined1(), Signal::USR1, SignalScope::Leader),
    (SignalKind::user_defined2(), Signal::USR2, SignalScope::Leader),
];

/// A signal by name (`TERM`, `SIGTERM`) or number, as on this machine, whose kernel the sandbox shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalName(pub i32);

/// The standard signals by number, from 1 (signal(7), x86 and ARM).
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];

impl FromStr for SignalName {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let named = NAMES.iter().zip(1..).find_map(|(known, number)| (*known == name).then_some(number));
        let number = named.or_else(|| text.parse().ok().filter(|number| (1..=64).contains(number)));
        number.map(Self).ok_or("write a signal's name or number, as in TERM, SIGINT or 9")
    }
}

/// Waits until this program is to end.
pub async fn asked_to_end() {
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// How long a signal waits for the process that it is for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Signals that wait to be passed on.
#[derive(Debug)]
pub struct Signals {
    caught: Vec<(Stream, Signal, SignalScope)>,
    /// Those that came before there was a process.
    early: VecDeque<(Signal, SignalScope)>,
}

impl Signals {
    /// Catches the signals from now on. What was ignored stays ignored: under nohup the terminal's
    /// end, in a script's background job the keyboard.
    pub fn catch() -> Result<Self> {
        let ignored = ignored();
        let caught = PASSED_ON.iter().filter(|(_, signal, _)| ignored >> (signal.as_raw() - 1) & 1 == 0);
        let caught = caught
            .map(|&(kind, name, scope)| Ok((signal(kind)?, name, scope)))
            .collect::<io::Result<_>>()
            .map_err(|error| Failure::io("cannot catch signals", &error))?;
        Ok(Self { caught, early: VecDeque::new() })
    }

    /// Starts a process. Signals that come meanwhile are for it, and wait: a second at most, then the
    /// first of them is the answer, and ends this program instead.
    pub async fn while_starting<T>(&mut self, start: impl Future<Output = T>) -> std::result::Result<T, Signal> {
        let mut start = pin!(start);
        let mut patience = None;
        loop {
            let over = async {
                match patience {
                    Some(until) => sleep_until(until).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                started = &mut start => return Ok(started),
                signal = self.arrived() => {
                    self.early.push_back(signal);
                    patience = patience.or_else(|| Some(Instant::now() + PATIENCE));
                }
                () = over => break,
            }
        }
        Err(self.early.front().map_or(Signal::TERM, |(signal, _)| *signal))
    }

    /// The next signal.
    pub async fn next(&mut self) -> (Signal, SignalScope) {
        match self.early.pop_front() {
            Some(signal) => signal,
            None => self.arrived().await,
        }
    }

    async fn arrived(&mut self) -> (Signal, SignalScope) {
        poll_fn(|context| {
            for (stream, signal, scope) in &mut self.caught {
                if stream.poll_recv(context).is_ready() {
                    return Poll::Ready((*signal, *scope));
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// The ignored signals as a mask, bit 0 for signal 1 (proc_pid_status(5), SigIgn).
fn ignored() -> u64 {
    // One read: the line is in the first two kilobytes, and the kernel makes the text anew for each.
    let mut status = [0; 4096];
    let read = File::open("/proc/self/status").and_then(|mut file| file.read(&mut status)).unwrap_or(0);
    let status = String::from_utf8_lossy(status.get(..read).unwrap_or_default());
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rust_program_ignores_sigpipe() {
        assert_eq!(ignored() >> (Signal::PIPE.as_raw() - 1) & 1, 1);
        assert_eq!(ignored() >> (Signal::TERM.as_raw() - 1) & 1, 0);
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in [("TERM", 15), ("SIGKILL", 9), ("int", 2), ("9", 9), ("SYS", 31), ("34", 34)] {
            assert_eq!(text.parse(), Ok(SignalName(number)), "{text}");
        }
        for text in ["", "0", "65", "-9", "SIG", "NOPE"] {
            assert!(text.parse::<SignalName>().is_err(), "{text}");
        }
    }

    // One test: a signal reaches everyone in this process who catches it.
    #[tokio::test]
    async fn signals_wait_for_the_process_that_they_are_for() {
        let kill = |signal| rustix::process::kill_process(rustix::process::getpid(), signal).expect("kill");
        let mut signals = Signals::catch().expect("catch");
        kill(Signal::USR2);
        assert_eq!(signals.next().await, (Signal::USR2, SignalScope::Leader));
        kill(Signal::USR1);
        let start = async {
            tokio::task::yield_now().await;
            "started"
        };
        assert_eq!(signals.while_starting(start).await, Ok("started"));
        assert_eq!(signals.next().await, (Signal::USR1, SignalScope::Leader));
        kill(Signal::TERM);
        assert_eq!(signals.while_starting(pending::<()>()).await, Err(Signal::TERM));
    }
}
