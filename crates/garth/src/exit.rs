//! What each exit code means: one table for the code, `garth help exit-codes` and docs/cli.md.

/// How the program ends when it is not a process's own exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Something failed that has no code of its own.
    Failed = 1,
    /// A flag, name or value that is not taken.
    Usage = 2,
    /// No such project, image, process or file.
    NotFound = 3,
    /// The name is taken, or the state does not allow it.
    Conflict = 4,
    /// Refused: an unsafe image, a missing confirmation, no permission.
    Refused = 5,
    /// A limit or a quota, or a full disk.
    Limit = 6,
    /// No daemon answers and none could be started.
    Unreachable = 7,
    /// The runtime or the network asked for cannot be had on this machine.
    Unavailable = 8,
    /// `--timeout` passed.
    Timeout = 124,
    /// Garth failed, not the program it was to run.
    Ours = 125,
    /// The program is there and cannot be run.
    NotExecutable = 126,
    /// The program is not there.
    NoSuchProgram = 127,
    /// Whoever read our output went away, as by SIGPIPE.
    ReaderGone = 141,
}

impl Exit {
    /// The code that the shell sees.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The code of a command whose result is a process's own exit code: what is ours becomes 125, so
    /// that it is never taken for the program's.
    #[must_use]
    pub const fn beside_a_program(self) -> Self {
        match self {
            Self::Timeout | Self::NotExecutable | Self::NoSuchProgram | Self::ReaderGone => self,
            _ => Self::Ours,
        }
    }
}

/// The code of a process that a signal ended.
pub const fn signalled(signal: u8) -> u8 {
    128u8.saturating_add(signal)
}

/// `garth help exit-codes`.
pub const TABLE: &str = "\
run, exec, shell, attach and wait end with the code of the process they ran or waited for:

  0-255  the program's own code
  124    --timeout passed; the process and all it started were ended
  125    Garth failed, not the program
  126    the program cannot be run: not executable, a directory, not permitted
  127    the program was not found
  128+n  the program was ended by signal n (137 is SIGKILL, also when memory ran out)

All other commands:

  0      done
  1      failed; for verify: a check failed
  2      wrong usage: an unknown flag, a name or a value that is not taken
  3      no such project, image, process or file
  4      the name is taken, or the project's state does not allow it
  5      refused: an unsafe image, a runtime weaker than --at-least, a confirmation that is missing, no permission
  6      over a limit or quota, or a disk is full
  7      no daemon answers and none could be started
  8      the runtime or network that was asked for is not available on this machine
  141    whoever read the output went away

With --json every failure is also {\"error\":{\"code\",\"message\",\"hint\",\"step\",\"cause\"}} on stdout.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_failures_are_never_taken_for_the_programs() {
        assert_eq!(Exit::NotFound.beside_a_program(), Exit::Ours);
        assert_eq!(Exit::Usage.beside_a_program(), Exit::Ours);
        assert_eq!(Exit::NoSuchProgram.beside_a_program().code(), 127);
    }

    #[test]
    fn the_table_names_every_code() {
        for exit in [
            Exit::Failed,
            Exit::Usage,
            Exit::NotFound,
            Exit::Conflict,
            Exit::Refused,
            Exit::Limit,
            Exit::Unreachable,
            Exit::Unavailable,
            Exit::Timeout,
            Exit::Ours,
            Exit::NotExecutable,
            Exit::NoSuchProgram,
            Exit::ReaderGone,
        ] {
            assert!(TABLE.contains(&format!("\n  {} ", exit.code())), "{exit:?}");
        }
    }
}
