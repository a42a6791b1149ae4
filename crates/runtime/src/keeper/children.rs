//! The keeper's children: helpers, and the sandbox's init, which falls to it when the porter ends. How the init ended is
//! the keeper's last word: the kernel tells a parent alone what reboot(2) inside asked for (`pid_namespaces(7)`).
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use garth_kernel::signal::{self, ChildEnds};
use garth_kernel::signalfd::SignalFd;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, WaitOptions};

use crate::handshake::ENDED_BY;
use crate::slots::PATIENCE;

/// Children that are waited for.
pub(super) struct Children {
    signals: SignalFd,
    init: Option<Pid>,
    /// The signal that ended the init.
    ended_by: Option<i32>,
}

impl AsFd for Children {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

impl Children {
    /// From now on they stay until they are waited for.
    pub(super) fn watch() -> io::Result<Self> {
        let signals = SignalFd::new(&[Signal::CHILD])?;
        signal::children(ChildEnds::WaitedFor)?;
        Ok(Self { signals, init: None, ended_by: None })
    }

    /// Which of them is the sandbox's init.
    pub(super) fn expect(&mut self, init: i32) {
        self.init = Pid::from_raw(init);
    }

    /// Waits for those that have ended. Whether there are others.
    pub(super) fn reap(&mut self) -> bool {
        while self.signals.read().is_ok() {}
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if Some(pid) == self.init => self.ended_by = status.terminating_signal(),
                Ok(Some(_)) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    /// Once no process has the filter: the exit status that tells the daemon how the init ended.
    pub(super) fn last_word(&mut self) -> i32 {
        let patience = Timespec { tv_sec: PATIENCE.as_secs().cast_signed(), tv_nsec: 0 };
        while self.init.is_some() && self.reap() && self.ended_by.is_none() {
            if poll(&mut [PollFd::new(&self.signals, PollFlags::IN)], Some(&patience)) == Ok(0) {
                break;
            }
        }
        self.ended_by.map_or(0, |signal| ENDED_BY + signal)
    }
}
