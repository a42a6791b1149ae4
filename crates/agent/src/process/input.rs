//! A process's standard input, or its terminal's.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Notify;

use super::Size;
use crate::lock;
use crate::readiness::watch;

/// Ctrl-D: what a terminal takes for the end of its input (termios(3), VEOF).
const END_OF_FILE: &[u8] = &[4];

/// Why input was not taken.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// Standard input is /dev/null, or was closed by a client, or by the process.
    #[error("the process takes no more input")]
    Closed,
    /// The client sent from an offset on that has not been reached.
    #[error("input was taken up to offset {taken}, not {asked}")]
    Gap {
        /// Bytes taken so far.
        taken: u64,
        /// The client's offset.
        asked: u64,
    },
    /// It is not a terminal.
    #[error("the process has no terminal")]
    NoTerminal,
    /// The kernel refused.
    #[error("the input could not be written")]
    Write(#[source] io::Error),
}

/// See the module. Writers take turns; closing interrupts them.
#[derive(Debug)]
pub struct Input {
    sink: Mutex<Option<Arc<AsyncFd<OwnedFd>>>>,
    terminal: bool,
    /// Bytes written.
    taken: AtomicU64,
    turn: tokio::sync::Mutex<()>,
    closed: Notify,
}

impl Input {
    /// No input at all.
    pub fn none() -> Self {
        Self::new(None, false)
    }

    /// A pipe's writing end, non-blocking.
    pub fn pipe(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self::new(Some(Arc::new(watch(fd, Interest::WRITABLE)?)), false))
    }

    /// A terminal's controlling side.
    pub fn terminal(fd: Arc<AsyncFd<OwnedFd>>) -> Self {
        Self::new(Some(fd), true)
    }

    fn new(sink: Option<Arc<AsyncFd<OwnedFd>>>, terminal: bool) -> Self {
        Self {
            sink: Mutex::new(sink),
            terminal,
            taken: AtomicU64::new(0),
            turn: tokio::sync::Mutex::new(()),
            closed: Notify::new(),
        }
    }

    /// Whether more is taken.
    pub fn is_open(&self) -> bool {
        lock(&self.sink).is_some()
    }

    /// Whether it is a terminal's.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Bytes taken so far.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Writes all of `data`, which begins at `offset` of the input (or follows what was taken), less what was taken.
    pub async fn write(&self, offset: Option<u64>, data: &[u8]) -> Result<(), InputError> {
        let _turn = self.turn.lock().await;
        let taken = self.taken();
        let offset = offset.unwrap_or(taken);
        if offset > taken {
            return Err(InputError::Gap { taken, asked: offset });
        }
        let skip = usize::try_from(taken - offset).unwrap_or(usize::MAX).min(data.len());
        let mut rest = &data[skip..];
        while !rest.is_empty() {
            let count = self.write_some(rest).await?;
            self.taken.fetch_add(count as u64, Ordering::Relaxed);
            rest = &rest[count..];
        }
        Ok(())
    }

    async fn write_some(&self, data: &[u8]) -> Result<usize, InputError> {
        let closed = self.closed.notified();
        let sink = lock(&self.sink).clone().ok_or(InputError::Closed)?;
        let written = sink.async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, data)?));
        let result = tokio::select! {
            result = written => result,
            () = closed => return Err(InputError::Closed),
        };
        match result {
            Err(error) if matches!(Errno::from_io_error(&error), Some(Errno::PIPE | Errno::IO)) => {
                self.close();
                Err(InputError::Closed)
            }
            other => other.map_err(InputError::Write),
        }
    }

    /// What a client's close means: a pipe is closed; a terminal, which has no end, gets its end-of-file character.
    pub async fn finish(&self) -> Result<(), InputError> {
        let _turn = self.turn.lock().await;
        if !self.terminal {
            self.close();
            return Ok(());
        }
        self.write_some(END_OF_FILE).await.map(|_| ())
    }

    /// Takes no more, at once.
    pub fn close(&self) {
        lock(&self.sink).take();
        self.closed.notify_waiters();
    }

    /// Changes the terminal's size; the kernel tells the processes in it (SIGWINCH).
    pub fn resize(&self, size: Size) -> Result<(), InputError> {
        let sink = lock(&self.sink).clone().filter(|_| self.terminal).ok_or(InputError::NoTerminal)?;
        let size = rustix::termios::Winsize { ws_row: size.rows, ws_col: size.cols, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(sink.get_ref(), size).map_err(|error| InputError::Write(error.into()))
    }
}
