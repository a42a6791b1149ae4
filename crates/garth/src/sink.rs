//! Where a process's output goes: standard output and error, byte for byte.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tokio::task::spawn_blocking;

/// As much as a pipe that polls writable takes without waiting (PIPE_BUF, pipe(7)).
const PIECE: usize = 4096;

/// A descriptor that others share, so that it must not be made non-blocking, written to without
/// ever blocking this thread: signals and input go on while its reader is slow.
#[derive(Debug)]
pub struct Sink(BorrowedFd<'static>);

impl Sink {
    /// Standard output.
    pub fn stdout() -> Self {
        Self(rustix::stdio::stdout())
    }

    /// Standard error.
    pub fn stderr() -> Self {
        Self(rustix::stdio::stderr())
    }

    /// Writes all of it.
    pub async fn write(&mut self, mut data: &[u8]) -> io::Result<()> {
        while !data.is_empty() {
            self.writable().await?;
            let piece = data.get(..PIECE).unwrap_or(data);
            match rustix::io::write(self.0, piece) {
                Ok(written) => data = data.get(written..).unwrap_or_default(),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// A slow reader is waited for on another thread: epoll takes no files, and knows no descriptor
    /// that it does not own.
    async fn writable(&self) -> io::Result<()> {
        let fd = self.0;
        if !writable_within(fd, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))? {
            spawn_blocking(move || writable_within(fd, None)).await.map_err(io::Error::other)??;
        }
        Ok(())
    }
}

/// Whether a write does not wait: there is room, or an error to meet.
fn writable_within(fd: BorrowedFd<'_>, patience: Option<&Timespec>) -> io::Result<bool> {
    loop {
        match poll(&mut [PollFd::new(&fd, PollFlags::OUT)], patience) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
