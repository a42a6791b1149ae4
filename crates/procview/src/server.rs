//! Carries requests and answers between the kernel and the session, without ever waiting.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::error::Error;
use crate::session::{Owner, Session};
use crate::view::View;
use crate::wire::{BUFFER, RESEND};

/// How a call of [`Server::serve`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// Poll the descriptor (level-triggered) before the next call: nothing waits, or it is somebody else's turn.
    Waiting,
    /// Unmounted, or aborted: nobody will ask again.
    Ended,
}

/// Requests served before the caller gets its turn: a sandbox that reads in a loop must not keep its system calls, or
/// its end, from being seen.
const TURN: usize = 64;

/// Answers the requests for the files of one sandbox.
#[derive(Debug)]
pub struct Server {
    fuse: OwnedFd,
    view: View,
    session: Session,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Server {
    /// `fuse` is an open /dev/fuse, non-blocking, that was or will be given to mount; possibly one that an earlier
    /// server has used.
    #[must_use]
    pub fn new(fuse: OwnedFd, view: View, owner: Owner) -> Self {
        let now = clock_gettime(ClockId::Boottime);
        // An earlier server counted from an earlier time, and not once per nanosecond.
        let first = now.tv_sec.cast_unsigned().wrapping_mul(1_000_000_000).wrapping_add(now.tv_nsec.cast_unsigned());
        let made = clock_gettime(ClockId::Realtime).tv_sec.cast_unsigned();
        Self { fuse, view, session: Session::new(owner, made, first), request: vec![0; BUFFER], answer: Vec::new() }
    }

    /// Answers what waits, without waiting. An error before the descriptor was given to mount.
    pub fn serve(&mut self) -> Result<Served, Error> {
        for _ in 0..TURN {
            let length = match rustix::io::read(&self.fuse, &mut self.request) {
                Ok(length) => length,
                Err(Errno::AGAIN) => return Ok(Served::Waiting),
                // The asker was killed before its request was read.
                Err(Errno::INTR | Errno::NOENT) => continue,
                Err(Errno::NODEV) => return Ok(Served::Ended),
                Err(error) => return Err(Error::Request(error.into())),
            };
            self.session.answer(&self.request[..length], &mut self.view, &mut self.answer);
            if self.answer.is_empty() {
                continue;
            }
            match write(self.fuse.as_fd(), &self.answer) {
                // The asker was killed meanwhile.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::NODEV) => return Ok(Served::Ended),
                Err(error) => return Err(Error::Answer(error.into())),
            }
        }
        Ok(Served::Waiting)
    }

    /// Has the requests that an earlier server took and did not answer delivered again (Linux 6.9); to be called once
    /// after a restart. False if this kernel cannot: who asked then waits until killed.
    pub fn resend(&mut self) -> Result<bool, Error> {
        match write(self.fuse.as_fd(), &RESEND) {
            Ok(()) => Ok(true),
            Err(Errno::INVAL) => Ok(false),
            Err(error) => Err(Error::Resend(error.into())),
        }
    }

    /// The numbers that are shown.
    pub fn view(&mut self) -> &mut View {
        &mut self.view
    }
}

impl AsFd for Server {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fuse.as_fd()
    }
}

fn write(fuse: BorrowedFd<'_>, message: &[u8]) -> Result<(), Errno> {
    loop {
        match rustix::io::write(fuse, message) {
            Err(Errno::INTR) => {}
            // A message is taken whole or not at all.
            other => return other.map(drop),
        }
    }
}
