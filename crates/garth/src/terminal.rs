//! The terminal that this program runs on: raw while a process in a sandbox has it, restored after.

use std::io::{self, IsTerminal as _};

use garth_protocol::agent::Terminal as Size;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The terminal on standard input in raw mode; dropping it restores what was.
///
/// Every way out of this program but SIGKILL drops it: signals are caught while it exists.
#[derive(Debug)]
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// Makes standard input raw; none when it is no terminal.
    pub fn enter() -> io::Result<Option<Self>> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(&stdin)?;
        let raw = Self { before };
        raw.again()?;
        Ok(Some(raw))
    }

    /// Makes it raw again, after something else had the terminal.
    pub fn again(&self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        // What was typed ahead belongs to the process: it is not flushed.
        tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(())
    }

    /// Puts back what was.
    pub fn restore(&self) {
        // The terminal may be gone; then there is nothing to restore.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.restore();
    }
}

/// The size of the terminal here; 80x24 when there is none.
pub fn size() -> Size {
    let winsize = tcgetwinsize(io::stdout()).or_else(|_| tcgetwinsize(io::stdin()));
    match winsize {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { cols: size.ws_col.into(), rows: size.ws_row.into(), ..Size::default() }
        }
        _ => Size { cols: 80, rows: 24, ..Size::default() },
    }
}

/// Whether a person sits at both ends.
pub fn both_ends() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}
